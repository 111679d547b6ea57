"""docs/reference.md says what the database's own comments say."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from harness import CHECKOUT, Database


def test_the_reference_is_current(db: Database) -> None:
    loader = SourceFileLoader("reference", str(CHECKOUT / "bin/reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    with db.connect() as connection:
        assert module.render(connection) == module.TARGET.read_text(), "run: make reference"
