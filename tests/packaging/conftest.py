"""Fixtures of the packaging tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Server
from product import Product, load_build


@pytest.fixture
def product(tmp_path: Path, pg: Server) -> Product:
    """The stand-in, with one table and one function, not yet released."""
    made = Product(tmp_path, load_build(), pg)
    made.write("orders/tables.sql", "CREATE TABLE wa_orders (id integer, note text);\n")
    made.write(
        "orders/orders.sql",
        "CREATE OR REPLACE VIEW wa_order_notes AS SELECT id, note FROM wa_orders;\n"
        "CREATE OR REPLACE FUNCTION count_wa_orders() RETURNS bigint LANGUAGE sql STABLE\n"
        "BEGIN ATOMIC SELECT count(*) FROM wa_orders; END;\n",
    )
    return made
