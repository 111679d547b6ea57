"""The command line: help, exit status, and what never shows."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from pg_whatsapp import stored_secrets
from pg_whatsapp.cli import wa
from pg_whatsapp.cli_secrets import set_secret

COMMANDS = (
    ["dispatch"],
    ["serve"],
    ["simulate"],
    ["migrate"],
    ["adopt"],
    ["doctor"],
    ["secrets"],
    ["secrets", "set"],
    ["secrets", "list"],
    ["secrets", "rotate"],
    ["audit"],
    ["audit", "anchor"],
    ["audit", "verify"],
    ["audit", "public-key"],
    ["templates"],
    ["templates", "sync"],
    ["events"],
    ["events", "subscribe"],
    ["events", "rotate"],
    ["events", "list"],
)


def test_the_secrets_that_can_be_set_are_those_that_are_stored() -> None:
    (argument,) = [p for p in set_secret.params if p.name == "name"]
    assert isinstance(argument.type, click.Choice)
    assert tuple(argument.type.choices) == stored_secrets.NAMES


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(wa, [*command, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["dispatch", "--concurrency", "0"],
        ["dispatch", "--only", "nothing"],
        ["events", "rotate", "no-id"],
        ["serve", "--port", "x"],
        ["secrets", "set", "password"],
        ["simulate", "--nonsense"],
        ["--log-format", "xml", "doctor"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(wa, arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [["doctor"], ["migrate"], ["adopt"], ["secrets", "list"], ["templates", "sync"]],
    ids=" ".join,
)
def test_no_database_is_status_1_and_says_so(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/app")
    result = CliRunner().invoke(wa, arguments)
    assert result.exit_code == 1
    assert "cannot reach the database" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hunter2@127.0.0.1:9/app?schema=public", '"schema"'),
        ("postgresql//me:hunter2@127.0.0.1/app", "cannot read it"),
        ("postgresql://me:hunter2%zz@127.0.0.1/app", "cannot read it"),
    ],
)
def test_a_malformed_url_is_told_without_its_password(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    for arguments in (["doctor"], ["dispatch"], ["secrets", "list"]):
        result = CliRunner().invoke(wa, arguments)
        assert result.exit_code == 1
        assert "DATABASE_URL is malformed" in result.stderr
        assert said in result.stderr
        assert "hunter2" not in result.output


def test_a_wrong_setting_is_status_1_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATSAPP_API_VERSION", "twenty")
    result = CliRunner().invoke(wa, ["dispatch"])
    assert result.exit_code == 1
    assert "WHATSAPP_API_VERSION" in result.stderr


def test_a_secret_needs_a_key_and_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(wa, ["secrets", "set", "access_token"], input="EAA-secret\n")
    assert result.exit_code == 1
    assert "WA_SECRET_KEY" in result.stderr
    assert "EAA-secret" not in result.output
    monkeypatch.setenv("WA_SECRET_KEY", "00" * 32)
    for value in ("", " \n", "two\nlines"):
        result = CliRunner().invoke(wa, ["secrets", "set", "access_token"], input=value)
        assert result.exit_code == 1
        assert "empty" in result.stderr


def test_the_value_of_a_secret_is_no_argument() -> None:
    assert CliRunner().invoke(wa, ["secrets", "set", "access_token", "EAA-secret"]).exit_code == 2


def test_help_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys; from pg_whatsapp.cli import wa\n"
        "try: wa(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'httpx', 'uvicorn', 'pydantic', 'starlette', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
