"""`kdcli list`, the model of a command."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ran import Ran

from kdcli.cli import list as listing
from kdcli.registry import Registry

LOSSES = Registry("loss", {"kl": ("a.b:kl", "how far [B] off"), "mse": ("a.b:mse", "squares")})
SCHEDULES = Registry("schedule", {"linear": ("a.b:linear", "a line")})


@pytest.fixture(autouse=True)
def rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rooms of this test's own."""
    monkeypatch.setattr(listing, "ROOMS", {"losses": "test_list:LOSSES", "schedules": "test_list:SCHEDULES"})


def test_one_kind_is_one_line_each(kdcli: Callable[..., Ran]) -> None:
    """Law: a kind's parts come one a line, name then help, in the table's order."""
    assert kdcli("list", "losses") == (0, "kl   how far [B] off\nmse  squares\n", "")


def test_all_kinds_are_one_table(kdcli: Callable[..., Ran]) -> None:
    """Law: without a kind every registry is shown."""
    lines = [line.split() for line in kdcli("list").out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["kind", "name"],
        ["losses", "kl"],
        ["losses", "mse"],
        ["schedules", "linear"],
    ]


def test_as_json(kdcli: Callable[..., Ran]) -> None:
    """Law: the same answer for a program."""
    schedules = {"linear": "a line"}
    assert json.loads(kdcli("list", "schedules", "--json").out) == {"schema": "kdcli.list/1", "schedules": schedules}


def test_an_unknown_kind(kdcli: Callable[..., Ran]) -> None:
    """Law: a kind that is not in the table is exit 2 with the nearest name."""
    ran = kdcli("list", "loss")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == "did you mean 'losses'?"
