"""The benchmark's arithmetic and its two checkouts; that it measures is seen by running it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bench import __main__ as command
from bench import against, arrivals, held, shapes, waiting
from bench.rounds import Bench
from bench.table import Line
from harness import CHECKOUT


class NoGround:
    """Stands in for the servers."""

    def machine(self) -> dict[str, Any]:
        return {"cpus": 2}


def bench(runs: int) -> Bench:
    return Bench(NoGround(), runs=runs, scale=1, history=0)  # type: ignore[arg-type]


def paired(ours: list[float], theirs: list[float]) -> Line:
    return Line("drain", ours, "msg/s", "main", theirs, at_least=0.95, is_paired=True)


def test_two_sides_alternate_and_each_is_first_in_turn() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], float]:
        def measure() -> float:
            order.append(name)
            return float(len(order))

        return measure

    values = bench(runs=3).rounds({"A": side("A"), "B": side("B")}, warm_up=True)
    assert "".join(order) == "AB" + "ABBAAB"
    assert values == {"A": [3, 6, 7], "B": [4, 5, 8]}


def test_a_paired_line_is_judged_by_the_median_of_its_rounds_ratios() -> None:
    # The medians' own ratio is 2.
    line = paired([100, 200, 300], [100, 100, 600])
    assert line.ratios == [1, 2, 0.5]
    assert line.reached == 1
    assert line.cells()[-3:] == ["1.00 (0.50 to 2.00)", ">= 0.95", "yes"]
    assert line.record()["ratios"] == [1, 2, 0.5]


@pytest.mark.parametrize(("ours", "verdict"), [(950, "yes"), (949, "NO")])
def test_the_target_is_95_percent(ours: float, verdict: str) -> None:
    # One slow and one fast minute decide nothing.
    line = paired([ours, 100, 3000], [1000, 1000, 1000])
    assert line.cells()[-1] == verdict
    assert line.is_good is (verdict == "yes")


def test_a_line_beside_others_keeps_the_ratio_of_its_medians() -> None:
    assert Line("drain", [100, 200, 300], "msg/s", "PgQueuer", [100, 100, 600]).reached == 2


def test_a_line_that_the_other_checkout_cannot_run_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "CHECKOUT", tmp_path)
    here = bench(runs=7)

    def figure(measure: against.Measure) -> command.Figure:
        lines = [("a line", "msg/s", measure)]
        return lambda bench: against.compare("old (1a2b3c)", NoGround(), lines, bench)  # type: ignore[arg-type]

    def only_here(_: Bench, ground: object) -> float:
        if ground is not here.ground:
            raise ValueError("column wa_message_id does not exist\nLINE 1: ...")
        return 1.0

    figures = {"webhooks": figure(only_here), "drain": figure(lambda *_: 5.0)}
    assert command.run(here, figures) == 1
    shown = capsys.readouterr()
    assert "webhooks (old (1a2b3c): column wa_message_id does not exist)" in shown.err.splitlines()[-1]
    assert "drain" not in shown.err.splitlines()[-1]
    assert "| 1.00 (1.00 to 1.00) | >= 0.95 | yes" in shown.out


def test_help_tells_how_to_compare_two_checkouts() -> None:
    text = " ".join(command.arguments().format_help().split())
    assert "--against REF" in text
    assert "drain, lanes, insert, bulk, webhooks" in text
    assert "at least 0.95" in text
    assert "with --against 7, or more" in text
    made = subprocess.run(["make", "-s", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert 'ARGS="--against REF"' in made.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--against", "main", "--rounds", "6"],
        ["--against", "main", "--only", "memory"],
        ["--against", "main", "--case", "tier"],
        ["--only", "lanes"],
        ["--only", "shapes", "--case", "tire"],
        ["--only", "arrivals", "--case", "tier"],
        ["--rounds", "0"],
    ],
    ids=" ".join,
)
def test_what_makes_no_comparison_is_refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2


def test_a_window_holds_what_is_less_than_its_length_apart() -> None:
    assert arrivals.most_within([], 1) == 0
    assert arrivals.most_within([0.0, 0.5, 1.0, 1.25, 1.5], 1) == 3
    # A second's worth at the end of one second and at the start of the next.
    assert arrivals.most_within([0.99] * 80 + [1.01] * 80, 1) == 160


def test_the_use_of_a_limit_counts_from_the_first_arrival() -> None:
    times = [100 + n / 40 for n in range(1000)]
    assert arrivals.use(times, per_s=80, seconds=10) == 50
    assert arrivals.use([], per_s=80, seconds=10) == 0


@pytest.mark.parametrize(("limit", "most"), [(20, 22), (80, 82), (500, 510)])
def test_a_limit_may_be_passed_by_two_messages_or_two_percent(limit: int, most: float) -> None:
    setting = arrivals.Setting("", limit, 1, processes=1, at_least=97)
    assert setting.at_most == most


def test_what_may_go_is_told_from_what_stands_in_front() -> None:
    names = [cause.name for cause in waiting.CAUSES] + [case.name for case in held.CASES]
    assert len(set(names)) == len(names)
    for cause in waiting.CAUSES:
        assert "'sendable'" not in cause.front
        assert "'sendable'" in cause.sendable
        assert "'sendable'" in cause.alone
        # Rows are there by an INSERT or by more than one step.
        assert bool(cause.rows) == bool(cause.front or cause.prepare)


class FakeSink:
    """Tells of arrivals, a few more each time it is asked."""

    def __init__(self, *answers: list[tuple[float, str]]) -> None:
        self.answers = list(answers)
        self.now: list[tuple[float, str]] = []

    @property
    def accepted(self) -> int:
        self.now = self.answers.pop(0) if self.answers else self.now
        return len(self.now)

    def call(self, method: str, what: str) -> dict[str, Any]:
        return {"arrivals": [{"time": at, "callback": callback} for at, callback in self.now]}


def test_arrivals_are_watched_until_all_that_is_wanted_is_there() -> None:
    others = [(1.0, "x"), (1.1, "y")]
    sink = FakeSink([], others, [*others, (1.2, "a")], [*others, (1.2, "a"), (1.3, "b")])
    seen = shapes.watch(sink, {"a", "b"}, deadline=time.time() + 60)  # type: ignore[arg-type]
    assert seen[-1] == (1.3, "b")
    stuck = shapes.watch(FakeSink(others), {"a"}, deadline=time.time())  # type: ignore[arg-type]
    assert stuck == []


def test_shapes_that_stop_everything_count_as_what_arrived() -> None:
    seen = [(11.0, "x"), (12.0, "a"), (13.0, "y"), (14.0, "b")]
    # Of the others one may go.
    assert shapes.rate(seen, {"a", "b"}, 1, began=10.0, patience=20) == (2, 3 / 4)
    assert shapes.rate(seen, {"a", "b", "c"}, 1, began=10.0, patience=20) == (2, 3 / 20)
    assert shapes.rate([], {"a"}, 0, began=10.0, patience=20) == (0, 0)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A repository with two commits; tag `old` is the first."""
    root = tmp_path / "repository"
    root.mkdir()

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    for text in ("old", "new"):
        (root / "file").write_text(text)
        git("add", "file")
        git("commit", "-q", "-m", text)
        if text == "old":
            git("tag", "old")
    yield root
    listed = subprocess.run(["git", "-C", root, "worktree", "list"], capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


def test_the_other_checkout_is_there_meanwhile(repository: Path) -> None:
    with against.worktree(repository, "old") as checkout:
        assert (checkout / "file").read_text() == "old"
        (checkout / "made-by-the-build").touch()
    assert not checkout.parent.exists()
    assert (repository / "file").read_text() == "new"


def test_the_other_checkout_goes_when_interrupted(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), against.worktree(repository, "old") as checkout:
        raise KeyboardInterrupt
    assert not checkout.parent.exists()


@pytest.mark.parametrize("ref", ["nonsense", "--force"])
def test_an_unknown_commit_is_refused(repository: Path, ref: str) -> None:
    with pytest.raises(SystemExit, match="git rev-parse"), against.worktree(repository, ref):
        pass


def test_shared_packages_do_not_bring_this_checkouts_product_along(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    other = tmp_path / "bin/pg_whatsapp"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    assert "same packages" in against.make_environment(tmp_path)
    found = subprocess.run(
        [
            tmp_path / ".venv/bin/python", "-c",
            "import psycopg, pg_whatsapp; print(pg_whatsapp.__path__[0], psycopg.__path__[0], sep='\\n')",
        ],
        env={}, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert found == [str(other), psycopg.__path__[0]]


def test_a_checkout_without_a_product_of_its_own_is_refused(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    with pytest.raises(SystemExit, match="does not run its own product"):
        against.make_environment(tmp_path)


def test_other_pins_or_another_version_get_packages_of_their_own(tmp_path: Path) -> None:
    ours = (CHECKOUT / "pyproject.toml").read_text()
    for old, new in (('"httpx==', '"httpx==0.'), ('version = "', 'version = "0.')):
        assert ours.count(old) >= 1
        (tmp_path / "pyproject.toml").write_text(ours.replace(old, new, 1))
        assert against.pins(tmp_path) != against.pins(CHECKOUT)
