"""Identifiers as WhatsApp makes them: message ids, business-scoped user ids and ``wa_id`` rewriting."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from typing import Final

from .errors import GraphError

USER_ID: Final = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_PUNCTUATION: Final = str.maketrans("", "", "+-() ")


def new_wamid() -> str:
    """A message id of the usual look, unique by 18 random bytes."""
    return "wamid.HBgL" + base64.b64encode(os.urandom(18)).decode("ascii") + "VAgARGBI="


def digits_of(phone: str) -> str:
    """The digits of a phone number written with ``+ - ( )`` and spaces.

    Raises GraphError 131009 where anything else is in it or the length is not 7 to 15 digits.
    """
    digits = phone.translate(_PUNCTUATION)
    if not (digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15):
        raise GraphError(131009, "The recipient is not a valid phone number.")
    return digits


def canonical_wa_id(digits: str) -> str:
    """The ``wa_id`` that WhatsApp knows an account by, which can differ from the number that was dialled.

    Brazil: area codes from 31 up have no ninth digit. Mexico: a 1 follows the country code. Argentina: a 9
    does.
    """
    if len(digits) == 13 and digits.startswith("55") and digits[4] == "9" and digits[2:4] >= "31":
        return digits[:4] + digits[5:]
    if len(digits) == 12 and digits.startswith("52"):
        return "521" + digits[2:]
    if len(digits) == 12 and digits.startswith("54") and digits[2] != "9":
        return "549" + digits[2:]
    return digits


def derived_user_id(wa_id: str) -> str:
    """The user id of a customer for whom none was given: always the same for the same ``wa_id``."""
    number = int.from_bytes(hashlib.sha256(wa_id.encode()).digest()[:8], "big")
    return f"US.{number}"


def derived_display_phone(phone_number_id: str) -> str:
    """A display number for a business number that was registered by its id alone."""
    number = int.from_bytes(hashlib.sha256(phone_number_id.encode()).digest()[:4], "big")
    return f"1555{number % 10_000_000:07d}"
