"""The README and docs/ are true: every block runs, what they name exists, and the tables are complete.

A new page is covered as it is: its blocks run where the README's first message ended, processes and all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import psycopg
import pytest
from harness import CHECKOUT, Server
from manuals import Reader, anchors, blocks, manuals, prose
from pg_whatsapp.cli import wa
from pg_whatsapp.config import Settings
from simulated import wait_until
from wa_simulator.cli import simulate

README = CHECKOUT / "README.md"
DOCS = CHECKOUT / "docs"
MANUALS = manuals()
# These begin where nothing is installed or running.
ON_A_BARE_SERVER = {"operations.md", "simulator.md"}
# Looked at more closely: here, and in test_runbook.py.
ELSEWHERE = {"README.md", "guide.md", "runbook.md"}
# Why a block is not run; everything else is.
NOT_RUN = {
    "installs packages",
    "needs a Meta account",
    "needs a 360dialog account",
    "needs a Twilio account",
    "needs a second server",
    "needs a proxy",
    "runs the tests themselves",
    "takes more than an hour",
}
RUN = [m for m in MANUALS if m.name not in ELSEWHERE and any(block.is_run for block in blocks(m))]
# What was to go by now and has not been read; of all that the guide sends one is refused on purpose.
LEFT = b"""
    SELECT q.reference, q.type, q.status, q.last_error, m.state
    FROM wa_outbound_queue q
    LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id
    WHERE q.status <> 'cancelled' AND q.scheduled_at <= now() AND coalesce(q.reference, '') <> 'recorded'
        AND m.state IS DISTINCT FROM 'read'
"""


@pytest.mark.parametrize("manual", RUN, ids=lambda m: m.name)
def test_every_block_does_what_it_says(
    manual: Path, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    with Reader(make_server(), tmp_path) as user:
        if manual.name not in ON_A_BARE_SERVER:
            user.read(README)
        user.read(manual)


def test_the_first_message_and_all_that_the_guide_sends_arrive(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    with Reader(server, tmp_path) as developer:
        assert re.search(r"\| hello_world +\| (delivered|read)", developer.read(README))
        developer.read(DOCS / "guide.md")
        with psycopg.connect(server.dsn("shop"), autocommit=True) as database:

            def left() -> list[tuple[object, ...]]:
                return database.execute(LEFT).fetchall()

            try:
                wait_until(lambda: not left())
            except AssertionError:
                pytest.fail("\n".join(map(str, left())))
            count = b"SELECT count(*) FROM wa_messages WHERE reference LIKE 'order-104%' AND state = 'read'"
            assert database.execute(count).fetchone() == (5,)


def test_what_is_not_run_says_why() -> None:
    found = [block for manual in MANUALS for block in blocks(manual)]
    assert {block.why_not for block in found} - {None} <= NOT_RUN
    assert not [block for block in found if block.language == "sql" and block.why_not]
    assert {block.language for block in found} <= {"sql", "sh", "python", "ini", "json", "text"}


@pytest.mark.parametrize("manual", MANUALS, ids=lambda m: m.name)
def test_no_command_escapes_its_block(manual: Path) -> None:
    fences = re.findall(r"^ *```", manual.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(manual)), "a block without language, or not closed"
    commands = r"^ {4,}(?:make|bin/\w+|psql|sudo|curl|export|createdb|pg_\w+|SELECT|INSERT|UPDATE|DELETE)\s.*"
    assert not re.findall(commands, prose(manual), re.MULTILINE)


def commands() -> list[str]:
    """Every `bin/wa` command in the manuals: in their blocks, and in prose between backticks."""
    typed = r"bin/wa ([^`#&|,;()\n]*)"
    found = {
        command.strip()
        for manual in MANUALS
        for text, pattern in (
            (prose(manual), f"`{typed}"),
            *((b.text, typed) for b in blocks(manual) if b.language != "text"),
        )
        for command in re.findall(pattern, text)
    }
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
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(manual.read_text() for manual in MANUALS)
    named = re.findall(r"(?:^|`|^sudo )make ([a-z-]+)(?=$|[ `])", text, re.MULTILINE)
    assert {"demo", "test", "install"} <= set(named)
    assert set(named) <= targets


def test_every_room_is_described() -> None:
    described = (DOCS / "architecture.md").read_text()
    rooms = [path for path in (CHECKOUT / "sql").iterdir() if path.is_dir()]
    assert len(rooms) > 10
    for room in rooms:
        assert re.search(rf"^\| `{room.name}/?` \|", described, re.MULTILINE), room.name


def section(manual: Path, heading: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    level = heading.split()[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", manual.read_text(), re.M | re.S
    )
    assert found, f"{manual.name} has no {heading}"
    return found[1]


def test_every_variable_is_listed() -> None:
    known = set()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        known |= (
            {alias} if isinstance(alias, str) else {str(choice) for choice in getattr(alias, "choices", [])}
        )
    known |= {
        option.envvar
        for group in wa.commands.values()
        for command in getattr(group, "commands", {}).values()
        for option in command.params
        if isinstance(option.envvar, str)
    }
    table = section(DOCS / "operations.md", "## Environment")
    assert set(re.findall(r"`((?:WA|WHATSAPP|DATABASE)_\w+)`", table)) == known


def test_every_role_is_listed() -> None:
    roles = (CHECKOUT / "sql/extension/roles.sql").read_text()
    table = section(DOCS / "operations.md", "## Roles")
    for role in set(re.findall(r"'(wa_\w+)'", roles)):
        assert f"| `{role}` |" in table


@pytest.mark.parametrize("manual", MANUALS, ids=lambda m: m.name)
def test_every_link_leads_somewhere(manual: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(manual)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (manual.parent / path).resolve() if path else manual
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README.read_text())}
    assert {str(m.relative_to(CHECKOUT)) for m in MANUALS} - {"README.md"} <= linked


def test_who_wants_to_change_something_finds_the_file() -> None:
    table = section(CHECKOUT / "CONTRIBUTING.md", "## I want to change X")
    rows = re.findall(r"^\| (?!X \||-).*\|$", table, re.MULTILINE)
    assert len(rows) >= 20
    for row in rows:
        files = [CHECKOUT / path for path in re.findall(r"`([\w./-]*/[\w./-]+)`", row)]
        assert files, row
        assert [path for path in files if not path.is_file()] == []
        for function in re.findall(r"`(\w+)\(\)`", row):
            assert any(f"FUNCTION {function}(" in path.read_text() for path in files), function
