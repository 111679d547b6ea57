"""The time zones that a telephone number may lie in, by how it begins.

From the phonenumbers library: its own table of prefixes, and for each region, under which people without a
number are known ("ES.1349…"), what it says of the country code. The table says where a prefix was handed out;
a mobile is carried about its country. So prefixes of mobiles are left out, as the library does it, and the
country's zones count for them.
"""

import importlib
import re
from types import ModuleType


def _is_mobile(phonenumbers: ModuleType, region: str, prefix: str) -> bool:
    """Whether mobiles of a region begin so, behind the country code, that are told from fixed lines."""
    told = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if told is None or not told.mobile.national_number_pattern:
        return False
    mobile = re.compile(told.mobile.national_number_pattern)
    fixed = re.compile(told.fixed_line.national_number_pattern or "(?!)")
    numbers = [
        (prefix + digit + "1234567890")[:length]
        for length in told.mobile.possible_length
        for digit in "0123456789"
    ]
    return any(mobile.fullmatch(number) and not fixed.fullmatch(number) for number in numbers)


def phone_zones(phonenumbers: ModuleType) -> list[tuple[str, list[str]]]:
    """Pairs of a prefix ("+34", or the two letters of a region) and its zones, by prefix."""
    by_digits = importlib.import_module(phonenumbers.__name__ + ".tzdata").TIMEZONE_DATA
    zones = {"+" + digits: list(names) for digits, names in by_digits.items()}
    mobile = phonenumbers.PhoneNumberType.MOBILE
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        # Of regions that share a code it is the first one's: the others' prefixes tell which of them it is.
        of_code = by_digits.get(str(code))
        if of_code is None or phonenumbers.is_number_type_geographical(mobile, code):
            continue
        for digits, names in by_digits.items():
            rest = digits.removeprefix(str(code))
            if rest not in ("", digits) and names != of_code and _is_mobile(phonenumbers, regions[0], rest):
                del zones["+" + digits]
    for region in phonenumbers.SUPPORTED_REGIONS:
        of_country = by_digits.get(str(phonenumbers.country_code_for_region(region)))
        if of_country:
            zones[region] = list(of_country)
    return sorted(zones.items())
