"""The README is true: its SQL runs, its first tour works, and what it names exists."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import webhook_bodies
from harness import CHECKOUT, Server
from manuals import blocks, errors, psql
from pg_whatsapp.cli import wa
from pg_whatsapp.config import Settings
from pg_whatsapp.simulator.cli import simulate
from simulated import wait_until

TEXT = (CHECKOUT / "README.md").read_text()
# Why a block is not run; everything else is.
NOT_RUN = {"needs a Meta account"}


BLOCKS = blocks(CHECKOUT / "README.md")


def test_every_sql_block_does_what_it_says(make_server: Callable[..., Server]) -> None:
    server = make_server()
    ann = webhook_bodies.message("wamid.A", "16505550101", int(time.time()), content="Hello?", name="Ann")
    for block in (block for block in BLOCKS if block.language == "sql"):
        if "spring_sale', 'en_US'" in block.text:
            # What Ann wrote opens the window that the next blocks need.
            asked = f"SELECT ingest_wa_webhook('\\x{ann.hex()}'); SELECT process_wa_webhooks();"
            assert not errors(psql(server, asked))
        output = psql(server, block.text, block.role)
        assert errors(output) == ([block.sqlstate] if block.sqlstate else []), f"{block.text}\n{output}"


def test_what_is_not_run_says_why() -> None:
    reasons = {block.note.removeprefix("not run: ") for block in BLOCKS if block.note.startswith("not run")}
    assert reasons <= NOT_RUN
    assert not [block for block in BLOCKS if block.language == "sql" and block.note.startswith("not run")]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_first_tour_ends_with_messages_read(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    (tour,) = (block.text for block in BLOCKS if block.note == "run: five minutes")
    for port in ("8800", "8801"):
        tour = tour.replace(port, str(free_port()))
    script = f"set -e\ntrap 'kill $(jobs -p); wait; exit 0' TERM\n{tour}\necho tour ended\nwait\n"
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            ["bash", "-c", script],
            cwd=CHECKOUT,
            env=server.env | {"PATH": f"{server.bindir}:/usr/bin:/bin", "HOME": str(tmp_path)},
            stdout=out,
            stderr=out,
        ) as process,
    ):
        try:
            wait_until(lambda: "tour ended" in log.read_text() or process.poll() is not None, 60)
            assert process.poll() is None, log.read_text()
            count = "\\t on\n\\a\nSELECT count(*) FROM wa_messages WHERE state = 'read';"
            wait_until(lambda: psql(server, count).strip() == "2", 30)
        finally:
            process.send_signal(signal.SIGTERM)


def commands() -> list[str]:
    """Every `bin/wa` command in the README and the manuals."""
    manuals = [CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")]
    found = {c.strip() for m in manuals for c in re.findall(r"bin/wa ([^`#&|,;()\n]*)", m.read_text())}
    return sorted(found)


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_exists(line: str) -> None:
    command: click.Command = wa
    for word in line.split():
        if isinstance(command, click.Group) and not word.startswith("--"):
            assert word in command.commands, f"no wa command {word}"
            command = command.commands[word]
            if command.name == "simulate":
                command = simulate
        elif option := re.match(r"\[?(--[a-z-]+)", word):
            known = {
                name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            assert option[1] in known, f"{command.name} has no {option[1]}"


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^(?:    |sudo )?make( [a-z]+)?(?: |$)", TEXT, re.MULTILINE):
        assert not line or line.strip() in targets, line


def test_every_room_is_described() -> None:
    described = (CHECKOUT / "docs/architecture.md").read_text()
    rooms = [path for path in (CHECKOUT / "sql").iterdir() if path.is_dir()]
    assert len(rooms) > 10
    for room in rooms:
        assert re.search(rf"^\| `{room.name}/?` \|", described, re.MULTILINE), room.name


def test_every_sqlstate_is_listed() -> None:
    sources = [*(CHECKOUT / "sql").rglob("*.sql"), *(CHECKOUT / "plpython").glob("*.py")]
    raised = {state for path in sources for state in re.findall(r"'(WA\d{3})'", path.read_text())}
    table = TEXT[TEXT.index("## Errors") : TEXT.index("## Environment")]
    assert set(re.findall(r"WA\d{3}", table)) == raised


def test_every_variable_is_listed() -> None:
    known = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        known |= (
            {alias} if isinstance(alias, str) else {str(choice) for choice in getattr(alias, "choices", [])}
        )
    table = TEXT[TEXT.index("## Environment") : TEXT.index("## Limits and")]
    assert set(re.findall(r"`((?:WA|WHATSAPP|DATABASE)_\w+)`", table)) == known


def test_every_role_is_listed() -> None:
    roles = (CHECKOUT / "sql/extension/roles.sql").read_text()
    table = TEXT[TEXT.index("### Roles") : TEXT.index("### Numbers")]
    for role in set(re.findall(r"'(wa_\w+)'", roles)):
        assert f"| `{role}` |" in table


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (CHECKOUT / target).exists(), target
