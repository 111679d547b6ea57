"""The line of an HTTP header, as people write it down."""

from __future__ import annotations

import re

#: A name and a value, by RFC 9110, section 5.
HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(\S(?:.*\S)?)")
