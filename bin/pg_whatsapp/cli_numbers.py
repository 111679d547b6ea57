"""`wa numbers`: what the provider knows and shows of business numbers."""

from __future__ import annotations

import sys
from typing import Any, LiteralString

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings
from pg_whatsapp.errors import ConfigError

_BLOCK = "SELECT block_wa_user(%s, p.phone) FROM unnest(%s::text[]) p (phone)"
_UNBLOCK = "SELECT unblock_wa_user(%s, p.phone) FROM unnest(%s::text[]) p (phone)"
_wait = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for what comes of it.",
)


@click.group()
def numbers() -> None:
    """Business numbers at the provider: registration, webhooks, profile, blocked customers.

    NUMBER is the phone_number_id. A running `wa dispatch` makes the calls; wa_provider_calls has them.
    """


@numbers.command("list")
@for_organization
def list_numbers(organization: str | None) -> None:
    """Show the numbers: their account, state, quality and limit."""
    from pg_whatsapp.numbers import list_numbers as rows

    echo_table(run(rows(settings(), organization)), "no business numbers")


@numbers.command("register")
@click.argument("number")
@click.option(
    "--from-env", metavar="NAME", help="Take the PIN from this environment variable, not standard input."
)
@_wait
@for_organization
def register(number: str, from_env: str | None, wait: float, organization: str | None) -> None:
    """Register NUMBER with Meta, so that it can send.

    The six digits of its two-step verification are read from standard input; at a terminal they are asked for
    and not shown. A number that has none yet gets these. They are stored sealed, as registration_pin.
    """
    from pg_whatsapp.config import from_environment
    from pg_whatsapp.numbers import register_number
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    box = require_box(chosen)
    if from_env:
        pin = from_environment(from_env)
    elif sys.stdin.isatty():
        pin = click.prompt("PIN", hide_input=True, err=True)
    else:
        pin = sys.stdin.read()
    pin = pin.strip()
    if not (len(pin) == 6 and pin.isascii() and pin.isdigit()):
        raise ConfigError("a registration PIN has six digits")
    run(register_number(chosen, box, number, pin, wait, organization))
    click.echo("registered")


@numbers.command("subscribe")
@click.argument("number")
@click.option("--url", help="Where its webhooks are to come instead of the app's URL: that of `wa serve`.")
@click.option("--account", is_flag=True, help="With --url: those of the whole account of NUMBER.")
@_wait
@for_organization
def subscribe(number: str, url: str | None, account: bool, wait: float, organization: str | None) -> None:
    """Have webhooks sent: subscribe the app to the account of NUMBER, or set a URL of its own.

    The URL must answer already: the provider asks it for the verify token (at Meta), which is that of
    `wa secrets set verify_token`, or WHATSAPP_VERIFY_TOKEN of the dispatcher. 360dialog shows the header of
    `wa secrets set webhook_header` instead, and knows no app: --url is needed.
    """
    from pg_whatsapp.numbers import ask

    run(
        ask(
            settings(),
            "SELECT request_wa_webhook_subscription(%s, %s, %s)",
            (number, url, account),
            wait,
            organization,
        )
    )
    click.echo("subscribed" if url is None else "webhooks will come there")


@numbers.command("profile")
@click.argument("number")
@click.option("--about", help="The line beneath the name, 1 to 139 characters.")
@click.option("--address", help="Up to 256 characters.")
@click.option("--description", help="Up to 512 characters.")
@click.option("--email", help="For customers.")
@click.option("--vertical", help="The industry, as Meta names it: RETAIL, HEALTH, RESTAURANT, …")
@click.option("--website", "websites", multiple=True, help="May be given twice.")
@_wait
@for_organization
def profile(number: str, wait: float, organization: str | None, **given: Any) -> None:
    """Show what customers see of the business at NUMBER, after changing what is given."""
    from pg_whatsapp.numbers import work_on_profile

    parts = {name: value for name, value in given.items() if value not in (None, ())}
    shown = run(work_on_profile(settings(), number, parts, wait, organization))
    for name, value in sorted(shown.items()):
        click.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


@numbers.command("block")
@click.argument("number")
@click.argument("phones", nargs=-1, required=True, metavar="PHONE...")
@_wait
@for_organization
def block(number: str, phones: tuple[str, ...], wait: float, organization: str | None) -> None:
    """Block customers at NUMBER: they can write to it no more, nor it to them.

    Meta does so for who has written within 24 hours.
    """
    _each(number, _BLOCK, phones, wait, organization)
    click.echo(f"blocked: {len(phones)}")


@numbers.command("unblock")
@click.argument("number")
@click.argument("phones", nargs=-1, required=True, metavar="PHONE...")
@_wait
@for_organization
def unblock(number: str, phones: tuple[str, ...], wait: float, organization: str | None) -> None:
    """Let customers write to NUMBER again."""
    _each(number, _UNBLOCK, phones, wait, organization)
    click.echo(f"unblocked: {len(phones)}")


def _each(
    number: str, statement: LiteralString, phones: tuple[str, ...], wait: float, organization: str | None
) -> None:
    from pg_whatsapp.numbers import ask

    run(ask(settings(), statement, (number, list(phones)), wait, organization))


@numbers.command("blocked")
@click.argument("number")
@_wait
@for_organization
def blocked(number: str, wait: float, organization: str | None) -> None:
    """Show whom NUMBER has blocked, the first thousand."""
    from pg_whatsapp.numbers import ask

    (answer,) = run(ask(settings(), "SELECT request_wa_blocked_users(%s)", (number,), wait, organization))
    for page in (answer or {}).get("data", []):
        for user in page.get("block_users", [page]):
            click.echo(f"+{user['wa_id']}")
