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
from pg_whatsapp.doctor_provider import judge, measure_skew
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import KEY, wa

pytestmark = pytest.mark.slow

LINE = re.compile(r"^(ok  |BAD ) ([a-z_ ]+): (.*)$")


class Report:
    """What one run of the command said."""

    def __init__(self, database: Database, user: str | None = None, **env: str) -> None:
        done = wa("doctor", database=database, user=user, **env)
        assert done.returncode in (0, 1), done.stderr
        self.is_well = done.returncode == 0
        self.text = done.stdout
        self.lines: dict[str, str] = {}
        self.bad: dict[str, str] = {}
        name = ""
        for line in done.stdout.splitlines():
            if found := LINE.match(line):
                name = found[2]
                self.lines[name] = found[3]
                if found[1] == "BAD ":
                    self.bad[name] = ""
            else:
                self.bad[name] += line.strip()


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
    database.query("SELECT start_wa_dispatcher(gen_random_uuid(), 'here', 1, %s)", __version__)


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
