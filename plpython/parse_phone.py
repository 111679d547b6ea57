"""Reads a telephone number as people write it and answers in E.164.

The rules, in the order in which they are tried:

* A number with "+" is international and stays what it is; only what is not part of E.164 goes: a trunk zero
  after the country code, Argentina's 15 after an area code, Mexico's retired 1 after +52.
* Without "+" and with a region: the region's international prefix, else its national form, unless that is
  doubtful and eleven digits or more are a valid international number. A national Argentine number is taken
  for a mobile (WhatsApp users are) and gets the 9, a national Brazilian mobile of eight digits its ninth.
* Else the digits are an international number whose "+" is missing, if they can hardly be anything else.

What the library's is_possible_number accepts is accepted, within E.164's length of 7 to 15 digits.
"""

import functools
import importlib
import re
import sys
import unicodedata
from collections.abc import Callable
from types import ModuleType

INTERNATIONAL_HINT = "Write it with + and the country code, for example +15551234567."
REGION_HINT = "Write it with + and the country code, or name the region it is written for, for example US."
PLUS_SIGNS = "+\uff0b\ufe62"
SEPARATORS = "\t./()[]\u2212\u00b7\u2044\u2215\uff0e\uff0f\uff08\uff09\uff3b\uff3d"
EXTENSION = re.compile(r"[;,#]|x|ext|anexo|interno|доб")
LONGEST_INPUT = 250


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


def read_digits(typed: str) -> tuple[bool, str]:
    """Whether `typed` begins with a plus sign, and its digits of any script as ASCII. Raises PhoneError."""
    text = typed.strip()
    if not text:
        raise PhoneError("it is empty")
    if len(text) > LONGEST_INPUT:
        raise PhoneError("it is too long")
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
    return has_plus, "".join(digits)


def make_phone_parser(
    library: ModuleType,
) -> Callable[[str | None, str | None, str | None], tuple[str | None, str | None, str | None]]:
    """A function (phone, region, area code) -> (E.164 or None, problem, hint) on the given library.

    It never raises. Region is an ISO 3166 code of two letters or None; the area code is assumed for local
    forms that have none ("11" in Argentina unless told otherwise).
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
    e164_format = library.PhoneNumberFormat.E164

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

    def international(digits: str) -> str:
        """E.164 of a number that was written with its country code. Raises PhoneError."""
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

    def is_rather_foreign(parsed: object, digits: str) -> bool:
        """Whether digits that are doubtful as a national number are certain as an international one."""
        if len(digits) < 11 or digits.startswith("0") or library.is_valid_number(parsed):
            return False
        try:
            return bool(library.is_valid_number(library.parse("+" + digits, None)))
        except library.NumberParseException:
            return False

    def complete_local(digits: str, region: str, area_code: str | None) -> str:
        """A local form made complete (Argentina's mobiles, Mexico's old prefixes), else unchanged."""
        if region == "AR" and area_code:
            local = re.sub(r"^0?15", "", digits)
            if len(area_code) + len(local) == 10 and (local != digits or not digits.startswith("0")):
                return "9" + area_code + local
        if region == "MX":
            return re.sub(r"^(?:04[45]|01|1)(?=\d{10}$)", "", digits)
        return digits

    def national(typed_digits: str, region: str, area_code: str | None) -> str:
        """E.164 of digits without plus as dialled in `region`. Raises PhoneError."""
        digits = complete_local(typed_digits, region, area_code)
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
            if number is not None and not is_rather_foreign(parsed, digits):
                return number
        try:
            return without_plus(digits)
        except PhoneError:
            raise refusal(reason if reason != possible else too_long) from None

    def read(phone: str, region: str | None, area_code: str | None) -> str:
        """E.164 of `phone`. Raises PhoneError."""
        has_plus, digits = read_digits(phone)
        if has_plus:
            return international(digits)
        if not region or not region.strip():
            return international(without_plus(digits)[1:])
        iso = region.strip().upper()
        if iso not in library.SUPPORTED_REGIONS:
            raise PhoneError("the region is not known", "Give it as its ISO 3166 code, for example AR.")
        area = re.sub(r"\D", "", area_code or "").lstrip("0") or ("11" if iso == "AR" else None)
        return international(national(digits, iso, area)[1:])

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

    return parse_phone
