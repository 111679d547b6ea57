"""What bin/demo plays on: the private server, the `wa` commands, psql and the stand-in for Meta."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BIN = Path(__file__).resolve().parent
WA, CLUSTER = str(BIN / "wa"), str(BIN / "cluster")
_NAMED = re.split(r"^--- (\w+)\n", BIN.joinpath("demo.sql").read_text(), flags=re.MULTILINE)[1:]
SQL = {name: text.strip() for name, text in zip(_NAMED[::2], _NAMED[1::2], strict=True)}
LOGIN = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE")
PATIENCE_S = 40.0


class DemoError(Exception):
    """Something is not as it should be; the message says what."""


def say(text: str) -> None:
    """Print a heading."""
    print(f"== {text}\n", flush=True)


def indent(*parts: str) -> None:
    """Print text below a heading."""
    print(textwrap.indent("\n".join(parts), "   ") + "\n", flush=True)


def scrubbed() -> dict[str, str]:
    """The environment without settings of the person who runs this."""
    theirs = re.compile(r"PG|WA_|WHATSAPP_|DATABASE_URL$")
    return {name: value for name, value in os.environ.items() if not theirs.match(name)}


def run(*command: str, env: Mapping[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it prints to either output is in ``stdout``."""
    return subprocess.run(
        command, env=env, input=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` returns once it is true; DemoError when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise DemoError(f"not so after {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.1)
    return result


class Process:
    """A `wa` command that runs until it is stopped, and no longer than this program."""

    def __init__(self, directory: Path, env: Mapping[str, str], name: str, *args: str) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", WA, "--log-format", "json", name, *args],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for this program, which then ends the others in turn.
                start_new_session=True,
            )

    def logged(self, event: str) -> dict[str, Any]:
        """The first line of its log with that event, once it is there."""

        def find() -> dict[str, Any] | None:
            lines = self._log.read_text().splitlines()
            found = next((line for line in lines if f'"event": "{event}"' in line), None)
            if found is None and self._process.poll() is not None:
                raise DemoError(f"wa {self.name} ended with status {self._process.returncode}")
            return dict(json.loads(found)) if found else None

        return dict(wait_for(find, f"wa {self.name} says {event!r}"))

    def stop(self) -> int:
        """End it in order, by force if it does not; returns its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Stage:
    """The private server, the processes, and the ways to speak to them."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._simulator = ""
        self.server: dict[str, str] = {}
        self.settings = {"WA_SECRET_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}

    def start_server(self) -> None:
        """Start the private server; it goes with this process."""
        command = [CLUSTER, "start", "--owner", str(os.getpid())]
        done = subprocess.run(command, env=scrubbed(), stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise DemoError("the private server did not start")
        pairs = (line.removeprefix("export ").partition("=") for line in done.stdout.splitlines())
        self.server = {name: value for name, _, value in pairs}
        # Goes with the server, also when this process is killed.
        self._logs = Path(self.server["WA_CLUSTER"], "wa")
        self._logs.mkdir()

    def start(self, event: str, role: str, name: str, *args: str, **env: str) -> dict[str, Any]:
        """Start a `wa` command; returns its log line with ``event``, by which it is ready."""
        access = self.server | self.settings | {"PGUSER": role} if role else {}
        self._processes.append(Process(self._logs, scrubbed() | access | env, name, *args))
        line = self._processes[-1].logged(event)
        if name == "simulate":
            self._simulator = self.settings["WHATSAPP_API_BASE_URL"] = line["url"]
        return line

    def stop(self) -> list[str]:
        """End everything; returns complaints about what did not end in order."""
        ended = [(process.name, process.stop()) for process in reversed(self._processes)]
        if self.server:
            command = [CLUSTER, "stop", "--dir", self.server["WA_CLUSTER"]]
            subprocess.run(command, check=True)
        return [f"wa {name} ended with status {status}" for name, status in ended if status != 0]

    def wait_for_visitor(self) -> None:
        """Leave everything running until Ctrl-C."""
        login = " ".join(f"{name}={value}" for name, value in self.server.items() if name in LOGIN)
        say(f"Running until you press Ctrl-C. In another terminal: {login} psql")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()

    def show_logs(self) -> None:
        """Print the end of every log."""
        for log in (*sorted(self._logs.glob("*.log")), self._logs.with_name("log")) if self.server else ():
            print(f"\n--- {log.name}", file=sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)

    def wa(self, *args: str, given: str = "") -> None:
        """Run a `wa` command to its end, ``given`` on its standard input; shown as a user would type it."""
        shown = f"$ bin/wa {' '.join(args)}" + (" < secret" if given else "")
        env = scrubbed() | self.server | self.settings | {"PGUSER": "postgres"}
        done = run(WA, *args, env=env, given=given)
        if done.returncode != 0:
            raise DemoError(f"{shown}\n{done.stdout}")
        indent(shown, done.stdout.rstrip())

    def _psql(self, script: str, *options: str, role: str = "shop") -> subprocess.CompletedProcess[str]:
        program = str(Path(self.server["WA_CLUSTER_BIN"], "psql"))
        command = (program, "-X", "-q", "-P", "pager=off", *options)
        return run(*command, env=scrubbed() | self.server | {"PGUSER": role}, given=script)

    def sql(self, name: str, role: str = "shop", *, shown: bool = True) -> None:
        """Run a part of demo.sql that must succeed; print it (if ``shown``) and what comes of it."""
        done = self._psql(SQL[name], "-v", "ON_ERROR_STOP=1", role=role)
        script, output = ([SQL[name]] if shown else []), ([done.stdout.rstrip()] if done.stdout else [])
        indent("\n\n".join(script + output))
        if done.returncode != 0:
            raise DemoError("this SQL should have succeeded")

    def refused(self, name: str, sqlstate: str) -> None:
        """Run a part of demo.sql that must be refused, and show what its user sees."""
        done = self._psql(SQL[name] + "\n\\echo SQLSTATE :SQLSTATE\n", "-v", "SHOW_CONTEXT=never")
        indent(SQL[name], "", done.stdout.rstrip())
        if f"SQLSTATE {sqlstate}" not in done.stdout:
            raise DemoError(f"this SQL should have been refused with {sqlstate}")

    def rows(self, query: str) -> list[str]:
        """The rows of a query, their columns with tabs between them."""
        done = self._psql(query, "-v", "ON_ERROR_STOP=1", "-At", "-F", "\t")
        if done.returncode != 0:
            raise DemoError(done.stdout)
        return done.stdout.splitlines()

    def control(self, call: str, /, **body: Any) -> dict[str, Any]:
        """Call the simulator's control API."""
        connection = http.client.HTTPConnection(urlsplit(self._simulator).netloc, timeout=30)
        try:
            connection.request("POST" if body else "GET", f"/_simulator/{call}", json.dumps(body))
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        if "error" in answer:
            raise DemoError(f"the simulator refuses {call}: {answer['error']}")
        return dict(answer)

    def customer(self, name: str, phone: str, says: str, **message: Any) -> None:
        """Speak as a customer: ``message``, or else the text that is shown."""
        message = message or {"text": says}
        answer = self.control("customer", name=name, phone=phone, **message)
        indent(f"{name}: {says}")
        if not answer["delivered"]:
            raise DemoError(f"the receiver answered {answer['status']}")
