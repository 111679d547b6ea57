"""Messages, webhooks, requests, jobs and commands at once, where a DBA has other settings, or another owner.

Tests bin/pg_whatsapp/db.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import ApiServer
from harness import Database
from psycopg import sql
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import KEY, WaProcess, wa

pytestmark = pytest.mark.slow

SECRETS = {"app_secret": "app-secret", "access_token": "token"}
CUSTOMERS = [f"+1650555{1000 + n}" for n in range(20)]
QUEUE = "INSERT INTO wa_outbound_queue (phone, template_name, reference) VALUES (%s, 'hello_world', 'sql')"
MAKE_DUE = "UPDATE wa_jobs SET next_run_at = now() - interval '1 second' WHERE next_run_at IS NOT NULL"
SCHEDULED = "SELECT name FROM wa_jobs WHERE next_run_at IS NOT NULL"


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(
        tmp_path,
        phone_number_id=NUMBER,
        waba_id="102290129340398",
        access_token=SECRETS["access_token"],
        app_secret=SECRETS["app_secret"],
        settings={"pair": False, "throughput": False},
    ) as made:
        yield made


def complaints(process: WaProcess) -> list[dict[str, Any]]:
    """What a process logged that went wrong."""
    return [line for line in process.log if line.get("level") in ("warning", "error")]


def all_goes_on(db: Database, simulator: SimulatorProcess, make_role: Callable[..., str]) -> None:
    """Two dispatchers, a receiver and the API, as those roles, by whom nothing is lost or done twice."""
    roles = {name: make_role(f"wa_{name}") for name in ("admin", "app", "dispatcher", "receiver")}
    settings = {"WA_SECRET_KEY": KEY, "WHATSAPP_API_BASE_URL": simulator.url}
    db.query("SELECT adopt_wa_database()")
    db.query(
        "SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398', throughput => 1000)", NUMBER
    )

    def admin(*arguments: str, stdin: str = "") -> None:
        done = wa(*arguments, database=db, user=roles["admin"], stdin=stdin, **settings)
        assert done.returncode == 0, done.stderr

    for name, value in SECRETS.items():
        admin("secrets", "set", name, stdin=value)
    admin("templates", "sync")
    db.query("SELECT schedule_wa_jobs()")
    db.query(MAKE_DUE)

    serve = ("serve", "--only", "webhook", "--port", "0")
    with ExitStack() as stack:
        receiver = stack.enter_context(WaProcess(*serve, database=db, user=roles["receiver"], **settings))
        api = ApiServer(db, make_role)
        stack.enter_context(api.client)
        processes = [receiver, stack.enter_context(api.process)]
        for _ in range(2):
            dispatcher = WaProcess("dispatch", database=db, user=roles["dispatcher"], **settings)
            processes.append(stack.enter_context(dispatcher))
        url = "http://{host}:{port}{path}".format(**receiver.logged("serving"))
        simulator.post("settings", webhook_url=url)

        def by_sql(phone: str) -> None:
            # What an application's transactions are is the application's business.
            with db.connect(user=roles["app"]) as session:
                session.read_only = False
                session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                with session.transaction():
                    session.execute(QUEUE, (phone,))

        def by_http(phone: str) -> None:
            message = {"phone": phone, "template_name": "hello_world", "reference": "http"}
            answer = api.client.post("/api/whatsapp/send", json=message)
            assert answer.status_code == 200, answer.text

        def by_customer(phone: str) -> None:
            simulator.post("customer", phone=phone, text="Hello?")

        # All at the same time, and each customer three times, so that transactions meet.
        acts = (by_sql, by_http, by_customer)
        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(act, phone) for phone in CUSTOMERS for act in acts]
        for call in calls:
            call.result()

        def arrived(direction: str) -> int:
            count = "SELECT count(*) FROM wa_messages WHERE direction = %s AND state IN ('read', 'received')"
            return int(db.query(count, direction)[0]["count"])

        wait_until(lambda: arrived("outbound") == 2 * len(CUSTOMERS), 120)
        wait_until(lambda: arrived("inbound") == len(CUSTOMERS))
        waiting = "SELECT 1 FROM wa_job_health WHERE last_started_at IS NULL AND next_run_at IS NOT NULL"
        wait_until(lambda: not db.query(waiting))
        wait_until(lambda: not db.is_waiting())
        admin("doctor")
        assert [line for process in processes for line in complaints(process)] == []
        for process in processes:
            process.signal()
            assert process.wait() == 0
    assert simulator.get("journal", format="summary")["duplicates"] == {}
    assert db.faults() == []
    assert db.query("SELECT job, error FROM wa_job_runs WHERE error IS NOT NULL") == []


def run_jobs(db: Database, isolation: str, owner: str | None = None) -> None:
    """Run what is due as pg_cron does, in a session that nobody settled."""
    names = [row["name"] for row in db.query(SCHEDULED)]
    assert names
    with db.connect(**({"user": owner} if owner else {})) as cron:
        cron.execute("SELECT set_config('default_transaction_isolation', %s, false)", (isolation,))
        for name in names:
            ran = cron.execute("SELECT status, error FROM run_wa_job(%s, p_only_if_due => true)", (name,))
            assert ran.fetchall() == [("done", None)]


@pytest.fixture(params=["serializable", "repeatable read"])
def isolation(request: pytest.FixtureRequest) -> str:
    """What every transaction of the roles begins with unless it says otherwise."""
    return str(request.param)


@pytest.fixture
def make_isolated(db: Database, make_role: Callable[..., str], isolation: str) -> Callable[..., str]:
    """As make_role, for roles whose transactions are isolated otherwise, and which write only when told."""

    def make(*groups: str, **options: Any) -> str:
        name = make_role(*groups, **options)
        for setting, value in (
            ("default_transaction_isolation", isolation),
            ("default_transaction_read_only", "on" if options.get("login", True) else "off"),
        ):
            db.server.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(
                    sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                )
            )
        return name

    return make


def test_all_goes_on_whatever_transactions_roles_begin(
    db: Database, simulator: SimulatorProcess, make_isolated: Callable[..., str]
) -> None:
    all_goes_on(db, simulator, make_isolated)


def test_jobs_run_in_a_session_that_nobody_settled(db: Database, isolation: str) -> None:
    """pg_cron's, which is the owner's."""
    db.query("SELECT adopt_wa_database()")
    db.query("SELECT schedule_wa_jobs()")
    db.query(MAKE_DUE)
    run_jobs(db, isolation)


@pytest.fixture
def owned(bare_db: Database, make_role: Callable[..., str]) -> tuple[Database, str]:
    """A database whose owner is no superuser and owns all that migrate_wa() makes; and its owner."""
    owner = make_role("wa_admin")
    bare_db.query(f"ALTER DATABASE {bare_db.name} OWNER TO {owner}")
    bare_db.query("CREATE EXTENSION pg_whatsapp CASCADE")
    bare_db.query("SELECT migrate_wa()", user=owner)
    return bare_db, owner


def test_all_goes_on_where_the_owner_is_no_superuser(
    owned: tuple[Database, str], simulator: SimulatorProcess, make_role: Callable[..., str]
) -> None:
    db, owner = owned
    # What packs bring is the owner's as well.
    db.query("SELECT install_wa_pack('events')", user=owner)
    all_goes_on(db, simulator, make_role)
    db.query(MAKE_DUE)
    run_jobs(db, "read committed", owner)
