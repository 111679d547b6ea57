"""How telephone numbers are read, without a server."""

from __future__ import annotations

import functools
import re

import phonenumbers
import plpython_source
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

source = plpython_source.load("parse_phone")
parse = source.make_phone_parser(phonenumbers)
_, readings, doubt = source.make_phone_functions(phonenumbers)
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)


def number(phone: str | None, region: str | None = None, area_code: str | None = None) -> str | None:
    """The E.164 form, None for what is refused."""
    e164: str | None = parse(phone, region, area_code)[0]
    return e164


@pytest.mark.parametrize(
    ("phone", "region", "expected"),
    [
        ("15551234567", None, "+15551234567"),
        ("+1 (555) 123-4567", None, "+15551234567"),
        ("+15551234567", "AR", "+15551234567"),
        ("15551234567", "US", "+15551234567"),
        ("15551234567", "AR", "+15551234567"),
        ("14155552671", "IN", "+14155552671"),
        ("14155552671", "BR", "+14155552671"),
        ("5491112345678", "US", "+5491112345678"),
        ("5511987654321", "BR", "+5511987654321"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("415.555.2671", "us", "+14155552671"),
        ("+44 (0)20 7946 0018", None, "+442079460018"),
        ("020 7946 0018", "GB", "+442079460018"),
        ("+39 06 698 82000", None, "+390669882000"),
        ("0044 20 7946 0018", None, "+442079460018"),
        ("0044 20 7946 0018", "US", "+442079460018"),
        ("011 44 20 7946 0018", "US", "+442079460018"),
        ("0011 44 20 7946 0018", "AU", "+442079460018"),
        ("4520123456", None, "+4520123456"),
        ("+45/20/12/34/56", None, "+4520123456"),
        ("[+45] 20\u201112\u20113456", None, "+4520123456"),
        ("\u202a+45\u00a020123456\u202c", None, "+4520123456"),
        ("\uff0b\uff11 \uff15\uff15\uff15 \uff11\uff12\uff13 \uff14\uff15\uff16\uff17", None, "+15551234567"),
        ("\u0660\u0661\u0660 \u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668", "EG", "+201012345678"),
        ("+800 1234 5678", None, "+80012345678"),
        # As WhatsApp writes it, with the country code of the region itself: no landline of Leer or Pristina.
        ("4915123456789", "DE", "+4915123456789"),
        ("49 1512 3456789", "DE", "+4915123456789"),
        ("38343201234", "XK", "+38343201234"),
        ("62812345678", "ID", "+62812345678"),
        ("04915 123456", "DE", "+494915123456"),
        ("4915 123456", "DE", "+494915123456"),
        ("12025550123", "DE", "+12025550123"),
        ("15062345678", "AT", "+15062345678"),
        # Both would be mobiles: the region decides.
        ("4792345678", "US", "+14792345678"),
        ("18762101234", "CN", "+8618762101234"),
        # Ten digits of which the region has a landline are one.
        ("4741234567", "BR", "+554741234567"),
        ("5351234567", "IL", "+5351234567"),
        # Links, and what spreadsheets put in front of text.
        ("'+4915123456789", None, "+4915123456789"),
        ("\u2019491512 3456789", "DE", "+4915123456789"),
        ("'+4915123456789'", None, "+4915123456789"),
        ("tel:+49-1512-3456789", None, "+4915123456789"),
        ("TEL:0151 23456789", "DE", "+4915123456789"),
        ("whatsapp:+4915123456789", None, "+4915123456789"),
        ("https://wa.me/4915123456789", "US", "+4915123456789"),
        ("wa.me/4741234567?text=Hello%20there", "BR", "+4741234567"),
        ("https://api.whatsapp.com/send/?text=Hi&phone=%2B4915123456789", None, "+4915123456789"),
        ("whatsapp://send?phone=4915123456789&text=Hi", "US", "+4915123456789"),
        ("\ufeff4915123456789\u200b", "DE", "+4915123456789"),
        (
            "\uff14\uff19\uff11\uff15\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",
            "DE",
            "+4915123456789",
        ),
        # Dots between groups are none of a number with decimals.
        ("030.1234567", "DE", "+49301234567"),
        ("49.151.234.56789", "DE", "+4915123456789"),
        # Many zeros, but a mobile, or said to be complete.
        ("821020000000", "DE", "+821020000000"),
        ("+49 89 6000000", None, "+49896000000"),
        # Renumbered countries: who has an old form has that form at WhatsApp, too.
        ("22507123456", None, "+22507123456"),
        ("22507123456", "DE", "+22507123456"),
        ("+225 07 12 34 56", None, "+22507123456"),
        ("07 12 34 56", "CI", "+22507123456"),
        ("0707123456", "CI", "+2250707123456"),
        ("22997123456", "DE", "+22997123456"),
        ("97 12 34 56", "BJ", "+22997123456"),
        ("0197123456", "BJ", "+2290197123456"),
    ],
)
def test_spellings_of_one_number(phone: str, region: str | None, expected: str) -> None:
    assert number(phone, region) == expected


@pytest.mark.parametrize(
    ("phone", "region", "area_code", "expected"),
    [
        ("11 1234-5678", "AR", None, "+5491112345678"),
        ("011 1234-5678", "AR", None, "+5491112345678"),
        ("15 1234-5678", "AR", None, "+5491112345678"),
        ("15 1234-5678", "AR", "011", "+5491112345678"),
        ("011 15 1234-5678", "AR", None, "+5491112345678"),
        ("11 15 1234-5678", "AR", None, "+5491112345678"),
        ("1234-5678", "AR", None, "+5491112345678"),
        ("9 11 1234-5678", "AR", None, "+5491112345678"),
        ("15 512-3456", "AR", "221", "+5492215123456"),
        ("0221 15 512-3456", "AR", None, "+5492215123456"),
        ("221 512-3456", "AR", None, "+5492215123456"),
        ("+54 9 11 1234-5678", None, None, "+5491112345678"),
        ("5491112345678", "AR", None, "+5491112345678"),
        ("54 11 1234-5678", "AR", None, "+541112345678"),
        # Given with its country code it is what the writer says: a landline stays one.
        ("+54 11 1234-5678", "AR", None, "+541112345678"),
        ("+54 11 15 1234-5678", None, None, "+5491112345678"),
        # Nobody has WhatsApp on a toll-free number; it gets no 9.
        ("0800 555 1234", "AR", None, "+548005551234"),
    ],
)
def test_argentine_forms(phone: str, region: str | None, area_code: str | None, expected: str) -> None:
    assert number(phone, region, area_code) == expected


@pytest.mark.parametrize(
    ("phone", "region", "expected"),
    [
        ("(11) 98765-4321", "BR", "+5511987654321"),
        ("11 8765-4321", "BR", "+5511987654321"),
        ("0 15 11 98765-4321", "BR", "+5511987654321"),
        ("11 3456-7890", "BR", "+551134567890"),
        ("+55 11 8765-4321", None, "+551187654321"),
        ("+5511987654321", None, "+5511987654321"),
        ("55 1234 5678", "MX", "+525512345678"),
        ("044 55 1234 5678", "MX", "+525512345678"),
        ("1 55 1234 5678", "MX", "+525512345678"),
        ("+52 1 55 1234 5678", None, "+525512345678"),
        ("5215512345678", None, "+525512345678"),
        ("+52 55 1234 5678", None, "+525512345678"),
    ],
)
def test_brazil_and_mexico(phone: str, region: str | None, expected: str) -> None:
    assert number(phone, region) == expected


@pytest.mark.parametrize(
    ("phone", "region", "said"),
    [
        ("", None, "empty"),
        ("   ", "US", "empty"),
        ("invalid_number", None, "letters"),
        ("call me", "US", "letters"),
        ("+1 415 555 2671 ext. 5", None, "extension"),
        ("+1 415 555 2671 x123", None, "extension"),
        ("+14155552671;ext=5", None, "extension"),
        ("415 555 2671 #7", "US", "extension"),
        ("+1415555\x002671", None, "character"),
        ("+1415555\n2671", None, "character"),
        ("*100#", "US", "character"),
        ("1+4155552671", "US", "plus"),
        ("++14155552671", None, "plus"),
        ("+", None, "no digits"),
        ("()", "US", "no digits"),
        ("+1", None, "too short"),
        ("+1415555", None, "too short"),
        ("+141555526711234", None, "too long"),
        ("9" * 300, None, "too long"),
        ("+999123456789", None, "calling code"),
        ("(415) 555-2671", None, "region"),
        ("5551234567", None, "region"),
        ("11 98765-4321", None, "region"),
        ("011 1234-5678", None, "region"),
        ("555-1234", "US", "area code"),
        ("415 555 2671", "XX", "region"),
        ("491701234567.0", None, "as a program writes it"),
        ("491701234567.0", "DE", "as a program writes it"),
        ("491701234567.00", "DE", "as a program writes it"),
        ("491701234567,0", "DE", "as a program writes it"),
        ("+491701234567.0", None, "as a program writes it"),
        ("6502530000.0", "US", "as a program writes it"),
        ("'491701234567.0", "DE", "as a program writes it"),
        ("491,701,234,567", "DE", "as a program writes it"),
        ("491.701.234.567,00", "DE", "as a program writes it"),
        ("4.9E+11", "DE", "digits are lost"),
        ("4.9E+11", None, "digits are lost"),
        ("4,9E+11", "DE", "digits are lost"),
        ("4.91701234567e11", "DE", "digits are lost"),
        ("490000000000", "DE", "digits are lost"),
        ("490000000000", None, "digits are lost"),
        ("+4915123456789;ext=5", None, "extension"),
        ("https://wa.me/message/ABCDEFGH", None, "letters"),
    ],
)
def test_what_is_refused_and_why(phone: str, region: str | None, said: str) -> None:
    e164, problem, hint = parse(phone, region, None)
    assert e164 is None
    assert said in problem
    assert hint


def test_the_reason_never_repeats_the_number() -> None:
    _, problem, hint = parse("4155552671", None, None)
    assert "415" not in problem + hint


def test_nothing_stays_nothing() -> None:
    assert parse(None, "US", None) == (None, None, None)


@settings(deadline=None)
@given(
    st.text(max_size=300),
    st.none() | st.text(max_size=3) | st.sampled_from(REGIONS),
    st.none() | st.text(max_size=6),
)
def test_no_text_at_all_makes_it_raise(phone: str, region: str | None, area_code: str | None) -> None:
    e164, problem, hint = parse(phone, region, area_code)
    if e164 is None:
        assert problem
        assert hint
    else:
        assert E164.fullmatch(e164)


digits = st.text("0123456789", min_size=1, max_size=17)


@settings(max_examples=500, deadline=None)
@given(digits, st.none() | st.sampled_from(REGIONS))
def test_what_was_read_once_reads_the_same_again(text: str, region: str | None) -> None:
    for phone in (text, "+" + text):
        e164 = number(phone, region)
        if e164 is not None:
            assert number(e164, region) == e164
            assert number(e164) == e164


def library_reads(phone: str) -> str | None:
    """What the library makes of an international number, read until it stays; None if not possible."""
    try:
        parsed = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return None
    e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if not phonenumbers.is_possible_number(parsed) or not E164.fullmatch(e164):
        return None
    return e164 if e164 == phone else library_reads(e164)


@settings(max_examples=500, deadline=None)
@given(digits)
def test_every_possible_number_is_accepted(text: str) -> None:
    expected = library_reads("+" + text)
    if expected is not None:
        assert number("+" + text) == expected


@functools.cache
def mobile_examples() -> dict[str, phonenumbers.PhoneNumber]:
    """The library's example of a mobile number, for every region that has one of at least five digits."""
    kind = phonenumbers.PhoneNumberType.MOBILE
    examples = {region: phonenumbers.example_number_for_type(region, kind) for region in REGIONS}
    return {r: example for r, example in examples.items() if example and example.national_number > 9999}


@pytest.mark.parametrize(("region", "mobile"), mobile_examples().items())
def test_example_numbers_of_every_region(region: str, mobile: phonenumbers.PhoneNumber) -> None:
    forms = phonenumbers.PhoneNumberFormat
    expected = phonenumbers.format_number(mobile, forms.E164)
    assert number(phonenumbers.format_number(mobile, forms.INTERNATIONAL)) == expected
    assert number(expected) == expected
    assert number(phonenumbers.format_number(mobile, forms.NATIONAL), region) == expected


def is_mobile(phone: str) -> bool:
    """Whether it may be a mobile, by the library."""
    parsed = phonenumbers.parse(phone)
    kinds = phonenumbers.PhoneNumberType
    return phonenumbers.is_valid_number(parsed) and phonenumbers.number_type(parsed) in (
        kinds.MOBILE,
        kinds.FIXED_LINE_OR_MOBILE,
    )


@pytest.mark.parametrize(("region", "mobile"), mobile_examples().items())
def test_example_mobiles_of_every_region_as_whatsapp_writes_them(
    region: str, mobile: phonenumbers.PhoneNumber
) -> None:
    expected = phonenumbers.format_number(mobile, phonenumbers.PhoneNumberFormat.E164)
    assert number(expected[1:], region) == expected
    assert number(expected[1:]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("mobile", mobile_examples().values(), ids=str)
def test_example_mobiles_as_whatsapp_writes_them_with_every_default_region(
    mobile: phonenumbers.PhoneNumber,
) -> None:
    """What else it may be is a mobile of the region, or any number of it if there are ten digits at most."""
    expected = phonenumbers.format_number(mobile, phonenumbers.PhoneNumberFormat.E164)
    misread = []
    for region in REGIONS:
        read = number(expected[1:], region)
        if read == expected:
            continue
        if read is None:
            misread.append((region, read))
            continue
        is_national = phonenumbers.is_valid_number(phonenumbers.parse(read)) and read.startswith(
            f"+{phonenumbers.country_code_for_region(region)}"
        )
        is_former = source.FORMER_MOBILE.fullmatch(read, 1) is not None
        if not (is_mobile(read) or is_former or (len(expected) <= 11 and is_national)):
            misread.append((region, read))
    assert misread == []


@pytest.mark.parametrize(
    ("phone", "region", "expected"),
    [
        # What was taken, what else the digits may be, and the digits as they stand.
        ("4915123456789", "DE", ["+4915123456789", "+494915123456789", "+4915123456789"]),
        ("4741234567", "BR", ["+554741234567", "+4741234567", "+4741234567"]),
        ("+225 20 12 34 56", "DE", [None, "+22520123456"]),
        ("11 1234-5678", "AR", ["+5491112345678", "+1112345678"]),
        ("0049 1512 3456789", "DE", ["+4915123456789", "+4915123456789"]),
        ("+14155552671", "US", ["+14155552671", "+14155552671"]),
        ("4.9E+11", "DE", [None]),
        ("490000000000", "DE", [None, "+49490000000000", "+490000000000"]),
        ("nobody", "DE", [None]),
        (None, "DE", [None]),
    ],
)
def test_all_that_digits_may_mean(phone: str | None, region: str, expected: list[str | None]) -> None:
    assert readings(phone, region, None) == expected


@pytest.mark.parametrize(
    ("stored", "region", "meant", "why"),
    [
        ("+494915123456789", "DE", "+4915123456789", "read as a national one"),
        ("+6262812345678", "ID", "+62812345678", "read as a national one"),
        ("+38338343201234", "XK", "+38343201234", "read as a national one"),
        ("+5493546111234", "AR", "+3546111234", "read as a national one"),
        ("+141555526710", "US", "+14155552671", "decimals"),
        ("+1415555267100", "US", "+14155552671", "decimals"),
        ("+490000000000", "DE", None, "rounded"),
        ("+49490000000000", "DE", None, "rounded"),
        ("+4915123456789", "DE", None, None),
        ("+494915123456", "DE", None, None),
        ("+14155552670", None, None, None),
        ("+821020000000", "KR", None, None),
    ],
)
def test_what_was_stored_misread(stored: str, region: str | None, meant: str | None, why: str | None) -> None:
    told, reason = doubt(stored, region, None)
    assert told == meant
    assert (why in reason) if why else reason is None


@settings(deadline=None)
@given(st.text(max_size=300), st.none() | st.text(max_size=3) | st.sampled_from(REGIONS))
def test_readings_and_doubts_of_any_text_are_numbers(phone: str, region: str | None) -> None:
    for found in readings(phone, region, None):
        assert found is None or E164.fullmatch(found)
    meant, _ = doubt("+" + re.sub(r"\D", "", phone)[:15], region, None)
    assert meant is None or E164.fullmatch(meant)


@settings(deadline=None)
@given(st.from_regex(E164, fullmatch=True))
def test_a_number_with_plus_keeps_its_subscriber(phone: str) -> None:
    """Only what is no part of E.164 may go: a trunk prefix, Mexico's 1, Argentina's 15."""
    e164 = number(phone)
    if e164 is None or e164 == phone:
        return
    if phone.startswith("+521"):
        assert e164 == "+52" + phone[4:]
    else:
        assert e164 == library_reads(phone)
