"""WhatsApp messages from Python: SQL functions, or the same over HTTP, behind the same methods.

    from pg_whatsapp.client import Client

    with Client.connect() as wa:                     # DATABASE_URL, or the PG* variables
        wa.send_message("+15551234567", template_name="hello_world")

Client.using(connection) works in a transaction of yours, Client.http(url, key) needs no database; AsyncClient
has the same methods to be awaited. Errors are those of pg_whatsapp.errors, whichever way.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from pg_whatsapp.client import attending, operations
from pg_whatsapp.client.methods import AsyncWay, Way, asynchronous, asynchronous_rows, sync, sync_rows
from pg_whatsapp.client.operations import NewMessage
from pg_whatsapp.client.results import NEVER, Page, Thread

if TYPE_CHECKING:
    import httpx
    import psycopg
    import psycopg_pool

__all__ = ["NEVER", "AsyncClient", "Client", "NewMessage", "Page", "Thread"]

# What speaks to a database, or HTTP, is imported by whoever needs it: either takes longer than all of this.


class Client:
    """Everything that an application asks of WhatsApp; made by connect(), using() or http()."""

    def __init__(self, way: Way) -> None:
        self.way = way

    @classmethod
    def connect(cls, conninfo: str | None = None, *, organization: str | None = None) -> Client:
        """Over SQL, on up to eight connections of its own, opened when needed; each call is a transaction.

        Without conninfo DATABASE_URL says where, or the PG* variables. organization is the id of one, for a
        role that works for several. May be used by several threads.
        """
        from pg_whatsapp.client.database import Own

        return cls(Own(conninfo, organization))

    @classmethod
    def using(
        cls, source: psycopg.Connection[Any] | psycopg_pool.ConnectionPool[psycopg.Connection[Any]]
    ) -> Client:
        """Over SQL, on a connection of yours, in its transaction: nothing is committed for you.

        A refused call aborts the transaction, as any failed statement does. Of a pool each call takes a
        connection, and is a transaction.
        """
        from pg_whatsapp.client.database import Given

        return cls(Given(source))

    @classmethod
    def http(
        cls,
        url: str,
        key: str,
        *,
        user: str | None = None,
        timeout_s: float = 30.0,
        client: httpx.Client | None = None,
    ) -> Client:
        """Over HTTP, to the server at url, with an API key; user is who acts, for the audit log.

        timeout_s is for each request; a client of yours brings its own.
        """
        from pg_whatsapp.client.http import Http

        return cls(Http(url, key, user, timeout_s, client))

    def close(self) -> None:
        """Close what the client opened itself."""
        self.way.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    send_message = sync(operations.send_message)
    send_messages = sync(operations.send_messages)
    get_message = sync(operations.get_message)
    cancel_message = sync(operations.cancel_message)
    get_send_options = sync(operations.get_send_options)
    search_conversations = sync(operations.search_conversations)
    get_conversation = sync(operations.get_conversation)
    mark_read = sync(attending.mark_read)
    assign_conversation = sync(attending.assign_conversation)
    get_events = sync(attending.get_events)
    ack_events = sync(attending.ack_events)
    list_templates = sync(operations.list_templates)
    create_template = sync(operations.create_template)
    request_template_sync = sync(attending.request_template_sync)
    request_template_submission = sync(attending.request_template_submission)
    get_provider_call = sync(attending.get_provider_call)
    list_opt_outs = sync(operations.list_opt_outs)
    get_consent = sync(operations.get_consent)
    opt_out_contact = sync(operations.opt_out_contact)
    opt_in_contact = sync(operations.opt_in_contact)
    get_metrics = sync(operations.get_metrics)
    create_media_signature = sync(operations.create_media_signature)
    normalize_phone_e164 = sync(operations.normalize_phone_e164)
    try_normalize_phone_e164 = sync(operations.try_normalize_phone_e164)

    iter_conversations = sync_rows(operations.search_conversations)
    iter_messages = sync_rows(operations.get_conversation)
    iter_templates = sync_rows(operations.list_templates)
    iter_opt_outs = sync_rows(operations.list_opt_outs)


class AsyncClient:
    """As Client, with methods to be awaited; for one event loop."""

    def __init__(self, way: AsyncWay) -> None:
        self.way = way

    @classmethod
    def connect(cls, conninfo: str | None = None, *, organization: str | None = None) -> AsyncClient:
        """As Client.connect()."""
        from pg_whatsapp.client.database import AsyncOwn

        return cls(AsyncOwn(conninfo, organization))

    @classmethod
    def using(
        cls,
        source: psycopg.AsyncConnection[Any] | psycopg_pool.AsyncConnectionPool[psycopg.AsyncConnection[Any]],
    ) -> AsyncClient:
        """As Client.using()."""
        from pg_whatsapp.client.database import AsyncGiven

        return cls(AsyncGiven(source))

    @classmethod
    def http(
        cls,
        url: str,
        key: str,
        *,
        user: str | None = None,
        timeout_s: float = 30.0,
        client: httpx.AsyncClient | None = None,
    ) -> AsyncClient:
        """As Client.http()."""
        from pg_whatsapp.client.http import AsyncHttp

        return cls(AsyncHttp(url, key, user, timeout_s, client))

    async def close(self) -> None:
        """Close what the client opened itself."""
        await self.way.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    send_message = asynchronous(operations.send_message)
    send_messages = asynchronous(operations.send_messages)
    get_message = asynchronous(operations.get_message)
    cancel_message = asynchronous(operations.cancel_message)
    get_send_options = asynchronous(operations.get_send_options)
    search_conversations = asynchronous(operations.search_conversations)
    get_conversation = asynchronous(operations.get_conversation)
    mark_read = asynchronous(attending.mark_read)
    assign_conversation = asynchronous(attending.assign_conversation)
    get_events = asynchronous(attending.get_events)
    ack_events = asynchronous(attending.ack_events)
    list_templates = asynchronous(operations.list_templates)
    create_template = asynchronous(operations.create_template)
    request_template_sync = asynchronous(attending.request_template_sync)
    request_template_submission = asynchronous(attending.request_template_submission)
    get_provider_call = asynchronous(attending.get_provider_call)
    list_opt_outs = asynchronous(operations.list_opt_outs)
    get_consent = asynchronous(operations.get_consent)
    opt_out_contact = asynchronous(operations.opt_out_contact)
    opt_in_contact = asynchronous(operations.opt_in_contact)
    get_metrics = asynchronous(operations.get_metrics)
    create_media_signature = asynchronous(operations.create_media_signature)
    normalize_phone_e164 = asynchronous(operations.normalize_phone_e164)
    try_normalize_phone_e164 = asynchronous(operations.try_normalize_phone_e164)

    iter_conversations = asynchronous_rows(operations.search_conversations)
    iter_messages = asynchronous_rows(operations.get_conversation)
    iter_templates = asynchronous_rows(operations.list_templates)
    iter_opt_outs = asynchronous_rows(operations.list_opt_outs)
