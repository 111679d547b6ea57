"""Reads application/x-www-form-urlencoded, as providers post it that do not post JSON."""

import json
import re
from urllib.parse import parse_qsl

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# A webhook has some thirty.
MOST_FIELDS = 1000


def read_form(body: bytes) -> str | None:
    """The fields of a form as a JSON object of texts, the last of each name; None for what is none."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        return None
    return json.dumps(
        {UNSTORABLE.sub("\ufffd", name): UNSTORABLE.sub("\ufffd", value) for name, value in pairs}
    )
