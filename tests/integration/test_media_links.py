"""Links over HTTP: ranges, headers, what counts, and what is told of a link that gives nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import Database
from simulated import wait_until
from wa_process import WaProcess

CONTENT = os.urandom(2_500_000)


class Served:
    """`wa serve` and a file."""

    def __init__(self, database: Database, user: str, *more: str, **env: str) -> None:
        self.db = database
        self.process = WaProcess("serve", "--port", "0", *more, database=database, user=user, **env)
        line = self.process.logged("serving")
        self.base = f"http://{line['host']}:{line['port']}"
        self.http = httpx.Client(base_url=self.base, timeout=120)
        self.media_id = self.keep(CONTENT, "application/x-own", 'Größe; "1"\r\n/../x.bin')

    def keep(self, content: bytes, mime_type: str, filename: str | None = None) -> str:
        (row,) = self.db.query("SELECT create_wa_media(%s, %s, %s)::text AS id", content, mime_type, filename)
        return str(row["id"])

    def move(self, media_id: str, store: str, location: str) -> str:
        """Say that a file's bytes are elsewhere; their key there."""
        (row,) = self.db.query(
            "UPDATE wa_media_blobs b SET store = %s, location = %s FROM wa_media m"
            " WHERE m.id = %s AND b.id = m.blob_id RETURNING b.organization_id || '/' || b.id AS key",
            store,
            location,
            media_id,
        )
        return str(row["key"])

    def link(self, max_access: int = 1, media_id: str | None = None) -> str:
        (row,) = self.db.query(
            "SELECT path FROM create_wa_media_signature(%s::uuid, %s)", media_id or self.media_id, max_access
        )
        return str(row["path"])

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def accesses(self, path: str) -> int:
        link_id = path.split("/")[-1].split("?")[0]
        (row,) = self.db.query("SELECT access_count AS n FROM wa_media_signatures WHERE id = %s", link_id)
        return int(row["n"])


@pytest.fixture
def served(db: Database, make_role: Callable[..., str]) -> Iterator[Served]:
    made = Served(db, make_role("wa_receiver"))
    yield made
    made.http.close()
    made.process.kill()


def test_a_file_comes_whole_with_headers_that_keep_it_from_acting(served: Served) -> None:
    answer = served.get(served.link())
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "application/x-own"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, no-store"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"] == "attachment; filename=\"x.bin\"; filename*=UTF-8''x.bin"
    (row,) = served.db.query("SELECT meta FROM audit_log WHERE event = 'media_opened'")
    assert row["meta"]["source"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("mime_type", "disposition"),
    [
        ("image/png", "inline"),
        ("audio/ogg; codecs=opus", "inline"),
        ("video/mp4", "inline"),
        ("text/html", "attachment"),
        ("application/pdf", "attachment"),
        ("application/xhtml+xml", "attachment"),
    ],
)
def test_nothing_is_shown_in_its_place_that_could_act(
    served: Served, mime_type: str, disposition: str
) -> None:
    answer = served.get(served.link(media_id=served.keep(b"<script>", mime_type, "Übersicht.x")))
    shown = "%C3%9Cbersicht.x"
    assert (
        answer.headers["content-disposition"]
        == f"{disposition}; filename=\"_bersicht.x\"; filename*=UTF-8''{shown}"
    )
    assert answer.headers["content-type"] == mime_type


@pytest.mark.parametrize(
    ("asked", "first", "after"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1999999", 100, 2_000_000),
        ("bytes=1048570-1048580", 1_048_570, 1_048_581),
        ("bytes=2499999-", 2_499_999, 2_500_000),
        ("bytes=2000000-99999999", 2_000_000, 2_500_000),
        ("bytes=-5", 2_499_995, 2_500_000),
        ("bytes=-99999999", 0, 2_500_000),
    ],
)
def test_parts_are_given(served: Served, asked: str, first: int, after: int) -> None:
    answer = served.get(served.link(), range=asked)
    assert (answer.status_code, answer.content) == (206, CONTENT[first:after])
    assert answer.headers["content-range"] == f"bytes {first}-{after - 1}/2500000"


def test_a_part_that_is_not_there_costs_nothing(served: Served) -> None:
    path = served.link()
    answer = served.get(path, range="bytes=2500000-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2500000")
    assert served.get(path, range="bytes=-0").status_code == 416
    assert served.accesses(path) == 0


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=0-1,5-6", "pages=1-2", "bytes=x-", "bytes=0-1" + "9" * 99]
)
def test_what_is_no_part_is_the_whole(served: Served, asked: str) -> None:
    answer = served.get(served.link(), range=asked)
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_a_look_does_not_count_and_who_has_it_is_told_so(served: Served) -> None:
    path = served.link()
    head = served.http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "2500000", b"")
    same = served.get(path, if_none_match=head.headers["etag"])
    assert (same.status_code, same.content) == (304, b"")
    assert served.accesses(path) == 0
    part = served.get(path, range="bytes=0-9", if_range=head.headers["etag"])
    assert (part.status_code, len(part.content)) == (206, 10)
    whole = served.get(served.link(), range="bytes=0-9", if_range='"another"')
    assert (whole.status_code, len(whole.content)) == (200, len(CONTENT))


def test_a_player_that_asks_for_part_after_part_opens_a_link_once(served: Served) -> None:
    path = served.link()
    # As Safari does it: the first bytes, all of them in a part, then a place further on.
    for asked in ("bytes=0-1", "bytes=0-2499999", "bytes=1200000-"):
        assert served.get(path, range=asked, user_agent="Player").status_code == 206
    assert served.accesses(path) == 1
    assert served.get(path, range="bytes=0-1", user_agent="Another").status_code == 410
    assert served.get(path, user_agent="Player").status_code == 410
    (row,) = served.db.query("SELECT count(*) AS n FROM audit_log WHERE event = 'media_opened'")
    assert row == {"n": 1}


def test_of_fifty_who_ask_at_once_for_a_single_use_one_succeeds(served: Served) -> None:
    path = served.link()

    async def ask_all() -> Counter[tuple[int, bytes]]:
        async with httpx.AsyncClient(base_url=served.base, timeout=120) as client:
            answers = await asyncio.gather(*(client.get(path) for _ in range(50)))
        return Counter((answer.status_code, answer.content) for answer in answers)

    assert asyncio.run(ask_all()) == {(200, CONTENT): 1, (410, b"the link is used up"): 49}
    assert served.accesses(path) == 1


def test_a_link_that_gives_nothing_says_no_more_than_it_must(served: Served) -> None:
    path = served.link()
    link_id = path.split("/")[-1].split("?")[0]
    for wrong in (
        path + "0",
        path.split("?")[0],
        f"/api/whatsapp/media/{link_id}?token=%00",
        "/api/whatsapp/media/nonsense?token=x",
        "/api/whatsapp/media/00000000-0000-0000-0000-000000000000?token=x",
    ):
        answer = served.get(wrong)
        assert (answer.status_code, answer.text) == (404, "no such link")
    served.db.query("UPDATE wa_media_signatures SET expires_at = now()")
    assert (served.get(path).status_code, served.get(path).text) == (410, "the link has expired")
    ended = served.link()
    served.db.query("UPDATE wa_media SET expires_at = now()")
    assert (served.get(ended).status_code, served.get(ended).text) == (410, "the file is gone")
    assert served.http.post(path).status_code in (404, 405)


def test_the_api_gives_files_out_and_the_webhook_alone_does_not(
    db: Database, make_role: Callable[..., str]
) -> None:
    for only, group, status in (("api", "wa_api", 200), ("webhook", "wa_receiver", 404)):
        served = Served(db, make_role(group), "--only", only)
        try:
            assert served.get(served.link()).status_code == status
        finally:
            served.http.close()
            served.process.kill()


def test_whoever_has_a_link_locked_keeps_nobody_else_waiting(served: Served) -> None:
    locked, free = served.link(), served.link()
    link_id = locked.split("/")[-1].split("?")[0]
    with served.db.connect(autocommit=False) as app:
        app.execute("UPDATE wa_media_signatures SET expires_at = expires_at WHERE id = %s", (link_id,))
        answer = served.get(locked)
        assert (answer.status_code, answer.text) == (503, "somebody is changing the link")
        assert served.get(free).status_code == 200
    assert served.get(locked).status_code == 200


def test_one_link_does_not_take_the_places_of_others(served: Served) -> None:
    host, port = served.base.removeprefix("http://").split(":")
    # More than the system takes off the server's hands.
    large = served.keep(bytes(20_000_000), "application/x-own")
    path, other = served.link(100, large), served.link()
    slow = []
    for _ in range(8):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        slow.append(connection)
    assert served.get(path).status_code == 503
    assert served.get(other).status_code == 200
    for connection in slow:
        connection.close()
    wait_until(lambda: served.get(path).status_code == 200)


def test_who_takes_nothing_makes_room_for_others(served: Served) -> None:
    host, port = served.base.removeprefix("http://").split(":")
    large = served.keep(bytes(20_000_000), "application/x-own")
    slow = []
    for _ in range(16):
        path = served.link(100, large)
        for _ in range(8):
            connection = socket.create_connection((host, int(port)))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            slow.append(connection)
    assert {connection.recv(15) for connection in slow} == {b"HTTP/1.1 200 OK"}
    # Sooner than those are given up who keep nobody waiting.
    wait_until(lambda: served.get(served.link()).status_code == 200)
    for connection in slow:
        connection.close()


def test_locked_links_leave_connections_to_others(served: Served) -> None:
    locked = [served.link() for _ in range(100)]
    with (
        served.db.connect(autocommit=False) as app,
        httpx.Client(base_url=served.base, timeout=120, limits=httpx.Limits(max_connections=100)) as client,
        ThreadPoolExecutor(100) as pool,
    ):
        app.execute("SELECT FROM wa_media_signatures FOR UPDATE")
        free = served.link()
        asked = [pool.submit(client.get, path) for path in locked]
        assert served.get(free).status_code == 200
        assert {one.result().status_code for one in asked} == {503}


def test_logs_hold_no_token(served: Served) -> None:
    path = served.link()
    served.get(path)
    served.db.query("DELETE FROM wa_media_chunks")
    assert served.get(served.link()).status_code == 503
    served.process.signal()
    served.process.wait()
    logged = "".join(served.process.raw)
    assert "file not given out" in logged
    assert "token=" not in logged
    assert path.split("token=")[1] not in logged


def test_who_hangs_up_midway_is_not_read_for(served: Served) -> None:
    host, port = served.base.removeprefix("http://").split(":")
    path = served.link(media_id=served.keep(bytes(20_000_000), "application/x-own"))
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    # The connection is free for others again.
    assert wait_until(lambda: served.get(served.link()).content == CONTENT)


def test_a_store_that_is_away_uses_up_no_link(served: Served, tmp_path: Path) -> None:
    key = served.move(served.media_id, "directory", str(tmp_path))
    path = served.link()
    assert served.get(path).status_code == 503
    assert served.accesses(path) == 0
    (tmp_path / key).parent.mkdir()
    (tmp_path / key).write_bytes(CONTENT)
    assert served.get(path).content == CONTENT
    assert served.get(path).status_code == 410


def test_other_bytes_in_the_place_of_a_file_are_not_given_out_for_it(served: Served, tmp_path: Path) -> None:
    key = served.move(served.media_id, "directory", str(tmp_path))
    (tmp_path / key).parent.mkdir()
    for wrong in (CONTENT[::-1], CONTENT[:1000]):
        (tmp_path / key).write_bytes(wrong)
        with pytest.raises(httpx.RemoteProtocolError):
            served.get(served.link())
    assert served.process.logged("file given out in part only")


def test_a_bucket_that_hangs_makes_room_for_others(db: Database, make_role: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as bucket:
        served = Served(
            db,
            make_role("wa_receiver"),
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{bucket.getsockname()[1]}",
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION="us-east-1",
        )
        host, port = served.base.removeprefix("http://").split(":")
        hanging = served.keep(b"%PDF-1.4 elsewhere", "application/pdf")
        served.move(hanging, "s3", "s3://files")
        asked = []
        for _ in range(16):
            path = served.link(100, hanging)
            for _ in range(8):
                asked.append(socket.create_connection((host, int(port))))
                asked[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # Sooner than the bucket is given up.
        wait_until(lambda: served.get(served.link()).status_code == 200)
        for one in asked:
            one.close()
        served.http.close()
        served.process.kill()
