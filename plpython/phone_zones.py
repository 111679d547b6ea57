"""The time zones that a telephone number may lie in, by how it begins.

From the phonenumbers library: its own table of prefixes, and for each region, under which people without a
number are known ("ES.1349…"), what it says of the country code.
"""

import importlib
from types import ModuleType


def phone_zones(phonenumbers: ModuleType) -> list[tuple[str, list[str]]]:
    """Pairs of a prefix ("+34", or the two letters of a region) and its zones, by prefix."""
    by_digits = importlib.import_module(phonenumbers.__name__ + ".tzdata").TIMEZONE_DATA
    zones = {"+" + digits: list(names) for digits, names in by_digits.items()}
    for region in phonenumbers.SUPPORTED_REGIONS:
        of_country = by_digits.get(str(phonenumbers.country_code_for_region(region)))
        if of_country:
            zones[region] = list(of_country)
    return sorted(zones.items())
