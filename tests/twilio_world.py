"""Twilio on its whole way: its stand-in, a receiver behind a proxy, a dispatcher; for tests."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import httpx
from harness import Database, free_port
from simulated import SimulatorProcess, wait_until
from wa_process import WaProcess

ACCOUNT = "AC" + "0123456789abcdef" * 2
TOKEN = "auth-token-of-twilio"
#: Where customers reach us; a proxy is between.
PUBLIC = "https://chat.shop.example"
PATH = "/api/whatsapp/webhook"
NUMBER, SMS_NUMBER = "whatsapp:+14155238886", "+14155238886"
CUSTOMER = "+16505550101"
HELLO = "HX" + "a" * 32
#: Where it is noon, or midnight, now: the zone's name has the opposite sign.
_ZONE = """SELECT 'Etc/GMT' || CASE WHEN o < 0 THEN '+' ELSE '-' END || abs(o) FROM (
    SELECT CASE WHEN h > 12 + {at} THEN 24 + {at} - h ELSE {at} - h END AS o
    FROM (SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::int AS h) x) y"""
DAYTIME, NIGHT = _ZONE.format(at=12), _ZONE.format(at=0)
ENV = {
    "WHATSAPP_PROVIDER": "twilio",
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "WHATSAPP_PHONE_NUMBER": SMS_NUMBER,
}


def signed(url: str, fields: dict[str, str], token: str = TOKEN) -> str:
    """X-Twilio-Signature, by Twilio's own description of it."""
    text = url + "".join(name + fields[name] for name in sorted(fields))
    return b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


class TwilioWorld:
    """The processes. The number registers itself, from the environment."""

    def __init__(self, db: Database, directory: Path, *, dispatches: bool = True, **settings: Any) -> None:
        self.db = db
        db.query("SELECT adopt_wa_database()")
        db.query("UPDATE wa_installations SET public_url = %s", PUBLIC)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self.simulator = SimulatorProcess(directory / "simulator", settings=settings)
        self.env = {**ENV, "WHATSAPP_API_BASE_URL": self.simulator.url}
        self.client = httpx.Client(timeout=120)
        self.processes: list[WaProcess] = []
        try:
            self.simulator.post(
                "twilio",
                sid=ACCOUNT,
                auth_token=TOKEN,
                inbound_url=PUBLIC + PATH,
                contents={HELLO: ["1", "2"]},
                routes={PUBLIC: f"http://127.0.0.1:{self.port}"},
            )
            self.start("serve", "--port", str(self.port)).logged("serving")
            if dispatches:
                self.start("dispatch").logged("dispatching")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def start(self, *arguments: str, **env: str) -> WaProcess:
        """One more process of the `wa` command."""
        process = WaProcess(*arguments, database=self.db, **self.env, **env)
        self.processes.append(process)
        return process

    def say(self, text: str = "", sender: str = f"whatsapp:{CUSTOMER}", **more: Any) -> dict[str, Any]:
        """Write to the business as a customer does; what became of the webhook."""
        more.setdefault("to", NUMBER if sender.startswith("whatsapp:") else SMS_NUMBER)
        return self.simulator.post("twilio_customer", text=text, **{"from": sender}, **more)

    def queue(self, **columns: Any) -> str:
        """Insert a row into the queue; its id."""
        columns.setdefault("phone", CUSTOMER)
        names = ", ".join(columns)
        places = ", ".join("%s" for _ in columns)
        [row] = self.db.query(
            f"INSERT INTO wa_outbound_queue ({names}) VALUES ({places}) RETURNING id::text",
            *columns.values(),
        )
        return str(row["id"])

    def row(self, queue_id: str) -> dict[str, Any]:
        """The queue row, with the delivery state of its message."""
        [row] = self.db.query(
            "SELECT q.status, q.error_code, q.last_error, q.wa_message_id, m.state, m.error_code AS code"
            " FROM wa_outbound_queue q LEFT JOIN wa_messages m ON m.queue_id = q.id WHERE q.id = %s::uuid",
            queue_id,
        )
        return row

    def until(self, queue_id: str, **wanted: Any) -> dict[str, Any]:
        """The queue row once it says what is wanted."""

        def there() -> dict[str, Any] | None:
            row = self.row(queue_id)
            return row if all(row[name] == value for name, value in wanted.items()) else None

        try:
            found: dict[str, Any] = wait_until(there)
        except AssertionError:
            why = self.db.query("SELECT * FROM explain_wa_message(%s::uuid)", queue_id)
            raise AssertionError(f"not {wanted}: {self.row(queue_id)}, {why}") from None
        return found

    def post(self, fields: dict[str, str], *, signature: str | None, query: str = "", **headers: str) -> int:
        """Post a form straight to the receiver; the status."""
        content = {"content-type": "application/x-www-form-urlencoded"}
        if signature is not None:
            content["x-twilio-signature"] = signature
        answer = self.client.post(self.url + query, content=urlencode(fields), headers=content | headers)
        return answer.status_code

    def sent(self) -> dict[str, dict[str, str]]:
        """The fields of what the stand-in took, by sid."""
        return self.simulator.get("twilio_messages")

    def __enter__(self) -> TwilioWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.signal()
        for process in reversed(self.processes):
            process.wait()
        self.simulator.stop()
        self.client.close()
