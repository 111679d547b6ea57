"""`wa events`: where events are pushed to."""

from __future__ import annotations

from uuid import UUID

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings


@click.group()
def events() -> None:
    """Events pushed to URLs: new messages and what becomes of those that were sent."""


@events.command("subscribe")
@click.argument("url")
@click.option(
    "--kinds",
    default="message,status",
    show_default=True,
    help="With commas: message, status, or some of theirs, such as status.failed.",
)
@for_organization
def subscribe_to_events(url: str, kinds: str, organization: str | None) -> None:
    """Push events to URL from now on. Prints the secret that signs them, once.

    The receiver checks deliveries with it as Standard Webhooks describes; the database has it sealed.
    """
    from pg_whatsapp import event_subscriptions
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    asked = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    made, secret = run(event_subscriptions.subscribe(chosen, require_box(chosen), url, asked, organization))
    click.echo(f"subscription {made}")
    click.echo(f"secret {secret}")


@events.command("rotate")
@click.argument("subscription", type=click.UUID)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 720),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long the former secret signs beside the new one.",
)
@for_organization
def rotate_event_secret(subscription: UUID, overlap: float, organization: str | None) -> None:
    """Give a subscription a new secret. Prints it, once."""
    from pg_whatsapp import event_subscriptions
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    secret, until = run(
        event_subscriptions.rotate(chosen, require_box(chosen), subscription, overlap, organization)
    )
    click.echo(f"secret {secret}")
    click.echo(f"the former one signs until {until}")


@events.command("list")
@for_organization
def list_event_subscriptions(organization: str | None) -> None:
    """Show the subscriptions: where to, whether they get through, and how much waits."""
    from pg_whatsapp.event_subscriptions import list_subscriptions

    echo_table(run(list_subscriptions(settings(), organization)), "no subscriptions")
