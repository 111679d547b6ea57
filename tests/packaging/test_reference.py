"""docs/reference.md and docs/errors.md say what the database itself says."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from harness import CHECKOUT, Database


def test_the_reference_and_the_errors_are_current(db: Database) -> None:
    loader = SourceFileLoader("reference", str(CHECKOUT / "bin/reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    with db.connect() as connection:
        assert module.render_errors(connection) == module.ERRORS.read_text(), "run: make reference"
        assert module.render(connection) == module.TARGET.read_text(), "run: make reference"
