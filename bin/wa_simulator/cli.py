"""The ``simulate`` command."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import structlog

from . import run
from .errors import ControlError
from .settings import Settings

_log = structlog.get_logger()


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _settings(switches: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for switch in switches:
        name, separator, value = switch.partition("=")
        if not separator:
            raise click.UsageError(f"--set takes NAME=VALUE, not {switch!r}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def _check(settings: dict[str, Any]) -> None:
    try:
        Settings().update(settings)
    except ControlError as error:
        raise click.UsageError(str(error)) from None


@click.command(short_help="Stand in for the Graph API.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8801, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the journal and the registries outlive the command. Without it they go when it ends.",
)
@click.option("--webhook-url", help="Where webhooks are sent. Without it (or a setting made later) none are.")
@click.option(
    "--number",
    "phone_number_id",
    envvar="WHATSAPP_PHONE_NUMBER_ID",
    show_envvar=True,
    help="Id of a business number to register at the start.",
)
@click.option(
    "--waba",
    "waba_id",
    envvar="WHATSAPP_BUSINESS_ACCOUNT_ID",
    show_envvar=True,
    help="Id of the business account of numbers that are registered without one.",
)
@click.option(
    "--auto-register/--no-auto-register",
    default=True,
    show_default=True,
    help="Whether the first use of an unknown number or account id registers it.",
)
@click.option(
    "--set",
    "switches",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the control API (docs/simulator.md); VALUE is JSON or a word. May be repeated.",
)
@click.option(
    "--sink", is_flag=True, help="Accept everything, check nothing, send no webhooks: for benchmarks."
)
@click.option(
    "--latency",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Milliseconds that the sink takes to answer.",
)
def simulate(
    host: str,
    port: int,
    state_dir: Path | None,
    webhook_url: str | None,
    phone_number_id: str | None,
    waba_id: str | None,
    auto_register: bool,
    switches: tuple[str, ...],
    sink: bool,
    latency: float,
) -> None:
    """Take messages as the Graph API does, send webhooks back and speak as customers.

    Controlled over HTTP under /_simulator/. Three secrets are read from the environment, never from an
    option: WHATSAPP_ACCESS_TOKEN (without it any token will do), WHATSAPP_APP_SECRET (without it webhooks are
    not signed) and WHATSAPP_VERIFY_TOKEN.
    """
    settings = _settings(switches) | {"auto_register": auto_register}
    if webhook_url is not None:
        settings["webhook_url"] = webhook_url
    _check(settings)
    options: dict[str, Any] = {
        "access_token": _environment("WHATSAPP_ACCESS_TOKEN"),
        "app_secret": _environment("WHATSAPP_APP_SECRET", "WHATSAPP_WEBHOOK_SECRET"),
        "verify_token": _environment("WHATSAPP_VERIFY_TOKEN", "WHATSAPP_WEBHOOK_VERIFY_TOKEN"),
        "phone_number_id": phone_number_id,
        "waba_id": waba_id,
        "settings": settings,
        "sink": sink,
        "latency_ms": latency,
    }

    def ready(url: str) -> None:
        _log.info("simulator_ready", url=url, sink=sink)

    with tempfile.TemporaryDirectory(prefix="wa-simulator-") as temporary:
        status = run(host, port, state_dir or Path(temporary), ready=ready, **options)
    raise SystemExit(status)
