"""A record of a benchmark as people see it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from test_benchmarks import of_three

from kdcli.benchmarks.record import to_json
from kdcli.cli.console import Console
from kdcli.reports.gates import Gate, judge
from kdcli.reports.markdown import markdown
from kdcli.reports.notes import notes
from kdcli.reports.table import Table, gates, machine_line, number, quality, speed, title


@pytest.fixture
def record() -> dict[str, Any]:
    return copy.deepcopy(to_json(of_three()))


def cells(table: Table) -> dict[str, dict[str, str]]:
    """Row name -> column -> cell."""
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_the_title_says_how_it_was_played(record: dict[str, Any]) -> None:
    """Law: env, episodes, seeds, play mode and cap are in the title of every report."""
    text = "kdcli/Reach-v0: 120 episodes (seeds 10000 to 10119), deterministic play, cut at 50 steps"
    assert title(record) == text
    assert markdown(record).startswith(f"### {text}\n")
    record["play"]["mode"] = "sampled"
    assert "sampled play" in title(record)


def test_quality_shows_every_contender_and_random(record: dict[str, Any]) -> None:
    """Law: a row each, the reference at score 1, random at 0 and shown unless baselines are dropped."""
    shown = cells(quality(record))
    assert list(shown) == ["teacher", "small", "idle", "random"]
    assert [row["verdict"] for row in shown.values()] == ["reference", "holds", "fails", "baseline"]
    assert (shown["teacher"]["score [95%]"], shown["random"]["score [95%]"]) == ("1", "0")
    assert shown["small"]["score [95%]"].startswith("1.000 [0.9")
    record["random"]["shown"] = False
    assert "random" not in cells(quality(record))


def test_a_column_without_a_number_is_left_out(record: dict[str, Any]) -> None:
    """Law: no column of dashes: without timing there are no times, without distributions no KL."""
    assert "KL" not in quality(record).columns or any(row["KL"] != "-" for row in cells(quality(record)).values())
    record["timing"] = None
    for entry in record["contenders"]:
        entry["latency"] = {"torch": None, "onnxruntime": None}
        entry["speedup"] = dict.fromkeys(entry["speedup"])
    assert speed(record).columns == ["agent", "params", "fewer", "mult-adds", "ONNX bytes"]
    assert machine_line(record) == ""
    assert not any("us" in note.split() for note in notes(record))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_tables_fit_a_terminal(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: with long names and numbers both tables fit 120 columns: no cell is folded, every row is one line."""
    monkeypatch.setenv("COLUMNS", "120")
    for entry in record["contenders"]:
        entry["name"] = f"{entry['name']:x<20}"
        entry["size"] |= {"params": 1_234_567, "multiply_adds": 1_234_567, "onnx_bytes": 4_900_000}
        entry["speedup"]["architecture"] = 1.25
        entry["latency"]["onnxruntime"] = {"p50_us": 7.123, "p99_us": 24.35, "throughput_256": 10_234_567}
        entry["return"] |= {"mean": -264.91, "low": -270.82, "high": -258.31, "iqm": -263.81, "minimum": -1218.9}
    for table in (quality(record), speed(record)):
        screen = Terminal()
        Console(screen).table(*table.padded())
        lines = [line for line in screen.getvalue().splitlines() if line.strip()]
        assert len(lines) == len(table.rows) + 2


def test_numbers_are_to_the_right_under_their_heads(record: dict[str, Any]) -> None:
    """Law: in plain text every line of a table ends its numbers in the same column, absent ones too."""
    columns, rows = speed(record).padded()
    for column in list(zip(columns, *rows, strict=True))[1:]:
        assert len({len(cell) for cell in column}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.98765, "0.988"),
        (-12.345, "-12.35"),
        (123.45, "123.5"),
        (12345.6, "12,346"),
        (0.0012, "0.0012"),
    ],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    """Law: as many digits as an episode's noise leaves meaning in."""
    assert number(value) == text


def test_notes_explain_the_verdict(record: dict[str, Any]) -> None:
    """Law: verdict, rule, correlation and what would decide are under the table; so is how the speed came about."""
    said = notes(record)
    assert said[0].startswith(
        "small: holds, the whole interval of the score is above 0.95 (by falls that 120 episodes may have missed)"
    )
    assert said[0].endswith("correlation with teacher 1.00")
    assert said[1].startswith("small's worst 5 % of episodes return -")
    assert (
        "120 episodes can miss falls in up to 3.6 % of all; scores allow for that down to a return of -800"
        in " ".join(said)
    )
    assert any(note.startswith("small in onnxruntime is") and "x from the runtime" in note for note in said)
    assert any(note.startswith("onnxruntime's own empty call takes") for note in said)
    record["contenders"][1]["score"] |= {"verdict": "undecided", "more_episodes": 14_315, "n": 100}
    assert notes(record)[0].endswith("--episodes 15000 would decide")


def test_a_slower_student_is_said_to_be(record: dict[str, Any]) -> None:
    """Law: an agent that is slower than the reference is named as that; noise of 5 % is not."""
    slower = "small is slower than teacher in onnxruntime: 0.80 times its speed"
    record["contenders"][1]["speedup"]["architecture"] = 0.8
    assert slower in notes(record)
    record["contenders"][1]["speedup"]["architecture"] = 0.96
    assert not any("slower" in note for note in notes(record))


def test_other_notes(record: dict[str, Any]) -> None:
    """Law: critics that were not counted, a second timing, a busy machine and a lone agent are mentioned."""
    record["contenders"][0]["size"]["total_params"] = 9155
    record["timing"]["repeated"], record["machine"] = True, {**record["machine"], "load": 9.5, "cores": 2}
    said = "\n".join(notes(record))
    assert "teacher's checkpoint has 9,155 parameters; only the 257 that act are counted" in said
    assert "second measurement" in said
    assert "busy (load 9.5 on 2 cores)" in said
    record["contenders"] = record["contenders"][:1]
    assert any("name a second agent" in note for note in notes(record))


def test_gates_have_a_table(record: dict[str, Any]) -> None:
    """Law: each gate with what was measured, its result, and why where there is something to explain."""
    outcomes = judge(record, [Gate.parse("small:params<=10"), Gate.parse("small:score>=0.5")])
    table = gates(outcomes)
    assert table.columns == ("gate", "agent", "measured", "result")
    assert table.rows[0][2:] == ("17", "failed")
    assert table.rows[1][3] == "passed"
    unclear = gates(judge(record, [Gate.parse("small:kl<=10"), Gate.parse("idle:bytes<=1")]))
    assert unclear.columns[-1] == "why"


def test_markdown_is_plain(record: dict[str, Any]) -> None:
    """Law: every row has as many cells as the head, and a name is text whatever it holds."""
    record["contenders"][1]["name"] = "a|b *c* <img src=x>\n[d](e)"
    text = markdown(record, judge(record, [Gate.parse("params<=10")]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in rows}
    assert widths == {len(quality(record).columns) + 1, len(speed(record).columns) + 1, 5}
    assert "<img" not in text.replace("\\<", "")
    assert "a\\|b \\*c\\* \\<img src=x> \\[d](e)" in text
    assert text.count("\n\n|") == 3
