"""`wa secrets`: tokens and app secrets, and the master key that seals them."""

from __future__ import annotations

import sys

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings
from pg_whatsapp.errors import ConfigError, SealError


@click.group()
def secrets() -> None:
    """Tokens and app secrets, stored sealed with WA_SECRET_KEY."""


@secrets.command("set")
@click.argument(
    "name",
    # Not from stored_secrets, whose imports the other commands need not wait for; a test compares them.
    type=click.Choice(
        [
            "access_token",
            "app_secret",
            "verify_token",
            "webhook_header",
            "platform_secret",
            "registration_pin",
        ]
    ),
)
@click.option("--number", help="phone_number_id it belongs to; without it, all numbers of the organization.")
@click.option(
    "--from-env", metavar="NAME", help="Take the value from this environment variable, not standard input."
)
@click.option("--keep-previous", is_flag=True, help="The value before stays valid beside it.")
@for_organization
def set_secret(
    name: str, number: str | None, from_env: str | None, keep_previous: bool, organization: str | None
) -> None:
    """Store a secret. The value is read from standard input; at a terminal it is asked for and not shown.

    webhook_header is the line "Name: value" that 360dialog sends with webhooks, platform_secret the one with
    which it signs those of its partners.
    """
    from pg_whatsapp import stored_secrets
    from pg_whatsapp.config import from_environment
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    box = require_box(chosen)
    if from_env:
        value = from_environment(from_env)
    elif sys.stdin.isatty():
        value = click.prompt(name, hide_input=True, err=True)
    else:
        value = sys.stdin.read()
    value = value.strip()
    if not value or not value.isprintable():
        raise ConfigError("the value is empty or has line breaks or control characters in it")
    mark, is_known = run(
        stored_secrets.set_secret(
            chosen, box, name, number, value, keep_previous=keep_previous, organization=organization
        )
    )
    click.echo(f"stored, fingerprint {mark}")
    if not is_known:
        click.echo(f"note: no business number {number} is registered yet", err=True)


@secrets.command("list")
@for_organization
def list_secrets(organization: str | None) -> None:
    """Show what is stored: names, numbers, fingerprints, never a value."""
    from pg_whatsapp import stored_secrets

    echo_table(run(stored_secrets.list_secrets(settings(), organization)), "nothing stored")


@secrets.command("rotate")
@for_organization
def rotate_secrets(organization: str | None) -> None:
    """Seal everything anew with the first of the master keys, while all runs.

    Put the new key on the first line of WA_SECRET_KEY_FILE (or of what WA_SECRET_KEY_COMMAND prints), before
    the old one, and run this. Processes that run read it again by themselves; those with WA_SECRET_KEY need
    both keys, and a restart, before. Once this has ended with status 0, the old key can go. It may be stopped
    and repeated.
    """
    from pg_whatsapp import secret_rotation
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    rotation = run(secret_rotation.rotate(chosen, require_box(chosen), organization))
    click.echo(f"sealed anew: {rotation.resealed}")
    for one, error in rotation.unopened:
        belongs = f" of {one.number}" if one.number else ""
        click.echo(f"left as it is: {one.name}{belongs}, organization {one.organization}: {error}", err=True)
    if rotation.unopened:
        raise SealError(
            f"{len(rotation.unopened)} stored secrets do not open with the keys at hand",
            "Add the keys that sealed them (bin/wa secrets list shows their ids), or set them again.",
        )
