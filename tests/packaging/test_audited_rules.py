"""Each table either holds rules, whose changes leave old and new value in the audit log, or it does not.

Tests sql/organizations/audit_changes.sql.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Database
from product import with_packs


def words(text: str) -> list[str]:
    """Those of a text."""
    return text.split()


#: Settings, limits, rules, roles, templates and secrets: somebody decides what they say.
RULES = words("""
    siren_templates wa_api_keys wa_app_shares wa_consent_texts wa_contact_caps wa_error_rules wa_event_secrets
    wa_event_subscriptions wa_flow_definitions wa_flow_functions wa_installations wa_jobs wa_keywords
    wa_organization_roles wa_organizations
    wa_panic_modes wa_phone_numbers wa_portfolios wa_quiet_days wa_quiet_hours wa_role_overrides wa_secrets
    wa_templates wa_users wa_zone_prefixes
""")
#: What a release brings, or the library that it stands on: the same for everybody.
OF_THE_RELEASE = words("""
    wa_default_consent_texts wa_default_keywords wa_migrations wa_packs wa_phone_zones wa_providers
""")
#: Decisions about one person, key or price list; each function that makes one leaves an audit row of its own,
#: or the table is itself a record to which rows are only added.
DECISIONS = words("""
    wa_consent_events wa_contact_holds wa_erased_identities wa_erasures wa_opt_in_requests wa_opt_ins
    wa_opt_outs wa_privacy_keys wa_rates
""")
#: What was said, sent, done and counted, where things stand, and the host's own tables.
HAPPENINGS = words("""
    ai_events ai_tasks attendees audit_log orders profiles siren_events timeline_entries wa_account_events
    wa_api_key_uses wa_archive_files wa_archive_keys wa_audit_counts wa_audit_heads wa_audit_seals
    wa_audit_unsealed wa_automation_flows
    wa_broadcast_lists wa_broadcast_members wa_contact_cool_offs wa_contact_identities wa_contacts
    wa_conversation_windows wa_dispatchers wa_event_consumers wa_event_deliveries wa_events wa_faults
    wa_flow_events wa_flow_steps
    wa_idempotent_requests wa_job_runs wa_lane_slowdowns wa_lane_states wa_lanes wa_late_results wa_locks
    wa_media wa_media_blobs wa_media_chunks wa_media_garbage wa_media_openings wa_media_signatures
    wa_media_uploads wa_media_usages wa_message_rollups wa_message_statuses wa_messages wa_number_routes
    wa_outbound_queue wa_pair_rates wa_provider_calls wa_queue_due wa_queue_holds wa_queue_inflight
    wa_rate_limits wa_response_rollups wa_retention_marks wa_retention_stragglers wa_rollup_horizons
    wa_rollup_marks wa_sms_fallbacks
    wa_template_syncs wa_tier_usages wa_volume_tiers wa_wait_rechecks wa_webhook_errors wa_webhook_logs
""")
TABLES = """
    SELECT c.oid, c.relname AS name FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_wa_scripts'
"""
#: Which events of a table leave an audit row: 4 is INSERT, 8 DELETE, 16 UPDATE.
WATCHED = f"""
    SELECT t.name, bit_or(g.tgtype & 28)::integer AS events,
        bool_and(g.tgenabled IN ('O', 'A') AND g.tgtype & 1 = 1) AS is_each_row
    FROM ({TABLES}) AS t
    JOIN pg_trigger AS g ON g.tgrelid = t.oid
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname = 'tg_audit_change'
    GROUP BY t.name
"""
ALL_EVENTS = 28
#: Its one row is made by migrate_wa().
ONLY_CHANGED = {"wa_installations": 16}
#: Columns whose changes alone would fire no trigger, and which its arguments do not name as left out.
UNWATCHED = f"""
    SELECT t.name, a.attname AS column
    FROM ({TABLES}) AS t
    JOIN pg_trigger AS g ON g.tgrelid = t.oid AND g.tgattr::text <> ''
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname = 'tg_audit_change'
    JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.attnum <> ALL (g.tgattr::int2[]) AND a.attname <> ALL (regexp_split_to_array(
        replace(encode(g.tgargs, 'escape'), '\\000', ' '), ' '
    ))
"""
#: What nobody changes, or what changes with another column that is watched.
FOLLOWS = {"organization_id", "id", "created_at", "created_by", "updated_at"}
FOLLOWS_IN = {
    "wa_api_keys": {"prefix", "revoked_by"},
    "wa_event_subscriptions": {"state_changed_at"},
    "wa_installations": {
        "system_identifier", "database_oid", "timeline_id", "data_directory_mark", "adopted_at", "adopted_by",
        # They have rows of their own: sending_enabled and the like.
        "is_sending_enabled", "sending_note", "outside_networks", "outside_plain_http",
    },
    "wa_phone_numbers": {"registered_at", "paused_at", "name_status_at"},
}  # fmt: skip
#: What the trigger's arguments leave out or write by its digest, of what is a person's.
SHOWN = f"""
    SELECT t.name, d.column_name AS column
    FROM ({TABLES}) AS t
    JOIN pg_trigger AS g ON g.tgrelid = t.oid
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname = 'tg_audit_change'
    JOIN wa_personal_data AS d ON d.table_name = t.name
        AND d.kind IN ('phone', 'name', 'text', 'id', 'address')
    WHERE d.column_name <> ALL (regexp_split_to_array(
        replace(encode(g.tgargs, 'escape'), '\\000', ' '), ' '
    ))
"""


@pytest.fixture
def db(make_database: Callable[..., Database]) -> Database:
    """With every pack: what holds of the rest holds of them."""
    return with_packs(make_database())


def test_each_table_was_looked_at_once(db: Database) -> None:
    """A later table is missed here: put it where it belongs, and give it the trigger if it holds rules."""
    declared = [*RULES, *OF_THE_RELEASE, *DECISIONS, *HAPPENINGS]
    assert len(declared) == len(set(declared))
    assert {row["name"] for row in db.query(TABLES)} ^ set(declared) == set()


def test_each_change_of_a_rule_is_audited(db: Database) -> None:
    watched = {row["name"]: row for row in db.query(WATCHED)}
    assert set(RULES) - watched.keys() == set(), "give it the trigger audit_change"
    assert watched.keys() - set(RULES) == set(), "a rule, then"
    assert all(row["is_each_row"] for row in watched.values())
    assert {
        name: row["events"] for name, row in watched.items() if row["events"] != ALL_EVENTS
    } == ONLY_CHANGED


def test_no_change_of_a_rule_slips_past_the_trigger(db: Database) -> None:
    unwatched = {
        (row["name"], row["column"])
        for row in db.query(UNWATCHED)
        if row["column"] not in FOLLOWS | FOLLOWS_IN.get(row["name"], set())
    }
    assert unwatched == set()


def test_what_is_a_persons_is_not_written_down(db: Database) -> None:
    assert db.query(SHOWN) == []
