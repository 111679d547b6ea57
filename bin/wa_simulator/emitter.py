"""Delivers webhooks: when they are due, signed, again and again until the receiver answers 200."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .client import Client, NoAnswerError
from .settings import Settings
from .state import Number
from .webhooks import Atom, encode, payload, signature


@dataclass(slots=True)
class Delivery:
    """What became of a POST so far; ``status`` is the last HTTP status, None where there was no answer."""

    delivered: bool = False
    status: int | None = None
    attempts: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The delivery as the control API shows it."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class _Post:
    body: bytes
    headers: dict[str, str]
    atoms: list[Atom]
    created: float
    url: str | None = None
    delivery: Delivery = field(default_factory=Delivery)
    repeat: bool = False
    retry: bool = True
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Emitter:
    """Queues of what is due and what failed, and the tasks that post it.

    ``on_delivered`` is called with each atom that the receiver has taken.
    """

    def __init__(
        self, settings: Settings, app_secret: str | None, client: Client, on_delivered: Callable[[Atom], None]
    ) -> None:
        self.settings = settings
        self.app_secret = app_secret
        self.counters: Counter[str] = Counter()
        self.pending = 0
        self._client = client
        self._on_delivered = on_delivered
        self._due: deque[Atom] = deque()
        self._posts: deque[_Post] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers = 0
        self._generation = 0
        self._random = random.Random()  # noqa: S311 (chance, not secrets)
        self._batch_timer = False

    # what is to be told

    def schedule(self, atom: Atom, delay_s: float) -> None:
        """Tell ``atom`` in ``delay_s`` seconds; nothing is kept where no receiver is set."""
        if self._url(atom.number) is None:
            self.counters["no_receiver"] += 1
            return
        self.pending += 1
        if delay_s <= 0:
            self._put(atom, self._generation)
        else:
            asyncio.get_running_loop().call_later(delay_s, self._put, atom, self._generation)

    def _put(self, atom: Atom, generation: int) -> None:
        if generation == self._generation:
            self._due.append(atom)
            self._pump()

    async def deliver(self, atoms: list[Atom], wait_s: float) -> Delivery:
        """Tell ``atoms`` (of one number) in one POST now; returns when it was taken, or after ``wait_s``
        seconds as it stands.
        """
        if self._url(atoms[0].number) is None:
            self.counters["no_receiver"] += 1
            return Delivery()
        self.pending += len(atoms)
        return await self._post(self._make_post(atoms), wait_s)

    async def deliver_raw(
        self, body: bytes, headers: dict[str, str], wait_s: float, *, retry: bool
    ) -> Delivery:
        """POST any body with any headers, once or until it is taken."""
        if self.settings.webhook_url is None:
            self.counters["no_receiver"] += 1
            return Delivery()
        return await self._post(_Post(body, headers, [], time.monotonic(), retry=retry), wait_s)

    async def _post(self, post: _Post, wait_s: float) -> Delivery:
        self._posts.append(post)
        self._pump()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await post.done.wait()
        return post.delivery

    def sign(self, body: bytes, number: Number | None = None) -> dict[str, str]:
        """The headers of a webhook with this body: 360dialog's for a number of theirs, else Meta's, which is
        unsigned where there is no app secret.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "facebookexternalua"}
        if number is not None and (number.webhook_headers or number.platform_secret):
            headers |= {"User-Agent": "360dialog"} | (number.webhook_headers or {})
            if number.platform_secret:
                headers["x-360dialog-signature"] = signature(number.platform_secret, body).partition("=")[2]
        elif self.app_secret:
            headers["X-Hub-Signature-256"] = signature(self.app_secret, body)
        return headers

    def _url(self, number: Number | None) -> str | None:
        return (number.webhook_url if number is not None else None) or self.settings.webhook_url

    def _make_post(self, atoms: list[Atom]) -> _Post:
        body = encode(payload(atoms), escape_slashes=self.settings.escape_slashes)
        number = atoms[0].number
        url = number.webhook_url if number is not None else None
        return _Post(body, self.sign(body, number), atoms, time.monotonic(), url)

    # posting

    def _pump(self) -> None:
        settings = self.settings
        waiting = len(self._posts) + -(-len(self._due) // settings.batch_max)
        if settings.batch_wait_ms and not self._posts and len(self._due) < settings.batch_max:
            if self._due and not self._batch_timer:
                self._batch_timer = True
                asyncio.get_running_loop().call_later(settings.batch_wait_ms / 1000, self._batch_is_due)
            return
        while waiting > 0 and self._workers < settings.webhook_connections:
            waiting -= 1
            self._start_worker()

    def _batch_is_due(self) -> None:
        self._batch_timer = False
        if self._due and self._workers < self.settings.webhook_connections:
            self._start_worker()

    def _start_worker(self) -> None:
        self._workers += 1
        task = asyncio.get_running_loop().create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        try:
            while (post := self._next()) is not None:
                await self._attempt(post)
        finally:
            self._workers -= 1

    def _next(self) -> _Post | None:
        if self._posts:
            return self._posts.popleft()
        if not self._due:
            return None
        atoms = [self._due.popleft()]
        way = self._way(atoms[0].number)
        while self._due and len(atoms) < self.settings.batch_max and self._way(self._due[0].number) == way:
            atoms.append(self._due.popleft())
        if self.settings.shuffle and self._random.random() < self.settings.shuffle:
            self._random.shuffle(atoms)
        return self._make_post(atoms)

    @staticmethod
    def _way(number: Number | None) -> tuple[object, ...]:
        """What must be the same for atoms to share a POST: where it goes and how it is signed."""
        if number is None:
            return (None, None, None)
        return (number.webhook_url, number.webhook_headers, number.platform_secret)

    async def _attempt(self, post: _Post) -> None:
        url = post.url or self.settings.webhook_url
        generation = self._generation
        post.delivery.attempts += 1
        self.counters["posts"] += 1
        status: int | None = None
        if url is not None:
            try:
                status = await self._client.post(
                    url, post.body, post.headers, self.settings.webhook_timeout_s
                )
            except NoAnswerError:
                status = None
        if generation != self._generation:
            return
        post.delivery.status = status
        if status == 200:
            self._taken(post)
        elif not post.retry:
            post.done.set()
        else:
            self._again(post)

    def _taken(self, post: _Post) -> None:
        if post.repeat:
            self.counters["repeated"] += 1
            return
        post.delivery.delivered = True
        post.done.set()
        self.pending -= len(post.atoms)
        self.counters["delivered"] += len(post.atoms)
        for atom in post.atoms:
            self._on_delivered(atom)
        if post.atoms and self.settings.repeat and self._random.random() < self.settings.repeat:
            post.repeat = True
            self._later(self.settings.repeat_after_ms / 1000, post)

    def _again(self, post: _Post) -> None:
        self.counters["failed_posts"] += 1
        if time.monotonic() - post.created > self.settings.retry_for_s:
            self.counters["given_up"] += len(post.atoms)
            self.pending -= 0 if post.repeat else len(post.atoms)
            post.done.set()
            return
        self.counters["retries"] += 1
        first, last = self.settings.retry_first_ms / 1000, self.settings.retry_max_ms / 1000
        wait = min(last, first * 2 ** min(post.delivery.attempts - 1, 30))
        self._later(wait * self._random.uniform(0.8, 1.2), post)

    def _later(self, delay_s: float, post: _Post) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._requeue, post, self._generation)

    def _requeue(self, post: _Post, generation: int) -> None:
        if generation == self._generation:
            self._posts.append(post)
            self._pump()

    # house-keeping

    def clear(self) -> None:
        """Forget what was to be told, and the counters."""
        self._generation += 1
        self._due.clear()
        self._posts.clear()
        self.pending = 0
        self.counters.clear()

    async def close(self) -> None:
        """Stop posting."""
        self.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()
