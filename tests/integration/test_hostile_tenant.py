"""A role of organization A tries everything on B, over every relation and function of the catalogue."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from harness import GROUPS, Database
from psycopg import sql
from tenants import Tenant, belongings, make_tenants, relations, tables, tenant_column

pytestmark = pytest.mark.slow

# 42501 no right or a policy; WA30x the organization is not yours.
REFUSALS = {"42501", "WA301", "WA302"}
# Views that analysts read as they are: they hold counts and ids.
NUMBERS_ALONE = {"whatsapp_analytics", "rate_limits"}
# Members of the extension touch no table; trigger functions cannot be called.
FUNCTIONS = """
    SELECT p.oid, p.proname AS name, p.proretset AS is_set, coalesce(p.proargnames, '{}') AS names,
        ARRAY(
            SELECT format_type(a.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, place)
            ORDER BY a.place
        ) AS types,
        pronargdefaults AS defaults
    FROM pg_proc AS p
    WHERE p.pronamespace = 'public'::regnamespace AND p.prorettype <> 'trigger'::regtype
        AND has_function_privilege(%s, p.oid, 'EXECUTE')
        AND NOT EXISTS (
            SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        )
    ORDER BY p.oid::regprocedure::text
"""


class Hostile:
    """Two tenants and the ways in which a role of A can pretend to be somebody else."""

    def __init__(self, db: Database, make_role: Callable[..., str]) -> None:
        self.db = db
        self.a, self.b, self.service = make_tenants(db, make_role)
        self.analyst = make_role("wa_analyst")
        db.query("SELECT add_wa_organization_role(%s, %s)", self.a.id, self.analyst)
        self.before = belongings(db, self.b)

    def pretences(self, user: str) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        """A session of the role as it is, with the setting of B, and in the clothes of its group."""
        group = "wa_app" if user == self.a.role else "wa_analyst"
        for name, setting, role in (
            ("as it is", None, None),
            ("with B's setting", self.b.id, None),
            ("as its group", None, group),
            ("as its group with B's setting", self.b.id, group),
        ):
            with self.db.connect(user=user) as session:
                if setting:
                    session.execute("SELECT set_config('wa.organization_id', %s, false)", (setting,))
                if role:
                    session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                yield name, session

    def check_untouched(self) -> None:
        """Nothing of B appeared, changed or went away."""
        assert belongings(self.db, self.b) == self.before


@pytest.fixture
def hostile(db: Database, make_role: Callable[..., str]) -> Hostile:
    return Hostile(db, make_role)


def keep(texts: list[str], notice: psycopg.errors.Diagnostic) -> None:
    """Put the text of a notice where the test finds it."""
    texts.append(notice.message_primary or "")


def attempt(session: psycopg.Connection[Any], statement: Any, args: Any = None) -> tuple[str, list[Any], int]:
    """SQLSTATE (empty when it worked), rows, and how many it touched."""
    try:
        cursor = session.execute(statement, args)
        return "", cursor.fetchall() if cursor.description else [], cursor.rowcount
    except psycopg.Error as error:
        return error.sqlstate or "?", [str(error)], 0


def test_both_tenants_have_something_in_every_table(hostile: Hostile) -> None:
    """What is not there cannot be stolen: a table that no tenant fills would be tested for nothing."""
    assert [table for table, rows in hostile.before.items() if not rows] == []
    assert len(hostile.before) > 25
    assert hostile.before.keys() == belongings(hostile.db, hostile.a).keys()


def test_nobody_becomes_somebody_else(hostile: Hostile) -> None:
    with hostile.db.connect(user=hostile.a.role) as session:
        foreign = [hostile.b.role, *(group for group in GROUPS if group != "wa_app"), "postgres"]
        for role in foreign:
            for way in ("SET ROLE {}", "SET SESSION AUTHORIZATION {}"):
                state, _, _ = attempt(session, sql.SQL(way).format(sql.Identifier(role)))
                assert state == "42501", (way, role)


@pytest.mark.parametrize("who", ["app", "analyst"])
def test_no_relation_shows_anything_of_the_other(hostile: Hostile, who: str) -> None:
    user = hostile.a.role if who == "app" else hostile.analyst
    seen_own = set()
    for pretence, session in hostile.pretences(user):
        session.execute(
            "CREATE FUNCTION pg_temp.leak(p_row text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
            " $$ BEGIN RAISE NOTICE '%', p_row; RETURN true; END $$"
        )
        notices: list[str] = []
        session.add_notice_handler(partial(keep, notices))
        for relation in relations(hostile.db, "r", "v"):
            table = sql.Identifier(relation)
            notices.clear()
            for query in (
                "SELECT t::text FROM {} AS t",
                "SELECT t::text FROM {} AS t WHERE pg_temp.leak(t::text)",
            ):
                state, rows, _ = attempt(session, sql.SQL(query).format(table))
                shown = json.dumps([rows if not state else [], notices], default=str)
                assert state in REFUSALS | {""}, (relation, pretence, rows)
                for trace in (hostile.b.id, hostile.b.secret, hostile.b.phone, hostile.b.number):
                    assert trace not in shown, (relation, pretence)
                if hostile.a.id in shown:
                    seen_own.add(relation)
    # It was not for want of any right at all.
    assert len(seen_own) >= (10 if who == "app" else 8)
    if who == "analyst":
        figures = {"wa_message_compliance", "wa_unread_counts", "wa_conversation_metrics", *NUMBERS_ALONE}
        assert all(
            relation.endswith("_masked") or relation.startswith("wa_daily_") or relation in figures
            for relation in seen_own
        )
        assert {"wa_daily_messages", "wa_daily_response_times", "wa_message_compliance"} <= seen_own


def columns(db: Database, table: str) -> list[str]:
    rows = db.query(
        "SELECT attname AS name FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        table,
    )
    return [row["name"] for row in rows]


def test_no_table_takes_a_row_for_the_other(hostile: Hostile) -> None:
    """The row offered is one of B's own, so that nothing but the tenant speaks against it."""
    for pretence, session in hostile.pretences(hostile.a.role):
        for table in hostile.before:
            names = sql.SQL(", ").join(map(sql.Identifier, columns(hostile.db, table)))
            row = hostile.db.query(
                sql.SQL("SELECT to_jsonb(t)::text AS row FROM {} AS t WHERE {} = %s")
                .format(sql.Identifier(table), sql.Identifier(tenant_column(table)))
                .as_string(),
                hostile.b.id,
            )[0]["row"]
            state, rows, _ = attempt(
                session,
                sql.SQL(
                    "INSERT INTO {0} ({1}) OVERRIDING SYSTEM VALUE"
                    " SELECT {1} FROM jsonb_populate_record(NULL::{0}, %s)"
                ).format(sql.Identifier(table), names),
                (row,),
            )
            assert state in REFUSALS, (table, pretence, rows)
    hostile.check_untouched()


def test_no_row_of_the_other_can_be_changed_or_taken(hostile: Hostile) -> None:
    for pretence, session in hostile.pretences(hostile.a.role):
        for relation in relations(hostile.db, "r", "v"):
            found = columns(hostile.db, relation)
            # Views under other names have other words for the organization.
            column = next((c for c in (tenant_column(relation), "tenant_id", "user_id") if c in found), None)
            if column is None:
                continue
            names = {"t": sql.Identifier(relation), "c": sql.Identifier(column)}
            for statement in (
                "UPDATE {t} SET {c} = {c} WHERE {c} = %(b)s",
                "DELETE FROM {t} WHERE {c} = %(b)s",
                "SELECT 1 FROM {t} WHERE {c} = %(b)s FOR UPDATE",
                # Giving one's own rows away would plant them there.
                "UPDATE {t} SET {c} = %(b)s",
            ):
                state, rows, touched = attempt(
                    session, sql.SQL(statement).format(**names), {"b": hostile.b.id}
                )
                # Some views cannot be written at all, and other rules may stand in the way too.
                assert state or touched <= 0, (relation, statement, pretence, rows)
            for other in found:
                attempt(
                    session,
                    sql.SQL("UPDATE {t} SET {o} = {o} WHERE {c} = %(b)s").format(
                        o=sql.Identifier(other), **names
                    ),
                    {"b": hostile.b.id},
                )
            assert attempt(session, sql.SQL("TRUNCATE {t} CASCADE").format(**names))[0]
    hostile.check_untouched()


def test_the_queue_takes_nothing_that_is_the_others(hostile: Hostile) -> None:
    with hostile.db.connect(user=hostile.a.role) as session:
        for named, expected in (
            ({"phone": "+15551230000", "text_body": "x", "phone_number_id": hostile.b.number}, "WA010"),
            ({"phone": "+15551230000", "template_name": f"{hostile.b.secret}_UTILITY"}, "WA002"),
            ({"phone": "+15551230000", "text_body": "x", "organization_id": hostile.b.id}, "42501"),
        ):
            statement = sql.SQL("INSERT INTO wa_outbound_queue ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, named)),
                sql.SQL(", ").join(sql.Placeholder() * len(named)),
            )
            assert attempt(session, statement, list(named.values()))[0] == expected, named
        # B's customer opened B's window, not A's.
        state, _, _ = attempt(
            session, "INSERT INTO wa_outbound_queue (phone, text_body) VALUES (%s, 'x')", (hostile.b.phone,)
        )
        assert state == "WA101"
    hostile.check_untouched()


def test_temporary_tables_mislead_no_function(hostile: Hostile) -> None:
    """A definer function that looked into the caller's temporary schema would believe what it finds there."""
    with hostile.db.connect(user=hostile.a.role) as session:
        session.execute("CREATE TEMPORARY TABLE wa_organization_roles (organization_id uuid, role_name name)")
        session.execute(
            "INSERT INTO pg_temp.wa_organization_roles VALUES (%s, current_user)", (hostile.b.id,)
        )
        session.execute("CREATE TEMPORARY TABLE wa_organizations AS SELECT %s::uuid AS id", (hostile.b.id,))
        session.execute("GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC")
        session.execute("SET search_path = pg_temp, public")
        session.execute("SELECT set_config('wa.organization_id', %s, false)", (hostile.b.id,))
        assert attempt(session, "SELECT current_wa_organization()")[0] == "WA302"
        assert attempt(session, "SELECT opt_out_wa_contact('+15551230000')")[0] == "WA302"
        assert attempt(session, "SELECT * FROM public.wa_messages")[0] == "WA302"
    hostile.check_untouched()


def arguments(names: list[str], types: list[str], text: str, mine: Tenant, queue_id: str) -> list[Any]:
    """One value per parameter, pointing at a tenant: by its name where that tells, else its type."""
    by_name = {
        "organization": mine.id, "org": mine.id, "phone_number_id": mine.number, "phone": mine.phone,
        "waba_id": mine.waba, "reference": mine.secret, "consumer": mine.secret,
        "template": f"{mine.secret}_UTILITY",
    }  # fmt: skip
    by_type: dict[str, Any] = {
        "uuid": queue_id, "uuid[]": [queue_id], "text": text, "text[]": [text], "name": mine.role,
        "bigint": mine.contact_id, "bigint[]": [mine.contact_id], "integer": 1,
        "smallint": 1, "boolean": True, "integer[]": [254], "date": "2026-01-01", "date[]": ["2026-01-01"],
        "time without time zone[]": ["21:00"], "timestamp without time zone": "2030-01-01",
        "double precision": 1.0, "interval": "1 hour",
        "timestamp with time zone": "2030-01-01", "bytea": b"{}",
        "bytea[]": [b"{}"],
        "jsonb[]": [json.dumps({"id": queue_id, "phone": mine.phone, "text_body": "x"})],
        "jsonb": json.dumps([{"id": queue_id, "org": mine.id, "phone": mine.phone, "text_body": "x"}]),
        "wa_templates": json.dumps({
            "organization_id": mine.id, "id": queue_id, "name": f"{mine.secret}_UTILITY", "body_text": "x",
        }),
        "wa_outbound_queue": json.dumps({"organization_id": mine.id, "id": queue_id, "phone": mine.phone}),
        "wa_messages": json.dumps({"organization_id": mine.id, "id": mine.message_id}),
        "wa_conversations": json.dumps({"organization_id": mine.id, "contact_id": mine.contact_id}),
    }  # fmt: skip
    values = []
    for place, kind in enumerate(types):
        name = re.sub("^p_", "", names[place]) if place < len(names) else ""
        if name == "message_id":
            values.append(mine.message_id)
            continue
        if name == "idempotency_key":
            # What a caller did before with the same one is the caller's own.
            values.append(str(uuid4()))
            continue
        hint = next((value for word, value in by_name.items() if name.startswith(word)), None)
        values.append(
            by_type[kind] if hint is None or text != mine.phone or kind not in ("uuid", "text") else hint
        )
    return values


def calls(function: dict[str, Any], mine: Tenant) -> Iterator[tuple[sql.Composed, list[Any]]]:
    """Calls of a function that name a tenant's things in every way that its parameters allow."""
    texts = (
        mine.phone,
        mine.number,
        mine.secret,
        mine.waba,
        "+54915000" + mine.phone[-4:],
        f"wamid.{mine.secret}",
    )
    uuids = (mine.queue_id, mine.id)
    # With defaults, and with every parameter given.
    counts = sorted({len(function["types"]) - function["defaults"], len(function["types"])})
    seen = set()
    for count, text, queue_id in itertools.product(counts, texts, uuids):
        types = function["types"][:count]
        values = arguments(function["names"], types, text, mine, queue_id)
        if (key := repr(values)) in seen:
            continue
        seen.add(key)
        slots = sql.SQL(", ").join(
            sql.SQL("jsonb_populate_record(NULL::{}, %s)" if kind.startswith("wa_") else "%s::{}").format(
                sql.SQL(kind)
            )
            for kind in types
        )
        source = "SELECT * FROM {}({})" if function["is_set"] else "SELECT {}({})"
        yield sql.SQL(source).format(sql.Identifier("public", function["name"]), slots), values


def anonymous(outcome: tuple[str, list[Any], int], *tenants: Tenant) -> str:
    """An outcome without what the caller put in himself, and without what differs from call to call."""
    text = json.dumps([outcome[0], outcome[1]], default=str)
    for one in tenants:
        for word in (
            one.id, one.queue_id, one.secret, "54915000" + one.phone[-4:], one.phone[1:], one.waba,
            one.number, one.role,
        ):  # fmt: skip
            text = text.replace(word, "*")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "uuid", text)
    return re.sub(r"\d{4}-\d\d-\d\d[ T][\d:.+]+|\b\d+\b", "n", text)


# They can only repeat what the caller said, or read what everybody may read in pg_type; or keep it for the
# caller, who finds it there the second time.
ONLY_ARGUMENTS = {"_wa_choose_organization", "_wa_is_bound_role", "_wa_write_cursor", "import_wa_opt_outs"}


def test_no_function_gives_or_does_anything_to_the_other(
    hostile: Hostile, make_role: Callable[..., str]
) -> None:
    """A call that names B's things answers as one that names things of nobody, and changes nothing of B.

    An answer that differs would tell A what exists in B, even if it showed nothing of it.
    """
    b = hostile.b
    nobody = Tenant(
        "n",
        make_role("wa_app"),
        "+5491150002229",
        "106540350000009",
        "102290120000009",
        str(uuid4()),
        str(uuid4()),
        987654,
        987654,
        987654,
    )
    called = set()
    told = []
    for user in (hostile.a.role, hostile.analyst):
        functions = hostile.db.query(FUNCTIONS, user)
        for pretence, session in hostile.pretences(user):
            # An error may repeat the setting.
            traces = [b.secret, b.phone, b.queue_id] + ([] if "setting" in pretence else [b.id])
            for function in functions:
                if function["name"] in ONLY_ARGUMENTS:
                    continue
                for (statement, real), (_, imaginary) in zip(
                    calls(function, b), calls(function, nobody), strict=True
                ):
                    answers = []
                    for values in (real, imaginary):
                        with session.transaction(force_rollback=True):
                            session.execute("SAVEPOINT before")
                            answers.append(attempt(session, statement, values))
                            session.execute("ROLLBACK TO before")
                    if anonymous(answers[0], b, nobody) != anonymous(answers[1], b, nobody):
                        told.append((function["name"], pretence, real, answers))
                    # Asked about somebody else, it must not speak of B at all.
                    shown = "" if answers[1][0] else json.dumps(answers[1], default=str)
                    if any(trace in shown for trace in traces):
                        told.append((function["name"], pretence, imaginary, answers))
                    attempt(session, statement, real)
                    called.add(function["name"])
    assert not told, "\n".join(map(str, told))
    assert len(called) > 20
    hostile.check_untouched()


@pytest.mark.parametrize("group", ["wa_dispatcher", "wa_receiver"])
def test_services_see_only_what_their_functions_give(hostile: Hostile, group: str) -> None:
    with hostile.db.connect(user=hostile.service(group)) as session:
        readable = [
            table
            for table in tables(hostile.db)
            if not attempt(session, sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(table)))[0]
        ]
        assert readable == ["_wa_scripts", "wa_migrations", "wa_packs"]
