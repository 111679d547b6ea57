"""What an EXECUTE would run, as far as its expression tells."""

from __future__ import annotations

import re
from typing import Any

# Stand in a text for what is not known before: one name or literal, or anything at all.
PLACEHOLDER = "_rooms_unknown_"
ANYTHING = PLACEHOLDER + "text_"


def names(node: Any) -> str:
    """The last part of a qualified name."""
    return str(node[-1]["String"]["sval"])


def quoted(text: str) -> str:
    """A text as a literal."""
    return "'" + text.replace(ANYTHING, PLACEHOLDER).replace("'", "''") + "'"


def dynamic_text(node: Any) -> str:
    """The statement that an EXECUTE would run, with placeholders for what is not known before."""
    (kind, value), *_ = node.items()
    if kind == "A_Const" and "sval" in value:
        return str(value["sval"].get("sval", ""))
    if kind == "A_Const" and "ival" in value:
        return str(value["ival"].get("ival", 0))
    if kind == "TypeCast":
        return dynamic_text(value["arg"])
    if kind == "A_Expr" and names(value["name"]) == "||":
        return dynamic_text(value["lexpr"]) + dynamic_text(value["rexpr"])
    arguments = [dynamic_text(argument) for argument in value.get("args", [])] if kind == "FuncCall" else []
    match names(value["funcname"]) if arguments else "":
        case "quote_ident":
            return arguments[0].replace(ANYTHING, PLACEHOLDER)
        case "quote_literal" | "quote_nullable":
            return quoted(arguments[0])
        case "format":
            return formatted(*arguments)
    return ANYTHING


def formatted(pattern: str, *arguments: str) -> str:
    """What format() makes of texts."""
    left = iter(arguments)

    def filled(match: re.Match[str]) -> str:
        if match["type"] == "%":
            return "%"
        chosen = iter(arguments[int(match["position"]) - 1 :]) if match["position"] else left
        text = next(chosen, ANYTHING)
        if match["type"] == "L":
            return quoted(text)
        return text.replace(ANYTHING, PLACEHOLDER) if match["type"] == "I" else text

    return re.sub(r"%(?:(?P<position>\d+)\$)?(?P<type>[sIL%])", filled, pattern)
