"""Files on their whole way: a provider, a receiver, a dispatcher, and the stores; for tests."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from harness import Database
from simulated import NUMBER, SimulatorProcess, wait_until
from wa_process import WaProcess

WABA = "102290129340398"
PHONE = "+16505550101"
ENV = {
    "WHATSAPP_ACCESS_TOKEN": "EAAG-test-token",
    "WHATSAPP_APP_SECRET": "app-secret",
    "WHATSAPP_VERIFY_TOKEN": "verify-me",
}
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
VOICE = b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01"
PDF = b"%PDF-1.4\n"


def noise(head: bytes, size: int) -> bytes:
    """Bytes that begin like a file of some kind and never repeat."""
    return head + os.urandom(size - len(head))


def digest(content: bytes) -> str:
    """Their SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class MediaWorld:
    """`wa serve`, a simulator that sends webhooks to it, and `wa dispatch`, with roles of their own."""

    def __init__(self, database: Database, directory: Path, roles: Any, **env: str) -> None:
        self.db = database
        self.env = ENV | env
        self._roles = {name: roles(name) for name in ("wa_dispatcher", "wa_receiver")}
        database.query("SELECT adopt_wa_database()")
        database.query("SELECT register_wa_phone_number(%s, '+15550783881', %s)", NUMBER, WABA)
        self.serve = WaProcess(
            "serve", "--port", "0", database=database, user=self._roles["wa_receiver"], **self.env
        )
        line = self.serve.logged("serving")
        self.http = httpx.Client(base_url=f"http://{line['host']}:{line['port']}", timeout=120)
        self.simulator = SimulatorProcess(
            directory / "provider",
            waba_id=WABA,
            phone_number_id=NUMBER,
            access_token=ENV["WHATSAPP_ACCESS_TOKEN"],
            app_secret=ENV["WHATSAPP_APP_SECRET"],
            settings={"webhook_url": f"{self.http.base_url}/api/whatsapp/webhook", "pair": False},
        )
        self.simulator.client.headers["authorization"] = f"Bearer {ENV['WHATSAPP_ACCESS_TOKEN']}"
        self.dispatch = self.start_dispatch()

    def start_dispatch(self) -> WaProcess:
        """Another dispatcher."""
        started = WaProcess(
            "dispatch",
            database=self.db,
            user=self._roles["wa_dispatcher"],
            **self.env,
            WHATSAPP_API_BASE_URL=self.simulator.url,
        )
        started.logged("dispatching")
        return started

    def bring(self, kind: str, content: bytes | None = None, **told: Any) -> str:
        """A customer sends a file; returns its id at the provider. What is told may differ from what is."""
        if content is not None and len(content) > 1 << 20:
            told["id"] = self.put(content, told.get("mime_type", "application/pdf"))
        elif content is not None:
            told["base64"] = base64.b64encode(content).decode()
        before = {row["id"] for row in self.files()}
        self.simulator.post("customer", phone=PHONE, type=kind, payload=told, number=NUMBER)
        (new,) = wait_until(lambda: [row for row in self.files() if row["id"] not in before])
        return str(new["provider_media_id"])

    def put(self, content: bytes, mime_type: str) -> str:
        """A file at the provider."""
        answer = self.simulator.client.post(
            f"/v25.0/{NUMBER}/media",
            data={"messaging_product": "whatsapp", "type": mime_type},
            files={"file": ("file", content, mime_type)},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def files(self) -> list[dict[str, Any]]:
        """The rows of wa_media."""
        return self.db.query(
            "SELECT id::text, provider_media_id, status, attempts, error, mime_type, file_size, filename,"
            " encode(sha256, 'hex') AS sha256, leased_until > clock_timestamp() AS is_leased FROM wa_media"
        )

    def file(self, provider_media_id: str) -> dict[str, Any]:
        """The row of one file."""
        (row,) = [row for row in self.files() if row["provider_media_id"] == provider_media_id]
        return row

    def settled(self, provider_media_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """The row of a file once it has one of these states."""
        wait_until(lambda: self.file(provider_media_id)["status"] in states, seconds)
        return self.file(provider_media_id)

    def stumbled(self, provider_media_id: str) -> str:
        """Why a file could not be fetched the first time."""
        wait_until(lambda: self.file(provider_media_id)["error"])
        return str(self.file(provider_media_id)["error"])

    def link(self, media_id: str, max_access: int = 1) -> str:
        """The path of a new link."""
        (row,) = self.db.query(
            "SELECT path FROM create_wa_media_signature(%s::uuid, %s)", media_id, max_access
        )
        return str(row["path"])

    def had(self, path: str, **headers: str) -> tuple[httpx.Response, str, int]:
        """What a link gives: the answer, the hash of its bytes and their number."""
        seen, size = hashlib.sha256(), 0
        with self.http.stream("GET", path, headers=headers) as answer:
            for piece in answer.iter_raw():
                seen.update(piece)
                size += len(piece)
        return answer, seen.hexdigest(), size

    def store_in(self, store: str, location: str | None) -> None:
        """Where files go from now on."""
        self.db.query("UPDATE wa_installations SET media_store = %s, media_location = %s", store, location)

    def close(self) -> None:
        """End all of it."""
        self.http.close()
        for process in (self.dispatch, self.serve):
            process.kill()
        self.simulator.stop()

    def __enter__(self) -> MediaWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def companions(process: WaProcess) -> list[int]:
    """The processes that a process has started, by their ids."""
    pid = process.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def peak_mib(process: WaProcess) -> float:
    """The most memory that a process had, or one that it started, in MiB."""

    def of(pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024

    return max(of(pid) for pid in (process.process.pid, *companions(process)))


class Bucket:
    """moto's S3 server with one bucket."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.env = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        wait_until(lambda: _answers(self.url))
        assert httpx.put(f"{self.url}/files").status_code == 200
        self.location = "s3://files/of/whatsapp"

    def keys(self) -> list[str]:
        """The names of the objects."""
        listed = httpx.get(f"{self.url}/files").text
        return [part.split("</Key>")[0] for part in listed.split("<Key>")[1:]]

    def close(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.HTTPError:
        return False
