"""Agents of every kind, built by Stable-Baselines3, act alike in kdcli and in the file it exports.

`pytest tests/matrix -m '' -s` prints the whole table; KDCLI_MATRIX names a file that it is appended to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matrix.cells import ALGORITHMS, ANY_ACTION, HEADER, OBSERVATIONS, QUICK, Cell, Row, bench, cells, summary

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """The rows; printed, and written where KDCLI_MATRIX says."""
    found: list[Row] = []
    yield found
    lines = [HEADER, *map(str, found), summary(found)]
    print("", *lines, sep="\n")
    if "KDCLI_MATRIX" in os.environ:
        with Path(os.environ["KDCLI_MATRIX"]).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


@pytest.mark.parametrize("cell", QUICK, ids=str)
def test_cells(cell: Cell, tmp_path: Path, table: list[Row]) -> None:
    """Law: on 1,000 observations, alone and in batches, kdcli and its ONNX file do what `predict` of SB3 does."""
    _check(cell, tmp_path, table)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in cells() if cell not in QUICK], ids=str)
def test_the_other_cells(cell: Cell, tmp_path: Path, table: list[Row]) -> None:
    """Law: the same, for every other cell of the matrix."""
    _check(cell, tmp_path, table)


def _check(cell: Cell, folder: Path, table: list[Row]) -> None:
    found = list(bench(cell, folder).measure())
    table += found
    assert [row for row in found if row.mismatches] == []


def test_the_quick_cells_leave_nothing_out() -> None:
    """Law: each algorithm, action space, kind of observation and normalizer is in some cell of the default run."""
    assert set(QUICK) <= set(cells())
    assert {cell.algorithm for cell in QUICK} == ALGORITHMS.keys()
    assert {cell.action for cell in QUICK} == set(ANY_ACTION)
    assert {(cell.observation, cell.normalized) for cell in QUICK} >= {
        (observation, normalized) for observation in OBSERVATIONS for normalized in (True, False)
    }
