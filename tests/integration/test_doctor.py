"""`wa doctor`: each thing that is wrong is named with the way out, and nothing else is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from copies import base_backup, prepare, queue, settings, simulator
from harness import Database, Server
from pg_whatsapp import __version__
from pg_whatsapp.doctor.provider import judge, measure_skew
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import KEY, wa

pytestmark = pytest.mark.slow

LINE = re.compile(r"^(ok  |WARN|BAD ) ([a-z_ ]+): (.*)$")


class Report:
    """What one run of the command said."""

    def __init__(self, database: Database, user: str | None = None, **env: str) -> None:
        done = wa("doctor", database=database, user=user, **env)
        assert done.returncode in (0, 1), done.stderr
        self.is_well = done.returncode == 0
        self.text = done.stdout
        self.lines: dict[str, str] = {}
        self.bad: dict[str, str] = {}
        self.warned: dict[str, str] = {}
        name, hints = "", self.bad
        for line in done.stdout.splitlines():
            if found := LINE.match(line):
                name = found[2]
                self.lines[name] = found[3]
                if found[1] != "ok  ":
                    hints = self.bad if found[1] == "BAD " else self.warned
                    hints[name] = ""
            else:
                hints[name] += line.strip()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with simulator(tmp_path / "provider") as made:
        yield made


@pytest.fixture
def env(provider: SimulatorProcess) -> dict[str, str]:
    return settings(provider)


@pytest.fixture
def well(db: Database) -> Database:
    """A database in which nothing is wrong."""
    db.query("SELECT adopt_wa_database()")
    prepare(db)
    be_alive(db)
    receive(db)
    db.query("SELECT process_wa_webhooks()")
    return db


def receive(database: Database, body: str = '{"object": "whatsapp_business_account", "entry": []}') -> None:
    database.query("SELECT ingest_wa_webhook(convert_to(%s, 'UTF8'))", body)


def be_alive(database: Database) -> None:
    """A dispatcher that works, for as long as a test takes."""
    database.query("SELECT start_wa_dispatcher(gen_random_uuid(), 'here', 1, %s)", __version__)
    database.query("UPDATE wa_dispatchers SET seen_at = seen_at + interval '10 minutes'")


def test_a_fresh_installation_is_told_what_is_missing(db: Database) -> None:
    report = Report(db)
    assert not report.is_well
    # A clone of a template, without a number, and nobody sends or receives.
    assert list(report.bad) == ["database", "numbers", "webhooks", "dispatcher"]
    assert "bin/wa adopt" in report.bad["database"]
    assert "register_wa_phone_number" in report.bad["numbers"]
    assert "bin/wa serve" in report.bad["webhooks"]
    assert "bin/wa dispatch" in report.bad["dispatcher"]


def test_nothing_is_wrong_for_superuser_and_administrator(
    well: Database, env: dict[str, str], make_role: Callable[..., str]
) -> None:
    for user in (None, make_role("wa_admin")):
        report = Report(well, user, **env)
        assert report.bad == {}, report.text
        assert report.is_well
        assert report.lines["tokens"] == "1 accepted by the provider"
        assert report.lines["migrations"] == "none pending"
        assert "phonenumbers 9." in report.lines["phone rules"]
        assert f"schema {__version__}" in report.lines["versions"]


def test_numbers_that_look_misread_are_named_and_left_alone(well: Database, env: dict[str, str]) -> None:
    well.query("UPDATE wa_organizations SET default_region = 'DE'")
    misread = "+494915123456789"
    well.query("INSERT INTO wa_outbound_queue (phone, template_name) VALUES (%s, 'hello_world')", misread)
    report = Report(well, **env)
    assert list(report.bad) == ["numbers of contacts"], report.text
    assert "1 look misread, the first is contact" in report.lines["numbers of contacts"]
    assert "find_misread_wa_phones()" in report.bad["numbers of contacts"]
    assert misread[1:] not in report.text
    assert well.query("SELECT phone_e164 FROM wa_contacts") == [{"phone_e164": misread}]


def test_tokens_are_asked_of_the_provider(
    well: Database, provider: SimulatorProcess, env: dict[str, str]
) -> None:
    wrong = Report(well, **{**env, "WHATSAPP_ACCESS_TOKEN": "expired"})
    assert f"{NUMBER}: the token is refused" in wrong.lines["tokens"]
    assert "bin/wa secrets set access_token" in wrong.bad["tokens"]
    assert "expired" not in wrong.text.replace("expired or", "")
    assert f"{NUMBER}: no token" in Report(well).lines["tokens"]
    provider.stop()
    assert f"{NUMBER}: no answer" in Report(well, **env).lines["tokens"]


def test_numbers_at_twilio_and_sms(well: Database, env: dict[str, str]) -> None:
    account, number = "AC" + "0123456789abcdef" * 2, "whatsapp:+14155238886"
    register = "SELECT register_wa_phone_number(%s, '+14155238886', %s, 'twilio')"
    well.query(register, number, "102290129340398")
    well.query("UPDATE wa_organizations SET sms_fallback = true")
    report = Report(well, **env)
    # Nobody tells this long that the dispatcher is alive.
    assert report.bad.keys() - {"dispatcher"} == {"tokens", "public address", "sms in reserve"}, report.text
    assert f"{number}: no token that can be used; 1 of another provider not asked" in report.lines["tokens"]
    assert f"the first is {number}" in report.lines["public address"]
    assert "public_url" in report.bad["public address"]
    assert "without a number for SMS" in report.lines["sms in reserve"]
    env |= {"WA_SECRET_KEY": KEY}

    def store(value: str) -> None:
        done = wa("secrets", "set", "access_token", "--number", number, database=well, stdin=value, **env)
        assert done.returncode == 0, done.stderr

    store("the-auth-token-alone")
    assert "no Account SID" in Report(well, **env).lines["tokens"]
    well.query(register, number, account)
    assert "neither AccountSid:AuthToken nor" in Report(well, **env).lines["tokens"]
    store(f"{account}:the-auth-token")
    well.query("UPDATE wa_installations SET public_url = 'https://chat.shop.example'")
    well.query("SELECT register_wa_phone_number('+14155238886', '+14155238886', %s, 'twilio')", account)
    report = Report(well, **env)
    # The one for SMS has none yet.
    assert report.lines["tokens"].startswith("+14155238886: no token")
    assert report.bad.keys() - {"dispatcher"} == {"tokens"}, report.text
    assert report.lines["sms in reserve"] == "on for 1 organizations"


def test_the_end_of_the_free_messages_is_a_warning(well: Database, env: dict[str, str]) -> None:
    assert Report(well, **env).lines["free messages"] == "none used"
    well.query(
        "INSERT INTO wa_messages (direction, message_type, status, state, number_id, phone_number_id,"
        " contact_id, phone_e164, wa_message_id, sent_at, delivered_at)"
        " SELECT 'outbound', 'text', 'sent', 'delivered', n.id, n.phone_number_id, r.contact_id,"
        " '+16505550101', 'wamid.' || g, now(), now()"
        " FROM wa_phone_numbers n, generate_series(1, 950) g,"
        " _wa_resolve_contacts(n.organization_id, ARRAY['+16505550101'], NULL, 'test') r"
    )
    report = Report(well, **env)
    assert "free messages" not in report.bad
    assert re.match(rf"50 of 1000 left in \d{{4}}-\d\d at number {NUMBER}", report.lines["free messages"])
    assert "service rate" in report.warned["free messages"]


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        (200, {"id": "1", "status": "CONNECTED"}, None),
        (200, {"id": "1"}, None),
        (200, {"id": "1", "status": "RESTRICTED"}, "the number is RESTRICTED"),
        (
            200,
            {"id": "1", "health_status": {"can_send_message": "BLOCKED"}},
            "the provider lets it send nothing",
        ),
        (401, {"error": {"code": 190}}, "the token is refused (HTTP 401, code 190)"),
        (400, {"error": {"code": 190}}, "the token is refused (HTTP 400, code 190)"),
        (400, {"error": {"code": 100}}, "the token may not see the number (HTTP 400, code 100)"),
        (503, None, "unexpected answer (HTTP 503)"),
        (200, None, "unexpected answer (HTTP 200)"),
        (400, {"error": "no object"}, "unexpected answer (HTTP 400)"),
    ],
)
def test_what_an_answer_about_a_number_means(status: int, answer: object, problem: str | None) -> None:
    found, hint = judge(status, answer, NUMBER)
    assert found == problem
    assert (hint is None) == (problem is None)


def test_the_providers_clock_is_read_to_the_second() -> None:
    def skew(ahead: float) -> float | None:
        now = 1_760_000_000.5
        return measure_skew(formatdate(now + ahead, usegmt=True), now - 0.1, now + 0.1)

    assert skew(0) == 0
    assert skew(60) == pytest.approx(59.4)
    assert skew(-60) == pytest.approx(-58.9, abs=1.1)
    assert measure_skew(None, 0, 0) is None
    assert measure_skew("soon", 0, 0) is None


def test_a_provider_whose_clock_is_elsewhere(well: Database, env: dict[str, str]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + 3600, usegmt=True)

        def do_GET(self) -> None:
            body = b'{"id": "1", "status": "CONNECTED"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as elsewhere:
        thread = Thread(target=elsewhere.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{elsewhere.server_port}"
        report = Report(well, **{**env, "WHATSAPP_API_BASE_URL": url})
        elsewhere.shutdown()
        thread.join()
    assert list(report.bad) == ["clocks"]
    assert re.search(r"provider \+(3599|3600)\.\d s", report.lines["clocks"])
    assert "time service" in report.bad["clocks"]


def test_what_stops_sending(well: Database, env: dict[str, str]) -> None:
    well.query("SELECT set_wa_sending(false)")
    well.query("SELECT trigger_wa_panic('a drill')")
    well.query("UPDATE wa_phone_numbers SET pause_scope = 'number', pause_reason = 'a drill'")
    report = Report(well, **env)
    assert list(report.bad) == ["kill switch", "panic", "numbers"]
    assert "set_wa_sending(true)" in report.bad["kill switch"]
    assert "resolve_wa_panic()" in report.bad["panic"]
    assert "resume_wa_number" in report.bad["numbers"]


def test_messages_that_nobody_takes(well: Database, env: dict[str, str]) -> None:
    queue(well, 1)
    assert Report(well, **env).is_well
    well.query("UPDATE wa_queue_due SET due_at = clock_timestamp() - interval '20 minutes'")
    well.query("UPDATE wa_dispatchers SET seen_at = clock_timestamp() - interval '1 minute'")
    report = Report(well, **env)
    assert list(report.bad) == ["queue", "dispatcher"]
    assert f"waits for 20 min at number {NUMBER}" in report.lines["queue"]


def test_webhooks_that_wait_fail_or_do_not_come(well: Database, env: dict[str, str]) -> None:
    well.query(
        "UPDATE wa_webhook_logs SET received_at = clock_timestamp() - interval '5 hours';"
        "SELECT record_wa_webhook_rejection('192.0.2.1', 'signature')"
    )
    quiet = Report(well, **env)
    assert quiet.is_well
    assert quiet.lines["webhooks"] == "last came 5 h ago, 1 refused in the last hour for their signature"

    queue(well, 1)
    [alive] = well.query("SELECT id FROM wa_dispatchers")
    well.query("SELECT claim_wa_messages(%s, 1)", alive["id"])
    well.query("UPDATE wa_lane_states SET served_at = clock_timestamp() - interval '10 minutes'")
    unheard = Report(well, **env)
    assert "though messages were sent since" in unheard.lines["webhooks"]
    assert "callback URL" in unheard.bad["webhooks"]

    receive(well)
    well.query("UPDATE wa_webhook_logs SET received_at = clock_timestamp() - interval '3 minutes'")
    assert "unprocessed for 3 min" in Report(well, **env).lines["webhooks"]

    receive(well, "no JSON")
    well.query("SELECT process_wa_webhooks()")
    failed = Report(well, **env)
    assert "could not be processed" in failed.lines["webhooks"]
    assert "replay_wa_webhooks" in failed.bad["webhooks"]


def test_keys_that_do_not_open_what_is_stored(well: Database, env: dict[str, str]) -> None:
    stored = wa("secrets", "set", "app_secret", database=well, stdin="s", WA_SECRET_KEY=KEY)
    assert stored.returncode == 0, stored.stderr
    assert Report(well, **env, WA_SECRET_KEY=KEY).is_well
    assert list(Report(well, **env).bad) == ["master key"]
    assert list(Report(well, **env, WA_SECRET_KEY="11" * 32).bad) == ["master key"]
    assert {"master key", "tokens"} <= Report(well, **env, WA_SECRET_KEY="short").bad.keys()


def test_a_number_of_360dialog_without_a_secret_hears_nothing(well: Database, env: dict[str, str]) -> None:
    well.query("SELECT register_wa_phone_number('106540352242999', '+15550783882', '2', '360dialog')")
    report = Report(well, **env, WA_SECRET_KEY=KEY)
    assert report.lines["numbers"] == "1 of 360dialog whose webhooks no stored secret lets in"
    assert "secrets set webhook_header --number 106540352242999" in report.bad["numbers"]
    header = "X-Secret: 0123456789abcdef"
    for number, good in ((NUMBER, False), ("106540352242999", True)):
        stored = wa(
            "secrets", "set", "webhook_header", "--number", number,
            database=well, stdin=header, WA_SECRET_KEY=KEY,
        )  # fmt: skip
        assert stored.returncode == 0, stored.stderr
        assert ("numbers" not in Report(well, **env, WA_SECRET_KEY=KEY).bad) is good


def test_a_schema_of_another_release(well: Database, env: dict[str, str]) -> None:
    well.query("UPDATE wa_migrations SET version = '0.0.9'")
    report = Report(well, **env)
    assert {"versions", "migrations"} <= report.bad.keys()
    assert "schema 0.0.9" in report.lines["versions"]
    assert "bin/wa migrate" in report.bad["versions"]


def test_a_role_without_rights_is_told_so(well: Database, make_role: Callable[..., str]) -> None:
    report = Report(well, make_role())
    assert not report.is_well
    assert "wa_admin" in report.text


def test_failed_jobs_of_pg_cron(make_server: Callable[..., Server]) -> None:
    server = make_server(**{"shared_preload_libraries": "pg_cron", "cron.database_name": "wa_cron"})
    server.janitor("wa_cron").init()
    database = Database(server, "wa_cron")
    database.install()
    assert Report(database).lines["pg_cron"].startswith("not in this database")
    database.query("CREATE EXTENSION pg_cron")
    database.query("SELECT cron.schedule('webhooks', '0 0 1 1 *', 'SELECT process_wa_webhooks()')")
    database.query("SELECT cron.schedule('other', '0 0 1 1 *', 'VACUUM')")
    report = Report(database)
    assert report.lines["pg_cron"].startswith("1 jobs of ours, 0 failed")
    assert "pg_cron" not in report.bad
    database.query(
        "INSERT INTO cron.job_run_details (jobid, runid, status, start_time)"
        " SELECT jobid, 1, 'failed', now() FROM cron.job WHERE jobname = 'webhooks'"
    )
    assert "pg_cron" in Report(database).bad
    # Whoever may not look there is not told that something is wrong.
    server.execute("CREATE ROLE operator LOGIN IN ROLE wa_admin")
    assert Report(database, "operator").lines["pg_cron"].startswith("in this database, but not for this role")


def test_asynchronous_standbys_are_named(make_server: Callable[..., Server]) -> None:
    server = make_server()
    database = server.create_database()
    database.install()
    assert Report(database).lines["standbys"] == "none"
    base_backup(server, make_server(), "-R")
    wait_until(lambda: database.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))
    report = Report(database)
    assert report.lines["standbys"].startswith("1 asynchronous (")
    assert "standbys" not in report.bad


def test_what_keeps_secrets_archives_and_hours_from_working_is_named(
    well: Database, env: dict[str, str], tmp_path: Path, make_role: Callable[..., str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o640)
    env = {name: value for name, value in env.items() if name != "WA_SECRET_KEY"}
    # Whether a dispatcher was seen in the last seconds is not the matter here.
    report = Report(well, **env, WA_SECRET_KEY="", WA_SECRET_KEY_FILE=str(keys))
    assert report.bad.keys() - {"dispatcher"} == {"master key"}, report.text
    assert report.lines["master key"] == "opens all, and others may read its file (0640)"
    assert f"chmod 600 {keys}" in report.bad["master key"]
    keys.chmod(0o600)
    report = Report(well, **env, WA_SECRET_KEY="", WA_SECRET_KEY_FILE=str(keys))
    assert report.bad.keys() <= {"dispatcher"}, report.text

    login = make_role(login=False)
    well.query("INSERT INTO wa_users (display_name, role, role_name) VALUES ('Ann', 'sales', %s)", login)
    well.query(f"DROP OWNED BY {login}")
    with well.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE wa_organizations SET time_zone = 'Mars/Phobos', archive_location = '/srv/archive'"
        )
        owner.execute(
            "INSERT INTO wa_messages (direction, message_type, status, state, created_at)"
            " VALUES ('inbound', 'text', 'received', 'received', now() - interval '100 days')"
        )
    report = Report(well, **env)
    assert report.bad.keys() - {"dispatcher"} == {"roles", "archive", "time zones"}, report.text
    assert login in report.lines["roles"]
    assert "waits for 11 days, and retention with it" in report.lines["archive"]
    assert "bin/wa archive run" in report.bad["archive"]
    assert "Mars/Phobos of 1 organizations" in report.lines["time zones"]
