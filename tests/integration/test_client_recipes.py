"""Messages in the transactions of Django and SQLAlchemy: both stay, or neither.

The manual's own blocks are run by tests/packaging/test_docs.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Database
from wa_process import environment

DJANGO = """
import os
import django
from django.conf import settings
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
}})
django.setup()
from django.db import connection, transaction
from pg_whatsapp import errors
from pg_whatsapp.client import Client

def order(n, text=None):
    with transaction.atomic():
        connection.cursor().execute("INSERT INTO orders VALUES (%s)", [n])
        wa = Client.using(connection.connection)
        wa.send_message("+5491140000001", text, template_name=None if text else "hello", reference=str(n))
        if n == 2:
            raise KeyError

order(1)
for n, text in ((2, None), (3, "outside of the window")):
    try:
        order(n, text)
    except (KeyError, errors.PolicyError) as error:
        print(type(error).__name__)
with transaction.atomic():
    connection.cursor().execute("INSERT INTO orders VALUES (4)")
    try:
        order(5, "outside of the window")
    except errors.PolicyError as error:
        print(error.sqlstate)
"""
SQLALCHEMY = """
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from pg_whatsapp import errors
from pg_whatsapp.client import Client

engine = create_engine("postgresql+psycopg://")

def add(session, n, words=None):
    session.execute(text("INSERT INTO orders VALUES (:n)"), {"n": n})
    wa = Client.using(session.connection().connection.driver_connection)
    wa.send_message("+5491140000001", words, template_name=None if words else "hello", reference=str(n))
    if n == 2:
        raise KeyError

with Session(engine) as session, session.begin():
    add(session, 1)
for n, words in ((2, None), (3, "outside of the window")):
    try:
        with Session(engine) as session, session.begin():
            add(session, n, words)
    except (KeyError, errors.PolicyError) as error:
        print(type(error).__name__)
with Session(engine) as session, session.begin():
    session.execute(text("INSERT INTO orders VALUES (4)"))
    try:
        with session.begin_nested():
            add(session, 5, "outside of the window")
    except errors.PolicyError as error:
        print(error.sqlstate)
engine.dispose()
"""


@pytest.mark.parametrize("recipe", [DJANGO, SQLALCHEMY], ids=["django", "sqlalchemy"])
def test_orders_and_their_messages_stay_together(
    recipe: str, world: Database, make_role: Callable[..., str], tmp_path: Path
) -> None:
    shop = make_role("wa_app")
    world.query("CREATE TABLE orders (id integer)")
    world.query(f"GRANT ALL ON orders TO {shop}")
    done = subprocess.run(
        [sys.executable, "-c", recipe],
        cwd=tmp_path,
        env=environment(world, shop),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["KeyError", "PolicyError", "WA101"]
    assert world.query("SELECT id FROM orders ORDER BY id") == [{"id": 1}, {"id": 4}]
    assert world.query("SELECT reference, status FROM wa_outbound_queue") == [
        {"reference": "1", "status": "pending"}
    ]
