"""Who changes a file of functions finds its tests: the head of one, of pgTAP or of pytest, names the file."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = re.compile(r"^(?:-- )?Tests ((?:sql/[\w/]+\.sql|[,\s]|-- )+)\.$", re.MULTILINE)


def test_every_file_of_functions_is_named_by_its_tests() -> None:
    """The head of a pgTAP file, or the docstring of one of pytest, says: Tests sql/ROOM/FILE.sql."""
    heads = [
        match[1]
        for path in (CHECKOUT / "tests").rglob("*.*")
        if path.suffix in {".sql", ".py"} and (match := NAMES.search(path.read_text()))
    ]
    named = {name for head in heads for name in re.findall(r"sql/[\w/]+\.sql", head)}
    sources = {
        f"sql/{line}"
        for line in (CHECKOUT / "sql/manifest").read_text().split("\n")
        if line.endswith(".sql") and not line.startswith("#")
    }
    functions = {name for name in sources if not Path(name).name.startswith("tables")}
    assert len(functions) > 100
    assert sorted(functions - named) == []
    assert sorted(named - sources) == []
