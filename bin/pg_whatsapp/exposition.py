"""Figures in the form that Prometheus scrapes, made from the view wa_metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pg_whatsapp import db, errors
from pg_whatsapp.config import Settings
from pg_whatsapp.lately import Lately

PATH = "/metrics"
# However often it is scraped, the database is asked once in so many seconds, and given so long to answer.
CACHED_S = 10.0
TIMEOUT_S = 5

Row = tuple[str, str, dict[str, str], float]


class _Rows(Collector):
    """Rows of wa_metrics for the library that writes them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        """A family a name, a sample a row."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self._rows:
            family = families.setdefault(name, GaugeMetricFamily(name, text, labels=sorted(labels)))
            family.add_metric([labels[label] for label in sorted(labels)], value)
        return iter(families.values())


def write(rows: Iterable[Row]) -> bytes:
    """Rows of wa_metrics (name, help, labels, value) in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Rows(rows))
    return generate_latest(registry)


def answer(rows: Iterable[Row]) -> Response:
    """Rows of wa_metrics as an HTTP answer."""
    return Response(write(rows), headers={"content-type": CONTENT_TYPE_LATEST})


class Exposition:
    """GET /metrics for the whole installation, without a key: for a port that only the monitor reaches."""

    def __init__(self, settings: Settings) -> None:
        self._link = db.Link(settings.conninfo, "serve metrics", statement_timeout=f"{TIMEOUT_S}s")
        self._rows = Lately(self._read, CACHED_S)

    def routes(self) -> list[BaseRoute]:
        """Its endpoint."""
        return [Route(PATH, self.metrics, methods=["GET"])]

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Nothing runs beside it."""
        return []

    async def close(self) -> None:
        """Give up its connection."""
        await self._link.drop()

    async def metrics(self, _request: Request) -> Response:
        """The figures, at most ten seconds old; 503 while the database does not answer."""
        try:
            # Scrapes must not pile up on a slow database.
            async with asyncio.timeout(2 * TIMEOUT_S):
                rows = await self._rows.get()
        except (psycopg.Error, errors.WaError, TimeoutError):
            return PlainTextResponse("no answer of the database", 503)
        return answer(rows)

    async def _read(self) -> list[Row]:
        rows = await self._link.fetch("SELECT name, help, labels, value FROM wa_metrics")
        return [(name, text, labels, value) for name, text, labels, value in rows]
