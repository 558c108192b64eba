"""stdout is the answer, stderr the conversation, and a bar moves only where somebody watches."""

from __future__ import annotations

import io
import json
import os
import pty
import threading
from collections.abc import Callable

import pytest
from ran import Ran, Terminal

from kdcli.cli.console import Console, aligned, printable
from kdcli.cli.progress_view import Bars, Lines
from kdcli.progress import Event, Note


def test_json_is_one_document(kdcli: Callable[..., Ran]) -> None:
    """Law: --json puts exactly one JSON object on stdout, with its schema; a number that is not finite is null."""
    ran = kdcli("flood", "--json")
    data = json.loads(ran.out)
    assert (data["schema"], data["correlation"], len(data["rows"])) == ("fake.flood/1", None, 3001)
    assert ran.err == ""


def test_a_piped_table_is_whole(kdcli: Callable[..., Ran]) -> None:
    """Law: away from a terminal a table is plain text, one line a row, nothing cut, no escape codes."""
    lines = kdcli("flood").out.splitlines()
    assert len(lines) == 3001
    assert lines[0].split() == ["name", "latency_us"]
    assert lines[8].split() == ["student-7-" + "long" * 40, "1.0"]
    assert not any("\x1b" in line or "…" in line for line in lines)


def test_numbers_stand_to_the_right() -> None:
    """Law: columns of numbers line up at their right end, words at their left."""
    assert aligned([("name", "n"), ("a", 5), ("long", -12.5)]) == "name      n\na         5\nlong  -12.5"


@pytest.mark.parametrize("rows", [[], [("a [b]", 1), ("x" * 200, 22)]])
def test_a_table_on_a_terminal(rows: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a terminal gets a drawn table that folds what is too wide and takes no text for markup."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Console(out, io.StringIO()).table(("name", "n"), rows)
    drawn = out.getvalue()
    assert "─" in drawn
    assert drawn.count("x") == (200 if rows else 0)
    assert ("a [b]" in drawn) == bool(rows)
    assert "…" not in drawn


def test_names_cannot_drive_the_terminal(kdcli: Callable[..., Ran]) -> None:
    """Law: control characters in a file's names are spelled out, and an error's line stays one line."""
    assert kdcli("end", "escape").err == "kdcli: a tensor called red\\x07 and more\n"
    assert printable("a\x1b]0;title\x07b\tc\n") == "a\\x1b]0;title\\x07b\tc\n"


@pytest.mark.parametrize(
    ("err", "quiet", "env", "live"),
    [
        (Terminal(), False, {}, True),
        (Terminal(), True, {}, False),
        (Terminal(), False, {"CI": "true"}, False),
        (Terminal(), False, {"TERM": "dumb"}, False),
        (Terminal(), False, {"NO_COLOR": "1"}, True),
        (io.StringIO(), False, {"FORCE_COLOR": "1"}, False),
        (io.StringIO(), False, {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}, False),
    ],
)
def test_when_a_bar_moves(
    err: io.StringIO, quiet: bool, env: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: only on a real terminal, outside CI, without --quiet; colour is a separate question."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert Console(io.StringIO(), err, quiet).is_live() is live


def test_a_bar_shows_stage_and_facts_and_gives_the_terminal_back() -> None:
    """Law: the bar has the stage, the share and the facts; notes stand above it; the cursor is visible afterwards."""
    err = Terminal()
    with Console(io.StringIO(), err) as console:
        console.listener(Event("distill", 2, 4, {"loss": 0.12345}))
        console.listener(Note("took [mlp]"))
        console.listener(Event("distill", 4, 4, {"loss": 0.1}))
    drawn = err.getvalue()
    for said in ("distill", "50%", "100%", "loss 0.1235", "took [mlp]\n", "loss 0.1"):
        assert said in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


def test_a_bar_has_no_thread_and_draws_seldom() -> None:
    """Law: showing progress costs next to nothing, so that it does not disturb a measured latency."""
    now, err = [0.0], Terminal()
    before = threading.active_count()
    bars = Bars(err, clock=lambda: now[0])
    for step in range(1000):
        now[0] = step / 1000
        bars(Event("bench", step, 1000))
    assert threading.active_count() == before
    assert err.getvalue().count("bench") <= 11
    bars.close()


def test_no_color_has_no_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: NO_COLOR leaves a live bar without colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    err = Terminal()
    with Console(io.StringIO(), err) as console:
        console.listener(Event("distill", 2, 4, {"loss": 0.1}))
    assert "\x1b[3" not in err.getvalue()


class Heard:
    """What Lines writes, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0.0
        self.listen = Lines(self.lines.append, clock=lambda: self.now)

    def at(self, now: float, event: Event | Note) -> list[str]:
        """The lines that `event` brings."""
        self.now, before = now, len(self.lines)
        self.listen(event)
        return self.lines[before:]


def test_a_plain_line_every_ten_seconds_and_at_each_end() -> None:
    """Law: without a terminal, a line every ten seconds and one at the end of each stage, once."""
    heard = Heard()
    assert heard.at(0, Event("play", 0, 1000)) == []
    assert heard.at(9.9, Event("play", 90, 1000)) == []
    assert heard.at(10, Event("play", 100, 1000, {"return": 1.0})) == ["play: 10% (100 of 1,000) in 10s, return 1"]
    assert heard.at(19, Event("play", 190, 1000)) == []
    assert heard.at(75, Event("play", 1000, 1000)) == ["play: 100% (1,000 of 1,000) in 1m15s"]
    assert heard.at(90, Event("play", 1000, 1000)) == []
    assert heard.at(91, Note("next")) == ["next"]
    assert heard.at(92, Event("fit", 5)) == []
    assert heard.at(93, Event("test", 1, 2)) == ["fit: 5 in 1s"]
    heard.listen.close()
    heard.listen.close()
    assert heard.lines[-2:] == ["fit: 5 in 1s", "test: 50% (1 of 2) in 0s"]


def test_quiet_keeps_errors() -> None:
    """Law: --quiet silences progress and notes, never an answer or an error."""
    out, err = io.StringIO(), io.StringIO()
    with Console(out, err, quiet=True) as console:
        console.listener(Note("advice"))
        console.listener(Event("play", 3, 3))
        console.answer("x.onnx")
        console.error(["what", "why"])
    assert (out.getvalue(), err.getvalue()) == ("x.onnx\n", "kdcli: what\nwhy\n")


def _watch(program: Callable[..., object], env: dict[str, str]) -> str:
    leader, follower = pty.openpty()
    ran = program("stray", stderr=follower, env={"TERM": "xterm", **env})
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    assert ran.communicate(timeout=20)[0] == "student.safetensors\n"  # type: ignore[attr-defined]
    return seen.decode()


@pytest.mark.parametrize(("env", "live"), [({}, True), ({"CI": "1"}, False)])
def test_on_a_real_terminal(program: Callable[..., object], env: dict[str, str], live: bool) -> None:
    """Law: the program finds out by itself whether somebody watches."""
    seen = _watch(program, env)
    assert ("\x1b[?25l" in seen) is live
    assert ("play: 100% (3 of 3)" in seen) is not live
    assert "took the small one" in seen
