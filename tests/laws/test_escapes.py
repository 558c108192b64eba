"""What a file says, on a screen and on pages: nothing in it steers either."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_teachers import choose_teacher

from kdcli.agents import store
from kdcli.cli.console import Console, aligned
from kdcli.cli.main import main
from kdcli.cli.progress_view import Bars
from kdcli.compression.summary import summary
from kdcli.escapes import markdown, markdown_cell, printable
from kdcli.progress import Event, Note
from kdcli.reports.markdown import table
from kdcli.reports.table import Table
from kdcli.studies.markdown import page

RAW = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\u200b\U000e0041"
MARKUP = "<img src=x onerror=1> [a](http://e.com) `code` **b** | cell |\n# heading\n- item"
NAME = f"# {RAW} {MARKUP}"


def unsafe(text: str) -> list[str]:
    """Signs that draw nothing and may steer; lines and tabs are a page's own."""
    return [
        hex(ord(sign)) for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co") and sign not in "\n\t"
    ]


def markup(page: str) -> list[str]:
    """What the hostile name would be read as, were it raw."""
    return re.findall(r"(?m)(?<!\\)<img|(?<!\\)\[a\]|(?<!\\)`code|^# heading|^- item|(?<!\\)\*\*b|:(?=//e)|^#+ #", page)


@given(st.text())
def test_nothing_unprintable_is_shown(text: str) -> None:
    """Law: control, format, private and half signs are spelled out in every text, for a screen and for a page."""
    assert not unsafe(printable(text))
    assert not unsafe(markdown(text))
    assert "\n" not in markdown(text)


@given(st.text(alphabet="abc _-0123.,:()/é漢"))
def test_plain_words_stay_as_they_are(text: str) -> None:
    """Law: what steers nothing is left alone on a screen: accents, other scripts, blanks."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# a", "\\# a"),
        ("#1 of 3", "#1 of 3"),
        ("-1.5", "-1.5"),
        ("- a", "\\- a"),
        ("---", "\\---"),
        ("1. a", "1\\. a"),
        ("1.5", "1.5"),
        ("ppo_CartPole_v1", "ppo_CartPole_v1"),
        ("_a_", "\\_a\\_"),
        ("a < b & c", "a \\< b & c"),
        ("&lt;", "\\&lt;"),
        ("a\nb", "a b"),
    ],
)
def test_markdown_reads_as_it_is(text: str, shown: str) -> None:
    """Law: only what is markup where it stands is escaped, so that a page is readable as text, too."""
    assert markdown(text) == shown


def _inspect(folder: Path) -> str:
    return _screen("inspect", str(folder / "t.safetensors"))


def _benched(folder: Path) -> str:
    return _screen("bench", str(folder / "t.safetensors"), *QUICK.split())


def _bench_page(folder: Path) -> str:
    _screen("bench", str(folder / "t.safetensors"), *QUICK.split(), "-o", str(folder / "x.md"))
    return (folder / "x.md").read_text()


def _c(folder: Path) -> str:
    _screen("export", str(folder / "t.safetensors"), "--format", "c", "-o", str(folder / "p.c"))
    return "".join(file.read_text() for file in sorted(folder.glob("p*.[ch]")))


def _numpy(folder: Path) -> str:
    _screen("export", str(folder / "t.safetensors"), "--format", "numpy", "-o", str(folder / "p.npz"))
    return (folder / "p.py").read_text()


def _refusal(folder: Path) -> str:
    (folder / f"{RAW}.zip").write_bytes(b"no")
    return _screen("inspect", str(folder / f"{RAW}.zip")) + _screen("--debug", "inspect", str(folder / f"{RAW}.zip"))


def _bars(folder: Path) -> str:
    out = io.StringIO()
    bars = Bars(out)
    bars(Note(NAME))
    bars(Event(NAME, 1, 2, {"name": NAME}))
    bars.close()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", out.getvalue())  # the bar's own


def _rows(folder: Path) -> str:
    return aligned([("name", "value"), (RAW, 1)]) + table(Table(("name", "value"), [(NAME, "1")]))


def _summary(folder: Path) -> str:
    score = {"score": 1.0, "low": 1.0, "high": 1.0, "min_score": 0.9, "n": 4}
    row = {
        "student": NAME,
        "params": 1,
        "screening": score,
        "promising": True,
        "seconds": 1.0,
        "distill": {"labels": 1},
    }
    answer = {
        "teacher": NAME,
        "student": NAME,
        "params": [10, 5],
        "minimal": False,
        "times_fewer": 2.0,
        "score": score,
        "verdict": "holds",
        "targets": [],
        "tried": [row],
        "proofs": [{"student": NAME, "verdict": "holds", "comparison": {**score, "confidence": 0.975}}],
    }
    _screen("bench", str(folder / "t.safetensors"), *QUICK.split(), "-o", str(folder / "b.json"))
    return summary(answer, json.loads((folder / "b.json").read_text()))


def _study(folder: Path) -> str:
    row = {"variant": NAME, "score": None, "reason": NAME}
    env = {"id": NAME, "kwargs": {NAME: NAME}, "wrappers": [NAME]}
    teacher = {"name": NAME, "env": env, "params": 1, "return": 1.0, "random": 0.0, "rows": [row]}
    numbers = {"seeds": 1, "episodes": 4, "confidence": 0.95, "cells": {"there": 1, "total": 1}}
    return page({"name": NAME, "base": {"student": NAME}, "teachers": [teacher], "overall": [], **numbers})


QUICK = "--episodes 2 --latency-budget 0s --no-baselines"
WRITERS: dict[str, Callable[[Path], str]] = {
    "inspect": _inspect,
    "bench": _benched,
    "bench as a page": _bench_page,
    "summary": _summary,
    "study": _study,
    "C": _c,
    "numpy": _numpy,
    "refusal": _refusal,
    "bars": _bars,
    "tables": _rows,
}
PAGES = ("bench as a page", "summary", "study")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _screen(*words: str) -> str:
    """Both streams of a command on a terminal, without the colors that the table itself draws."""
    out, err = _Terminal(), io.StringIO()
    main(words, Console(out, err))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()) + err.getvalue()


@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_lets_a_name_steer(writer: str, tmp_path: Path) -> None:
    """Law: of an agent with a hostile name, on a hostile path, every screen and page shows text alone."""
    folder = tmp_path / "a\u202eb"
    folder.mkdir()
    agent = choose_teacher(8)
    store.save(folder / "t.safetensors", replace(agent, name=NAME, facts={"algorithm": NAME, "student": NAME}), {})
    written = WRITERS[writer](folder)
    assert written
    assert not unsafe(written)
    assert writer not in PAGES or not markup(written)


def test_cells_are_not_lines() -> None:
    """Law: what begins a cell begins no line, and keeps its numbers and signs."""
    assert markdown_cell("- ") == "-"
    assert markdown_cell("a|b") == "a\\|b"
