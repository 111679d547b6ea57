"""Limits, the journal, webhook bodies and fault rules, each on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from wa_simulator.cli import simulate
from wa_simulator.errors import CODES, ControlError, GraphError
from wa_simulator.faults import Faults
from wa_simulator.journal import Entry, Journal, queue_key
from wa_simulator.limits import PAIR_BURST, PAIR_INTERVAL_S, PairRate, Throughput, Tier
from wa_simulator.settings import Settings
from wa_simulator.state import Number, State
from wa_simulator.webhooks import Atom, encode, payload, signature, status_item


def entry(wamid: str, callback: str | None = None, **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "time": 1000.0,
        "number": "1",
        "to": "+16505551234",
        "recipient": None,
        "wa_id": "16505551234",
        "wamid": wamid,
        "callback": callback,
        "type": "text",
        "category": None,
        "template": None,
        "sha256": "00",
        "statuses": ["sent"],
    }
    return Entry(**fields | more)


# limits


@given(st.lists(st.floats(0, 3), max_size=80))
def test_a_pair_never_gets_more_than_its_burst_or_its_rate(gaps: list[float]) -> None:
    pair, now, taken = PairRate(), 1000.0, []
    for gap in gaps:
        now += gap
        if pair.take("1", "2", now, 0.0):
            taken.append(now)
    for index, start in enumerate(taken):
        within = [at for at in taken[index:] if at < start + PAIR_INTERVAL_S]
        assert len(within) <= PAIR_BURST
    total = len(taken)
    if total > PAIR_BURST:
        assert taken[-1] - taken[0] >= (total - PAIR_BURST) * PAIR_INTERVAL_S


def test_the_debt_of_a_burst_is_paid_before_the_next_message() -> None:
    pair = PairRate()
    assert all(pair.take("1", "2", 1000.0 + i / 10, 0.0) for i in range(20))
    assert not pair.take("1", "2", 1000.0 + 119.9, 0.0)
    assert pair.take("1", "other", 1000.0 + 119.9, 0.0)
    assert pair.take("1", "2", 1000.0 + 120.0, 0.0)


def test_the_network_may_bunch_messages_by_the_jitter() -> None:
    regular = [1000.0 + 6 * i + (0.2 if i % 2 else 0.0) for i in range(50)]
    pair = PairRate()
    assert all(pair.take("1", "2", at, 0.25) for at in regular)
    for jitter, allowed in ((0.25, True), (0.0, False)):
        pair = PairRate()
        assert [pair.take("1", "2", at, jitter) for at in (1000.0, 1001.0, 1011.8)] == [True, True, allowed]


@given(st.lists(st.floats(0, 0.2), max_size=200), st.integers(1, 40))
def test_a_number_never_gets_more_than_two_seconds_worth_in_one(gaps: list[float], rate: int) -> None:
    bucket, now, taken = Throughput(), 1000.0, []
    for gap in gaps:
        now += gap
        if bucket.take("1", rate, now, 0.0):
            taken.append(now)
    for index, start in enumerate(taken):
        within = sum(1 for at in taken[index:] if at <= start + 1.0)
        assert within <= 2 * rate + 1


def test_the_tier_counts_unique_customers_of_a_day() -> None:
    tier = Tier()
    assert [tier.take("p", customer, 2, 0.0) for customer in "abac"] == [True, True, True, False]
    assert tier.take("q", "c", 2, 0.0)
    assert tier.take("p", "a", 2, 3600.0)
    assert tier.take("p", "c", 2, 86400.0), "b was a day ago"
    assert not tier.take("p", "b", 2, 86400.0), "a was written to again, so it still counts"


# journal


@pytest.mark.parametrize(
    ("callback", "key"),
    [
        ("01890a5d-ac96-774b-bcce-b302099a8057:3", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("wa/01890A5D-AC96-774B-BCCE-B302099A8057/3", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ("q:42:1", "q:42"),
        ("plain", "plain"),
    ],
)
def test_attempts_of_one_queue_row_are_told_apart_from_others(callback: str, key: str) -> None:
    assert queue_key(callback) == key


def test_the_journal_is_read_again_and_forgets_a_torn_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept(entry("a", "q:1:1"))
    journal.accept(entry("b", "q:1:2", to=None, wa_id=None, recipient="US.1"))
    journal.accept(entry("c"))
    journal.delivered("a", "sent")
    journal.close()
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"wamid": "d", "ti')
    again = Journal(tmp_path)
    again.accept(entry("e"))
    again.close()
    last = Journal(tmp_path)
    assert [one.wamid for one in last.entries] == ["a", "b", "c", "e"]
    assert [one.wamid for one, _ in last.undelivered()] == ["b", "c", "e"]
    assert [one.wamid for one in last.find(to="+1 650 555 1234")] == ["a", "c", "e"]
    assert [one.wamid for one in last.find(to="US.1")] == ["b"]
    summary = last.summary(last.entries)
    assert (summary["accepted"], summary["distinct"], summary["without_callback"]) == (4, 3, 2)
    assert summary["duplicates"] == {"q:1": 2}
    assert summary["same_attempt_twice"] == {}
    last.close()


def test_the_state_is_read_again(tmp_path: Path) -> None:
    settings = Settings()
    state = State(tmp_path, settings)
    state.register_number({"phone_number_id": "7", "display_phone": "+1 555 0100", "waba_id": "70"})
    state.put_template("70", {"name": "t", "language": "de", "status": "PAUSED"})
    customer = state.customer("16505551234", None, "Eva")
    assert state.customer("16505551234", "US.1") is customer
    state.change("inbound", key=state.key_of(customer), number="7", at=5.0, message_id="wamid.1")
    state.change("customer_changed", key=state.key_of(customer), wa_id="16505559999", user_id="US.2")
    state.close()
    again = State(tmp_path, Settings())
    assert again.numbers == {"7": Number("7", "15550100", "70")}
    found = again.template(again.numbers["7"], "t", "de")
    assert found is not None
    assert found.status == "PAUSED"
    assert again.find_customer("16505551234", "US.1") is None
    eva = again.find_customer("16505559999", None)
    assert eva is not None
    assert eva is again.find_customer(None, "US.2")
    assert (eva.name, eva.windows) == ("Eva", {"7": 5.0})
    assert again.message_ids == {"wamid.1"}
    assert again.put_template("70", {"name": "u"}).id != found.id
    again.close()


def test_a_user_id_joins_what_was_known_by_phone_and_by_id(tmp_path: Path) -> None:
    state = State(tmp_path, Settings())
    by_phone, by_id = state.customer("16505551234", None), state.customer(None, "US.1")
    state.change("inbound", key="US.1", number="7", at=9.0, message_id=None)
    assert by_phone is not by_id
    joined = state.customer("16505551234", "US.1")
    assert state.find_customer(None, "US.1") is joined
    assert joined.windows == {"7": 9.0}
    state.close()


# webhooks


def status(number: Number, wamid: str, settings: Settings | None = None, name: str = "sent") -> Atom:
    item = status_item(entry(wamid), name, 2000.0, settings or Settings(), None, in_window=False)
    return Atom("70", "messages", "statuses", item, number, None, wamid, name)


def test_a_batch_shares_entries_and_values() -> None:
    first, second = Number("1", "15550100"), Number("2", "15550200")
    account = Atom("71", "account_update", None, {"event": "ACCOUNT_DELETED"})
    body = payload([status(first, "a"), status(first, "b"), status(second, "c"), account])
    assert [item["id"] for item in body["entry"]] == ["70", "71"]
    values = [change["value"] for change in body["entry"][0]["changes"]]
    assert [[item["id"] for item in value["statuses"]] for value in values] == [["a", "b"], ["c"]]
    assert values[1]["metadata"] == {"display_phone_number": "15550200", "phone_number_id": "2"}
    assert isinstance(body["entry"][1]["time"], int)


def test_the_older_shape_has_conversations() -> None:
    number, settings = Number("1"), Settings(shape="v23", pricing_on="delivered")
    sent = status(number, "a", settings).item
    delivered = status(number, "a", settings, "delivered").item
    assert sent["conversation"]["expiration_timestamp"] == str(2000 + 24 * 3600)
    assert "expiration_timestamp" not in delivered["conversation"]
    assert ("pricing" in sent, "pricing" in delivered) == (False, True)
    assert "conversation" not in status(number, "a").item


@given(st.text())
def test_bodies_are_ascii_and_say_the_same(text: str) -> None:
    body = {"object": "x", "entry": [{"text": text, "url": "https://x"}]}
    for escape in (False, True):
        raw = encode(body, escape_slashes=escape)
        assert raw.isascii()
        assert json.loads(raw) == body


def test_the_signature_is_hmac_sha256() -> None:
    # RFC 4231, test case 2
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature("Jefe", b"what do ya want for nothing?") == f"sha256={expected}"


# errors, faults, settings, command line


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_its_status_and_shape(code: int) -> None:
    answer = GraphError(code, "why").response()
    error = json.loads(answer.body)["error"]
    assert answer.status == CODES[code][0]
    assert (error["code"], error["type"], error["error_data"]["details"]) == (code, "OAuthException", "why")


def test_throttling_may_be_answered_with_429() -> None:
    assert GraphError(130429, "x").response(throttle_status=429, retry_after=0.2).status == 429
    assert b"Retry-After: 1\r\n" in GraphError(131056, "x").response(retry_after=0.2).head
    assert GraphError(131047, "x").response(throttle_status=429).status == 400


def test_the_first_rule_that_hits_wins() -> None:
    faults = Faults()
    faults.add({"mode": "pair", "to": "+1 650", "next": 1})
    faults.add({"mode": "slow"})
    rule = faults.pick("1", "1650")
    assert rule is not None
    faults.hit(rule)
    assert rule.mode == "pair"
    slow = faults.pick("1", "1650")
    assert slow is not None
    assert (slow.mode, slow.seconds) == ("slow", 2.0)
    assert faults.remove(slow.id) == 1
    assert faults.pick("1", None) is None
    assert faults.hits == {"pair": 1}


def test_settings_change_together_or_not_at_all() -> None:
    settings = Settings()
    with pytest.raises(ControlError, match="shuffle"):
        settings.update({"batch_max": 5, "shuffle": 2})
    assert settings.batch_max == 1
    settings.update(settings.model_dump())
    assert settings == Settings()


@pytest.mark.parametrize(
    "arguments", [["--set", "window"], ["--set", "window=never"], ["--port", "many"], ["--what"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(simulate, arguments).exit_code == 2
