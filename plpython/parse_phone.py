"""Reads a telephone number as people write it and answers in E.164.

The rules, in the order in which they are tried:

* A number with "+" is international and stays what it is; only what is not part of E.164 goes: a trunk zero
  after the country code, Argentina's 15 after an area code, Mexico's retired 1 after +52.
* Without "+" and with a region the same digits may be two numbers: the region's own (its international
  prefix, else its national form) and one with a country code, as WhatsApp writes them. A valid mobile of the
  region comes first. Else a valid mobile with country code does, if it is of eleven digits or more, or of the
  region itself, or if the region has no such number; then a valid number of eleven digits or more where the
  region has none. A national Argentine number is taken for a mobile (WhatsApp users are) and gets the 9, a
  national Brazilian mobile of eight digits its ninth.
* Else the digits are an international number whose "+" is missing, if they can hardly be anything else.
* Links (tel:, whatsapp:, wa.me) and the apostrophe with which spreadsheets mark text are taken off; wa.me
  links have the country code by definition.
* What a program made of a number (491701234567.0, 4.9E+11, 490000000000) is refused: digits may be lost.

What the library's is_possible_number accepts is accepted, within E.164's length of 7 to 15 digits, and so are
the forms that a country gave up in a renumbering, under which WhatsApp goes on to know people (sql/extension/
renumbering.sql).
"""

import contextlib
import functools
import importlib
import re
import sys
import unicodedata
from collections.abc import Callable
from types import ModuleType

INTERNATIONAL_HINT = "Write it with + and the country code, for example +15551234567."
TEXT_HINT = "Take it as text from where it comes, with + and the country code, for example +15551234567."
ROUNDED_PROBLEM = "a program has rounded it, digits are lost"
REGION_HINT = "Write it with + and the country code, or name the region it is written for, for example US."
PLUS_SIGNS = "+\uff0b\ufe62"
SEPARATORS = "\t./()[]\u2212\u00b7\u2044\u2215\uff0e\uff0f\uff08\uff09\uff3b\uff3d"
EXTENSION = re.compile(r"[;,#]|x|ext|anexo|interno|доб")
LONGEST_INPUT = 250
# "tel:" is RFC 3966, "whatsapp:" what other senders' interfaces write; the rest is WhatsApp's click to chat.
SCHEME = re.compile(r"tel:(?://)?|whatsapp:(?!//)", re.IGNORECASE)
CHAT_LINK = re.compile(
    r"(?:https?://)?(?:(?:www\.)?wa\.me/|(?:api|web|www)\.whatsapp\.com/send/?\?(?:.*?&)?phone="
    r"|whatsapp://send/?\?(?:.*?&)?phone=)(?:\+|%2B)?([^/?&#]+)(?:[/?&#].*)?",
    re.IGNORECASE | re.DOTALL,
)
APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
# Decimals behind a number that is complete without them; thousands apart; a power of ten.
DECIMALS = re.compile(r"\d{7,}[.,]0+|\d{1,3}(?:,\d{3}){2,}(?:\.0*)?|\d{1,3}(?:\.\d{3}){2,},0*")
POWER_OF_TEN = re.compile(r"\d+(?:[.,]\d+)?\s?e\s?\+?\d{1,3}", re.IGNORECASE)
# Spreadsheets show long numbers with six digits at most, the rest becomes zeros.
ROUNDED = re.compile(r"[1-9]\d{0,5}0{5,}")
# Mobiles of Côte d'Ivoire and Benin as they were before two digits were put in front. The library calls their
# length impossible; _wa_renumberings() has the sources.
FORMER_MOBILE = re.compile(r"225[04-9]\d{7}|229[4569]\d{7}")


def import_phonenumbers(directory: str) -> ModuleType:
    """The phonenumbers package of `directory`, preferred to the interpreter's own. Raises ImportError."""
    sys.path.insert(0, directory)
    try:
        return importlib.import_module("phonenumbers")
    finally:
        sys.path.remove(directory)


class PhoneError(Exception):
    """Why a text is no telephone number: `problem`, and `hint` for what to do. Neither holds the number."""

    def __init__(self, problem: str, hint: str = INTERNATIONAL_HINT) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def without_wrapping(typed: str) -> tuple[bool, str]:
    """`typed` without link, apostrophe, blanks and invisible characters around it; True: of a chat link."""
    text = "".join(char for char in typed if unicodedata.category(char) != "Cf").strip()
    if text[:1] and text[0] in APOSTROPHES:
        text = text[1:].strip().rstrip(APOSTROPHES)
    link = CHAT_LINK.fullmatch(text)
    if link:
        return True, link[1].replace("%20", " ").strip()
    scheme = SCHEME.match(text)
    return False, text[scheme.end() :].strip() if scheme else text


def refuse_machine_made(text: str) -> None:
    """Raises PhoneError for what a spreadsheet or a JSON encoder wrote where somebody meant digits."""
    plain = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    unsigned = plain.lstrip(PLUS_SIGNS)
    if POWER_OF_TEN.fullmatch(unsigned):
        raise PhoneError(ROUNDED_PROBLEM, TEXT_HINT)
    if DECIMALS.fullmatch(unsigned):
        raise PhoneError("it is a number with decimals or thousands, as a program writes it", TEXT_HINT)


def read_digits(typed: str) -> tuple[bool, str]:
    """Whether `typed` begins with a plus sign, and its digits of any script as ASCII. Raises PhoneError."""
    if len(typed.strip()) > LONGEST_INPUT:
        raise PhoneError("it is too long")
    is_link, text = without_wrapping(typed)
    if not text:
        raise PhoneError("it is empty")
    if not is_link:
        refuse_machine_made(text)
    has_plus = False
    digits: list[str] = []
    for char in text:
        if char.isdecimal():
            digits.append(str(unicodedata.decimal(char)))
        elif char in PLUS_SIGNS:
            if has_plus or digits:
                raise PhoneError("a plus sign may stand only in front")
            has_plus = True
        elif char in SEPARATORS or unicodedata.category(char) in ("Zs", "Pd", "Cf"):
            continue
        elif digits and EXTENSION.search(text.lower()):
            raise PhoneError("it has an extension, which WhatsApp cannot reach", "Leave the extension out.")
        elif char.isalpha():
            raise PhoneError("it contains letters")
        else:
            raise PhoneError("it contains a character that is no part of a telephone number")
    if not digits:
        raise PhoneError("it has no digits")
    return has_plus or is_link, "".join(digits)


Parser = Callable[[str | None, str | None, str | None], tuple[str | None, str | None, str | None]]
Readings = Callable[[str | None, str | None, str | None], list[str | None]]
Doubter = Callable[[str, str | None, str | None], tuple[str | None, str | None]]


def make_phone_parser(library: ModuleType) -> Parser:
    """A function (phone, region, area code) -> (E.164 or None, problem, hint) on the given library.

    It never raises. Region is an ISO 3166 code of two letters or None; the area code is assumed for local
    forms that have none ("11" in Argentina unless told otherwise).
    """
    return make_phone_functions(library)[0]


def make_phone_functions(library: ModuleType) -> tuple[Parser, Readings, Doubter]:
    """make_phone_parser()'s function, and two more of the same arguments that never raise either.

    The second lists all numbers which the same text may mean, for callers who can look who is known: the
    parser's answer first (None for what it refuses), then the other readings, at last, maybe once more, the
    digits as they stand, a number even if no plan has it any more.

    The third takes a number that was stored by earlier rules and tells, if it looks misread, what was
    probably meant (None where digits are lost) and why it is thought so; (None, None) if nothing is wrong.
    """
    possible = library.ValidationResult.IS_POSSIBLE
    local_only = library.ValidationResult.IS_POSSIBLE_LOCAL_ONLY
    too_short = library.ValidationResult.TOO_SHORT
    too_long = library.ValidationResult.TOO_LONG
    no_whatsapp = (
        library.PhoneNumberType.TOLL_FREE,
        library.PhoneNumberType.PREMIUM_RATE,
        library.PhoneNumberType.SHARED_COST,
        library.PhoneNumberType.UAN,
    )
    mobile_types = (library.PhoneNumberType.MOBILE, library.PhoneNumberType.FIXED_LINE_OR_MOBILE)
    e164_format = library.PhoneNumberFormat.E164

    # Small caches: one number is asked about several times while it is read.
    @functools.lru_cache(maxsize=64)
    def is_mobile(number: str) -> bool:
        """Whether an E.164 number is valid and maybe a mobile, in its country's present or former plan."""
        if FORMER_MOBILE.fullmatch(number, 1):
            return True
        try:
            parsed = library.parse(number, None)
        except library.NumberParseException:
            return False
        return library.is_valid_number(parsed) and library.number_type(parsed) in mobile_types

    def is_valid(number: str) -> bool:
        """Whether the numbering plan of its country has an E.164 number, or had it."""
        return bool(is_mobile(number) or library.is_valid_number(library.parse(number, None)))

    def e164(parsed: object) -> str:
        """E.164 of a parsed number. Raises PhoneError outside the lengths that E.164 and networks know."""
        number = str(library.format_number(parsed, e164_format))
        if len(number) < 8:
            raise PhoneError("it is too short")
        if len(number) > 16:
            raise PhoneError("it is too long")
        return number

    def refusal(reason: int, hint: str = INTERNATIONAL_HINT) -> PhoneError:
        """The PhoneError for a library verdict other than possible."""
        if reason == local_only:
            return PhoneError("the area code is missing", hint)
        if reason == too_short:
            return PhoneError("it is too short", hint)
        if reason == too_long:
            return PhoneError("it is too long", hint)
        return PhoneError("no number of that country has so many digits", hint)

    def parse_international(digits: str) -> object:
        """Digits that begin with a country code, parsed. Raises PhoneError."""
        # Mexico gave the 1 for mobiles up in 2019: with and without it the same subscriber answers.
        plain = "52" + digits[3:] if re.fullmatch(r"521\d{10}", digits) else digits
        try:
            return library.parse("+" + plain, None)
        except library.NumberParseException as error:
            if error.error_type == library.NumberParseException.INVALID_COUNTRY_CODE:
                raise PhoneError("no country has that calling code") from None
            raise PhoneError(
                "it is too short"
                if error.error_type != library.NumberParseException.TOO_LONG
                else "it is too long"
            ) from None

    @functools.lru_cache(maxsize=64)
    def international(digits: str) -> str:
        """E.164 of a number that was written with its country code. Raises PhoneError."""
        if FORMER_MOBILE.fullmatch(digits):
            return "+" + digits
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason not in (possible, local_only):
            raise refusal(reason)
        number = e164(parsed)
        # The library takes one trunk prefix off at a time; what we give must read as itself.
        return international(number[1:]) if len(number) <= len(digits) else number

    def without_plus(digits: str) -> str:
        """E.164 of digits that are an international number without its +. Raises PhoneError.

        Ten digits are more often somebody's national number than a foreign one, so fewer than eleven count
        only if the library knows them as valid; an American area code never begins with 0 or 1.
        """
        if digits.startswith("00"):
            return international(digits[2:])
        if digits.startswith("0"):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        if FORMER_MOBILE.fullmatch(digits):
            return "+" + digits
        parsed = parse_international(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if (
            reason != possible
            or (len(digits) < 11 and not library.is_valid_number(parsed))
            or re.match(r"1[01]", digits)
        ):
            raise PhoneError("it is a national form and no region is known", REGION_HINT)
        return e164(parsed)

    def with_national_rules(parsed: object) -> str | None:
        """E.164 of a number read as a national form; None where that country has no such number."""
        country, national = e164(parsed), str(library.national_significant_number(parsed))
        if country.startswith("+54"):
            if len(national) == 11 and not national.startswith("9"):
                return None
            if len(national) == 10 and library.number_type(parsed) not in no_whatsapp:
                return "+549" + national
        if country.startswith("+55") and re.fullmatch(r"[1-9][1-9][6-9]\d{7}", national):
            return "+55" + national[:2] + "9" + national[2:]
        return country

    @functools.lru_cache(maxsize=64)
    def with_country_code(digits: str) -> str | None:
        """E.164 of digits that are a valid number with their country code in front, else None."""
        if digits.startswith("0"):
            return None
        try:
            number = international(digits)
        except PhoneError:
            return None
        return number if is_valid(number) else None

    def is_rather_foreign(own: str, other: str, digits: str, region: str) -> bool:
        """Whether digits mean `other`, read with country code, rather than `own`, read as the region does.

        Ten digits are more often somebody's national number than a foreign one, and a wrong landline is
        nobody who reads; hence a mobile of ten digits counts only where the region has no such number.
        """
        if is_mobile(own):
            return False
        if is_mobile(other):
            code = str(library.country_code_for_region(region))
            return len(digits) >= 11 or digits.startswith(code) or not is_valid(own)
        return len(digits) >= 11 and not is_valid(own)

    def complete_local(digits: str, region: str, area_code: str | None) -> str:
        """A local form made complete (Argentina's mobiles, Mexico's old prefixes), else unchanged."""
        if region == "AR" and area_code:
            local = re.sub(r"^0?15", "", digits)
            if len(area_code) + len(local) == 10 and (local != digits or not digits.startswith("0")):
                return "9" + area_code + local
        if region == "MX":
            return re.sub(r"^(?:04[45]|01|1)(?=\d{10}$)", "", digits)
        return digits

    @functools.lru_cache(maxsize=64)
    def as_dialled(typed_digits: str, region: str, area_code: str | None) -> str:
        """E.164 of digits without plus as dialled in `region`. Raises PhoneError."""
        digits = complete_local(typed_digits, region, area_code)
        former = str(library.country_code_for_region(region)) + digits
        if FORMER_MOBILE.fullmatch(former):
            return "+" + former
        try:
            parsed = library.parse(digits, region, keep_raw_input=True)
        except library.NumberParseException:
            return without_plus(digits)
        reason = library.is_possible_number_with_reason(parsed)
        if reason == local_only and area_code:
            parsed = library.parse(area_code + digits, region, keep_raw_input=True)
            reason = library.is_possible_number_with_reason(parsed)
        if reason == possible:
            if parsed.country_code_source != library.CountryCodeSource.FROM_DEFAULT_COUNTRY:
                return e164(parsed)
            number = with_national_rules(parsed)
            if number is not None:
                return number
        try:
            return without_plus(digits)
        except PhoneError:
            raise refusal(reason if reason != possible else too_long) from None

    def national(digits: str, region: str, area_code: str | None) -> str:
        """E.164 of digits without plus where `region` is known: its own number, or a foreign one.

        Raises PhoneError.
        """
        other = with_country_code(digits)
        try:
            own = as_dialled(digits, region, area_code)
        except PhoneError:
            if other is not None and len(digits) >= 11:
                return other
            raise
        return other if other is not None and is_rather_foreign(own, other, digits, region) else own

    def read(phone: str, region: str | None, area_code: str | None) -> str:
        """E.164 of `phone`. Raises PhoneError."""
        has_plus, digits = read_digits(phone)
        if has_plus:
            return international(digits)
        if len(digits) < 10 or not ROUNDED.fullmatch(phone.strip()):
            return without_sign(digits, region, area_code)
        # A landline with so many zeros is rarer than 4.9E+11 that JSON or a column of numbers wrote out.
        try:
            number = without_sign(digits, region, area_code)
        except PhoneError:
            number = None
        if number is None or not is_mobile(number):
            raise PhoneError(ROUNDED_PROBLEM, TEXT_HINT)
        return number

    def without_sign(digits: str, region: str | None, area_code: str | None) -> str:
        """E.164 of digits that had no plus sign. Raises PhoneError."""
        if not region or not region.strip():
            return international(without_plus(digits)[1:])
        iso, area = known_region(region, area_code)
        return international(national(digits, iso, area)[1:])

    def known_region(region: str, area_code: str | None) -> tuple[str, str | None]:
        """The region as the library writes it, and the area code to assume in it. Raises PhoneError."""
        iso = region.strip().upper()
        if iso not in library.SUPPORTED_REGIONS:
            raise PhoneError("the region is not known", "Give it as its ISO 3166 code, for example AR.")
        return iso, re.sub(r"\D", "", area_code or "").lstrip("0") or ("11" if iso == "AR" else None)

    def readings(phone: str | None, region: str | None, area_code: str | None) -> list[str | None]:
        """See make_phone_functions()."""
        best = parse_phone(phone, region, area_code)[0]
        try:
            has_plus, digits = read_digits(phone or "")
        except PhoneError:
            return [best]
        others: list[str | None] = []
        if not has_plus and region and region.strip():
            others.append(with_country_code(digits))
            with contextlib.suppress(PhoneError):
                others.append(as_dialled(digits, *known_region(region, area_code)))
        bare = digits.removeprefix("00")
        as_it_stands = ["+" + bare] if 7 <= len(bare) <= 15 and not bare.startswith("0") else []
        return [best, *(number for number in others if number not in (None, best)), *as_it_stands]

    @functools.lru_cache(maxsize=4096)
    def parse_phone(
        phone: str | None, region: str | None, area_code: str | None
    ) -> tuple[str | None, str | None, str | None]:
        """(E.164, None, None), or (None, problem, hint); all None for None."""
        if phone is None:
            return None, None, None
        try:
            return read(phone, region, area_code), None, None
        except PhoneError as error:
            return None, error.problem, error.hint

    def doubt(stored: str, region: str | None, area_code: str | None) -> tuple[str | None, str | None]:
        """See make_phone_functions()."""
        digits = stored.removeprefix("+")
        # Behind the region's own code stands what was written, if it was read as national.
        code = str(library.country_code_for_region((region or "").strip().upper()))
        for added in (code, "549") if code == "54" else (code,):
            written = digits.removeprefix(added)
            meant = parse_phone(written, region, area_code)[0] if written != digits else None
            if meant is None or meant == stored or is_mobile(stored) or not is_mobile(meant):
                continue
            if stored in readings(written, region, area_code):
                return meant, "a number with its country code was read as a national one"
        if ROUNDED.fullmatch(digits) and not is_mobile(stored):
            return None, "a program had rounded it"
        for zeros in ("0", "00"):
            meant = stored.removesuffix(zeros)
            if meant != stored and is_mobile(meant) and not is_mobile(stored):
                return meant, "decimals were read as digits"
        return None, None

    return parse_phone, readings, doubt
