"""Two organizations in one database, each with something in every table, made by public functions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from harness import Database
from pg_whatsapp import __version__
from psycopg import sql
from psycopg.rows import dict_row
from webhook_bodies import body, message, status

SEALED = b"x" * 40


@dataclass
class Tenant:
    """An organization, its role, and what it calls its own."""

    name: str
    role: str
    phone: str
    number: str
    waba: str
    id: str = ""
    queue_id: str = ""
    contact_id: int = 0
    number_id: int = 0
    message_id: int = 0

    @property
    def secret(self) -> str:
        """A word that stands in all its texts, names and values."""
        return f"{self.name}-secret"


def make_tenants(db: Database, make_role: Callable[..., str]) -> tuple[Tenant, Tenant, Callable[[str], str]]:
    """Tenants A and B, and a function that names the role of a service group."""
    services = {group: make_role(group) for group in ("wa_admin", "wa_dispatcher", "wa_receiver")}
    # Ids as long as the provider's: four digits turn up in any timestamp.
    a = Tenant("a", make_role("wa_app"), "+5491150001111", "106540350000001", "102290120000001")
    b = Tenant("b", make_role("wa_app"), "+5491150002222", "106540350000002", "102290120000002")
    with db.connect() as owner:
        owner.execute("SELECT adopt_wa_database('keep')")
        owner.execute("SELECT install_wa_pack(p) FROM unnest(ARRAY['profiles', 'events']) AS p")
        (row,) = owner.execute(
            "SELECT current_wa_organization()::text, create_wa_organization(%s)::text", (b.secret,)
        ).fetchall()
        a.id, b.id = row
    for tenant in (a, b):
        _fill(db, tenant, services)
        _fail(db, tenant)
    return a, b, services.__getitem__


def _fail(db: Database, tenant: Tenant) -> None:
    """What went wrong inside: a fault, and an answer that could not be recorded."""
    result = {"id": tenant.id, "org": tenant.id, "attempt": 1, "outcome": "unknown", "error": tenant.secret}
    db.query("SELECT _wa_note_fault(%s, 'claim', '', '22003', %s)", tenant.id, tenant.secret)
    db.query(
        "SELECT _wa_keep_results(%s, %s::jsonb, '22003', %s)", tenant.id, json.dumps([result]), tenant.secret
    )
    db.query("SELECT share_wa_app(%s, %s)", tenant.id, tenant.id)
    db.query("SELECT seal_wa_audit_log()")
    db.query("SELECT _wa_audit_rejection(%s, %s, %s, 1)", tenant.id, tenant.secret, tenant.secret)
    db.query(
        "INSERT INTO wa_retention_marks (organization_id, kind, place) VALUES (%s, 'messages', 0)", tenant.id
    )
    db.query(
        "INSERT INTO wa_archive_files (organization_id, kind, number, location, name)"
        " VALUES (%s, 'messages', 1, '/srv', %s)",
        tenant.id,
        tenant.secret,
    )
    db.query(
        "INSERT INTO wa_retention_stragglers (organization_id, kind, queue_id, name)"
        " VALUES (%s, 'archive', gen_random_uuid(), %s)",
        tenant.id,
        tenant.secret,
    )
    db.query(
        "INSERT INTO wa_archive_keys (organization_id, contact_id, key) VALUES (%s, 1, sha256('x'))",
        tenant.id,
    )


def _fill(db: Database, tenant: Tenant, services: dict[str, str]) -> None:
    secret = tenant.secret
    with db.connect(user=services["wa_admin"]) as admin:
        admin.execute("SELECT set_config('wa.organization_id', %s, false)", (tenant.id,))
        admin.execute("SELECT add_wa_organization_role(%s, %s)", (tenant.id, tenant.role))
        admin.execute(
            "SELECT register_wa_phone_number(%s, %s, %s)",
            (tenant.number, f"+1555123{tenant.phone[-4:]}", tenant.waba),
        )
        admin.execute("SELECT set_wa_secret('access_token', NULL, %s, 'key', 'print')", (SEALED,))
        admin.execute("SELECT trigger_wa_panic(%s, %s)", (secret, tenant.id))
        admin.execute("SELECT resolve_wa_panic(%s)", (tenant.id,))
        admin.execute("INSERT INTO wa_keywords (word, meaning) VALUES (%s, 'stop')", (f"no {secret}",))
        admin.execute(
            "INSERT INTO wa_consent_texts (scope, language, body) VALUES ('all', 'en', %s)", (secret,)
        )
        _fill_history(admin, secret)
    with db.connect(user=tenant.role, row_factory=dict_row) as app:
        for category in ("UTILITY", "MARKETING"):
            app.execute(
                "INSERT INTO wa_templates (name, category, body_text, status, waba_id)"
                " VALUES (%s, %s, %s, 'APPROVED', %s)",
                (f"{secret}_{category}", category, f"{secret} {{{{1}}}}", tenant.waba),
            )
        app.execute("SELECT begin_wa_template_sync(%s)", (tenant.waba,))
        queued = [_queue(app, tenant) for _ in range(2)]
        app.execute("SELECT opt_out_wa_contact(%s, 'marketing', %s)", (tenant.phone, secret))
        app.execute("SELECT opt_in_wa_contact(%s, 'all', %s)", ("+54915000" + tenant.phone[-4:], secret))
        app.execute("SELECT request_wa_opt_in(%s, p_source => %s)", ("+54915000" + tenant.phone[-4:], secret))
        _automate(app, tenant)
        app.execute("SELECT create_wa_api_key(%s, %s, p_requests_per_minute => 9)", (secret, tenant.role))
        app.execute("SELECT begin_wa_idempotent_request(%s, 'x', sha256('x'))", (secret,))
    db.query("SELECT count_wa_api_request(secret_hash) FROM wa_api_keys WHERE name = %s", secret)
    db.query(
        "INSERT INTO wa_flow_steps (organization_id, flow_id, step_no, step, visit, type, outcome, detail,"
        " entered_at, ended_at) SELECT f.organization_id, f.id, 1, 'w', 1, 'state', 'advanced',"
        " jsonb_build_object('to', f.run_key), now(), now() FROM wa_automation_flows f WHERE f.run_key = %s",
        secret,
    )
    db.query(
        "INSERT INTO wa_flow_functions (organization_id, name, function_name)"
        " SELECT organization_id, name, 'public.f' FROM wa_api_keys WHERE name = %s",
        secret,
    )
    dispatcher = "00000000-0000-4000-8000-000000000001"
    with db.connect(user=services["wa_dispatcher"], row_factory=dict_row) as process:
        process.execute("SELECT start_wa_dispatcher(%s, 'here', 1, %s)", (dispatcher, __version__))
        claimed = next(
            row
            for row in process.execute("SELECT * FROM claim_wa_messages(%s, 10)", (dispatcher,))
            if row["queue_id"] in queued
        )
        result = {
            "id": str(claimed["queue_id"]), "org": str(claimed["organization_id"]),
            "attempt": claimed["attempt"],
            "outcome": "answered", "status": 200,
            "answer": {"messages": [{"id": f"wamid.{secret}"}], "contacts": [{"wa_id": tenant.phone[1:]}]},
        }  # fmt: skip
        process.execute("SELECT complete_wa_messages(%s, %s)", (dispatcher, json.dumps([result])))
        # The other waits for it, or is in flight now.
        process.execute("SELECT * FROM claim_wa_messages(%s, 10)", (dispatcher,))
    now = int(time.time())
    bodies = [
        message(
            f"wamid.in.{secret}", tenant.phone[1:], now, content=secret, name=secret, number=tenant.number
        ),
        message(
            f"wamid.file.{secret}", tenant.phone[1:], now, "document",
            {"id": f"media.{secret}", "filename": secret}, name=secret, number=tenant.number,
        ),
        status(f"wamid.{secret}", "delivered", now, number=tenant.number),
        body("account_update", {"event": secret}, account=tenant.waba, time=now),
    ]  # fmt: skip
    with db.connect(user=services["wa_receiver"]) as receiver:
        for one in bodies:
            receiver.execute("SELECT ingest_wa_webhook(%s)", (one,))
        receiver.execute("SELECT process_wa_webhooks()")
    with db.connect(user=services["wa_dispatcher"], row_factory=dict_row) as process:
        for file in process.execute("SELECT organization_id, media_id FROM claim_wa_media()").fetchall():
            process.execute(
                "SELECT store_wa_media(%s, %s, %s)",
                (file["organization_id"], file["media_id"], secret.encode()),
            )
    with db.connect(user=tenant.role, row_factory=dict_row) as app:
        link = app.execute(
            "SELECT l.id, l.token FROM wa_media, create_wa_media_signature(id) AS l"
        ).fetchone()
        assert link
        app.execute(
            "SELECT upload_wa_media(create_wa_media(%s, 'text/plain', %s), %s)",
            (f"own {secret}".encode(), secret, tenant.number),
        )
    with db.connect(user=services["wa_receiver"]) as receiver:
        receiver.execute("SELECT open_wa_media(%(id)s, %(token)s, 'here', 'program')", link)
    db.query(
        "INSERT INTO wa_media_garbage (organization_id, blob_id, store, location)"
        " VALUES (%s, gen_random_uuid(), 'directory', %s)",
        tenant.id,
        f"/{secret}",
    )
    with db.connect(user=tenant.role, row_factory=dict_row) as app:
        app.execute("SELECT * FROM read_wa_events(%s)", (secret,))
        app.execute(
            "SELECT mark_wa_read(%s), assign_wa_conversation(%s, %s)", (tenant.phone, tenant.phone, secret)
        )
        app.execute("SELECT request_wa_template_sync()")
        tenant.queue_id = str(_queue(app, tenant))
        _hold_event(app, tenant)
        _erase(app, tenant)
    (found,) = db.query(
        "SELECT c.id AS contact, n.id AS number, f.message_id AS message FROM wa_contacts AS c"
        " JOIN wa_phone_numbers AS n USING (organization_id) JOIN wa_media AS f USING (organization_id)"
        " WHERE organization_id = %s AND c.phone_e164 = %s AND f.direction = 'inbound'",
        tenant.id,
        tenant.phone,
    )
    tenant.contact_id, tenant.number_id, tenant.message_id = found.values()
    # What a claim leaves behind where something has to wait, or the provider refuses it.
    db.query("SELECT _wa_slow_down(%s, ARRAY[%s::bigint], clock_timestamp())", tenant.id, tenant.number_id)
    db.query(
        "INSERT INTO wa_queue_holds (organization_id, number_id, kind, contact_id, reason, opens_at)"
        " VALUES (%s, %s, 'recipient', %s, 'in_order', clock_timestamp()) ON CONFLICT DO NOTHING",
        tenant.id,
        tenant.number_id,
        tenant.contact_id,
    )
    _rule(db, tenant)


def _rule(db: Database, tenant: Tenant) -> None:
    """Hours and caps that hold none of its messages back, and people."""
    for statement in (
        "INSERT INTO wa_quiet_hours (organization_id, channel, from_time, to_time)"
        " VALUES (%s, 'sms', '21:00', '08:00')",
        "INSERT INTO wa_quiet_days (organization_id, day, name) VALUES (%s, '2026-01-01', 'New Year')",
        "INSERT INTO wa_zone_prefixes (organization_id, prefix, time_zone) VALUES (%s, '+999', 'UTC')",
        "INSERT INTO wa_contact_caps (organization_id, purpose, messages, days) VALUES (%s, 'all', 1000, 7)",
        "INSERT INTO wa_role_overrides VALUES (%s, 'sales', 'admin', true)",
        "INSERT INTO wa_volume_tiers (organization_id, waba_id, category, region, month, tier, volume_from,"
        " told_at) VALUES (%s, 'x', 'utility', 'India', '2026-10-01', '1:100', 1, now())",
    ):
        db.query(statement, tenant.id)
    db.query(
        "INSERT INTO wa_users (organization_id, display_name, role, external_id, phone_e164)"
        " VALUES (%s, %s, 'sales', %s, %s)",
        tenant.id,
        tenant.secret,
        tenant.secret,
        tenant.phone,
    )
    db.query(
        "INSERT INTO wa_sms_fallbacks (organization_id, queue_id, cause, state, due_at, category)"
        " VALUES (%s, gen_random_uuid(), 'failed', 'not_sent', now(), 'UTILITY')",
        tenant.id,
    )
    db.query(
        "INSERT INTO wa_contact_cool_offs (organization_id, contact_id, until, error_code)"
        " VALUES (%s, %s, now() + interval '1 day', 131049)",
        tenant.id,
        tenant.contact_id,
    )


def _automate(app: psycopg.Connection[dict[str, Any]], tenant: Tenant) -> None:
    secret = tenant.secret
    app.execute(
        "INSERT INTO wa_automation_flows (phone_e164, flow_type, trigger_data) VALUES (%s, 'x', %s)",
        (tenant.phone, json.dumps({"note": secret})),
    )
    app.execute(
        "SELECT store_wa_flow(%s)",
        (
            json.dumps(
                {
                    "name": "f",
                    "description": secret,
                    "steps": [{"name": "w", "type": "wait", "interval": "1 day", "note": secret}],
                }
            ),
        ),
    )
    app.execute(
        "SELECT start_wa_flow('f', %s, %s::jsonb, %s)", (tenant.phone, json.dumps({"note": secret}), secret)
    )
    app.execute("SELECT add_wa_flow_event('x', %s, %s)", (secret, tenant.phone))
    app.execute(
        "WITH t AS (INSERT INTO siren_templates (name) VALUES (%s) RETURNING id)"
        " INSERT INTO siren_events (template_id, phone_e164) SELECT id, %s FROM t",
        (secret, tenant.phone),
    )
    app.execute(
        "INSERT INTO timeline_entries (event_type, entity_type, entity_id, content)"
        " VALUES ('SYSTEM', 'lead', %s, %s)",
        (secret, json.dumps({"note": secret})),
    )
    app.execute("INSERT INTO profiles (full_name) VALUES (%s)", (secret,))
    app.execute("INSERT INTO wa_broadcast_lists (name) VALUES (%s)", (secret,))
    app.execute("SELECT add_wa_broadcast_members(%s, ARRAY[%s])", (secret, tenant.phone))
    app.execute(
        "SELECT test_wa_event_subscription(create_wa_event_subscription("
        "gen_random_uuid(), %s, ARRAY['message'], %s, 'key', 'print'))",
        (f"https://{secret}.example/", SEALED),
    )


def _erase(app: psycopg.Connection[dict[str, Any]], tenant: Tenant) -> None:
    """Somebody is erased, and the customer is held."""
    other = "+54915111" + tenant.phone[-4:]
    app.execute("SELECT opt_in_wa_contact(%s, 'all', 'form')", (other,))
    app.execute("SELECT erase_wa_contact(%s, %s)", (other, tenant.secret))
    app.execute("SELECT hold_wa_contact(%s, %s)", (tenant.phone, tenant.secret))


def _fill_history(admin: psycopg.Connection[Any], secret: str) -> None:
    """A question and its answer, rolled up, and what was charged for it."""
    admin.execute("INSERT INTO wa_contacts (profile_name) VALUES (%s)", (secret,))
    for direction, status_, age in (("inbound", "received", "74 hours"), ("outbound", "sent", "73 hours")):
        admin.execute(
            "INSERT INTO wa_messages"
            " (contact_id, direction, message_type, status, state, content_text, phone_number_id, created_at)"
            " SELECT c.id, %s, 'text', %s, %s, %s, %s, now() - %s::interval FROM wa_contacts c"
            " WHERE c.profile_name = %s",
            (direction, status_, status_, secret, secret, age, secret),
        )
    admin.execute("SELECT roll_up_wa_analytics()")
    admin.execute("SELECT delete_wa_messages_before(now() - interval '60 days')")
    admin.execute(
        "SELECT load_wa_rates(E'country,category,currency,valid_from,rate\nAR,utility,USD,2026-01-01,0.1')"
    )


def _hold_event(app: psycopg.Connection[dict[str, Any]], tenant: Tenant) -> None:
    info = json.dumps({"name": tenant.secret, "phone": tenant.phone})
    app.execute("INSERT INTO ai_events (name, start_date) VALUES (%s, '2037-01-08 12:00Z')", (tenant.secret,))
    app.execute("INSERT INTO orders (event_id) SELECT id FROM ai_events")
    app.execute("INSERT INTO attendees (order_id, attendee_info) SELECT id, %s FROM orders", (info,))


def _queue(app: psycopg.Connection[dict[str, Any]], tenant: Tenant) -> UUID:
    secret = tenant.secret
    (row,) = app.execute(
        "INSERT INTO wa_outbound_queue (phone, template_name, template_params, reference, metadata)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING id",
        (tenant.phone, f"{secret}_UTILITY", json.dumps([secret]), secret, json.dumps({"note": secret})),
    ).fetchall()
    queued: UUID = row["id"]
    return queued


def tables(db: Database) -> list[str]:
    """Our tables, by the catalogue."""
    return relations(db, "r")


def relations(db: Database, *kinds: str) -> list[str]:
    """Our relations of some kinds ('r' tables, 'v' views), by the catalogue."""
    rows = db.query(
        "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = ANY (%s) ORDER BY 1",
        list(kinds),
    )
    return [row["name"] for row in rows]


def tenant_column(table: str) -> str:
    """The column that says whose a row is."""
    if table in ("ai_events", "orders", "attendees", "ai_tasks"):
        return "organizer_id"
    return "id" if table == "wa_organizations" else "organization_id"


def belongings(db: Database, tenant: Tenant) -> dict[str, list[str]]:
    """Every row of a tenant, as text, by table; tables that know no tenant are left out."""
    rows: dict[str, list[str]] = {}
    with db.connect() as owner:
        for table in tables(db):
            if (column := tenant_column(table)) in _columns(owner, table):
                query = sql.SQL("SELECT t::text FROM {} AS t WHERE {} = %s ORDER BY 1").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                rows[table] = [row[0] for row in owner.execute(query, (tenant.id,))]
    return rows


def _columns(connection: psycopg.Connection[Any], table: str) -> set[str]:
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (table,),
    )
    return {row[0] for row in found}
