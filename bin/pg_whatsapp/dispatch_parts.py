"""What `wa dispatch` does beside sending: each part in a process of its own, or alone with --only.

So it never takes the time of sending.
"""

from __future__ import annotations

from pg_whatsapp.companion import Companion, become_companion
from pg_whatsapp.config import Settings
from pg_whatsapp.media_worker import MediaWorker
from pg_whatsapp.outside import OutsideTransport
from pg_whatsapp.process import serve
from pg_whatsapp.provider_calls import ProviderCaller
from pg_whatsapp.pusher import Pusher
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.transport import open_transport


def companions(global_options: list[str], key_ids: list[str]) -> tuple[Companion, ...]:
    """The processes beside a dispatcher, each started once there is work for it."""

    def command(part: str) -> list[str]:
        return [*global_options, "dispatch", "--only", part, "--companion"]

    return (
        Companion("files", command("files"), "SELECT has_wa_media_work()", is_for_sending=True),
        Companion("events", command("events"), "SELECT has_wa_event_subscriptions(%s)", key_ids),
        Companion("calls", command("calls"), "SELECT has_wa_provider_calls()"),
    )


async def push_events(
    settings: Settings, box: SecretBox, concurrency: int, drain: bool, is_companion: bool
) -> None:
    """Push events until stopped, or until none is due. Raises WaError."""
    http = OutsideTransport()
    pusher = Pusher(settings, box, http, concurrency=concurrency, drain=drain)
    if is_companion:
        become_companion(pusher.stop)
    try:
        await serve(pusher)
    finally:
        await http.aclose()


async def call_provider(
    settings: Settings, box: SecretBox | None, concurrency: int, drain: bool, is_companion: bool
) -> None:
    """Make calls of the provider until stopped, or until none is due. Raises WaError."""
    http = open_transport()
    caller = ProviderCaller(settings, box, http, concurrency=concurrency, drain=drain)
    if is_companion:
        become_companion(caller.stop)
    try:
        await serve(caller)
    finally:
        await http.aclose()


async def work_on_files(
    settings: Settings, box: SecretBox | None, concurrency: int, drain: bool, is_companion: bool
) -> None:
    """Fetch, upload and delete files until stopped, or until nothing is due. Raises WaError."""
    http, outside = open_transport(), OutsideTransport()
    worker = MediaWorker(settings, box, http, outside, concurrency=concurrency, drain=drain)
    if is_companion:
        become_companion(worker.stop)
    try:
        await serve(worker)
    finally:
        await http.aclose()
        await outside.aclose()
