"""`bin/demo` plays to its end, and leaves nothing running however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from harness import CHECKOUT
from simulated import wait_until

pytestmark = pytest.mark.slow


def start(tag: str, *args: str) -> subprocess.Popen[str]:
    """Start the demo; every process that comes of it carries the tag in its environment."""
    return subprocess.Popen(
        [CHECKOUT / "bin/demo", *args],
        env=os.environ | {"DEMO_TAG": tag},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs deaf to Ctrl-C, and so would be what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes(tag: str) -> list[Path]:
    """The directories in /proc of the processes of that demo."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"DEMO_TAG={tag}".encode() in (process / "environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def command_line(process: Path) -> str:
    """The words of its command, a NUL behind each."""
    return (process / "cmdline").read_text()


def nothing_runs(tag: str) -> bool:
    """Whether no process of that demo is left."""
    return not processes(tag)


def play_until(demo: subprocess.Popen[str], text: str) -> None:
    """Read what it prints up to a line with that text."""
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"it never printed {text!r}:\n{''.join(seen)}")


def test_it_plays_to_its_end() -> None:
    tag = uuid4().hex
    with start(tag) as demo:
        output, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, output
    assert "sent, delivered, read" in output
    assert "SQLSTATE WA101" in output
    assert "0 of them twice" in output
    assert wait_until(lambda: nothing_runs(tag))


def test_ctrl_c_ends_all_of_it() -> None:
    tag = uuid4().hex
    with start(tag) as demo:
        play_until(demo, "The shop queues templates")
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=120)
    assert demo.returncode == 128 + signal.SIGINT
    assert wait_until(lambda: nothing_runs(tag))


def test_a_kill_ends_all_of_it() -> None:
    tag = uuid4().hex
    with start(tag) as demo:
        play_until(demo, "The shop queues templates")
        demo.kill()
        demo.communicate(timeout=120)
    assert wait_until(lambda: nothing_runs(tag))


def test_a_failure_is_told_with_the_logs() -> None:
    tag = uuid4().hex
    with start(tag) as demo:
        play_until(demo, "The shop queues templates")
        (receiver,) = (process for process in processes(tag) if "\0serve\0" in command_line(process))
        os.kill(int(receiver.name), signal.SIGKILL)
        output, _ = demo.communicate(timeout=300)
    assert demo.returncode == 1
    assert "--- serve.log" in output
    assert "bin/demo: the receiver answered" in output
    assert f"bin/demo: wa serve ended with status {-signal.SIGKILL}" in output
    assert wait_until(lambda: nothing_runs(tag))
