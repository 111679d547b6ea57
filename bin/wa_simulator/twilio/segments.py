"""Into how many segments an SMS goes (GSM 03.38, 3GPP TS 23.040)."""

from __future__ import annotations

from typing import Final

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("\f^{}\\[~]|€")


def count_segments(text: str) -> int:
    """Segments of a text: 160 and 153 septets in GSM-7, else 70 and 67 units of UTF-16.

    A character of two units does not lie in two segments.
    """
    if set(text) <= _BASIC | _EXTENDED:
        units, single, several = [2 if one in _EXTENDED else 1 for one in text], 160, 153
    else:
        units, single, several = [len(one.encode("utf-16-le")) // 2 for one in text], 70, 67
    if sum(units) <= single:
        return 1
    segments, free = 0, 0
    for unit in units:
        if unit > free:
            segments, free = segments + 1, several
        free -= unit
    return segments
