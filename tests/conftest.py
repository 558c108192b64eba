"""What every test starts from: one thread, since sums in another order differ, and the same random numbers."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
# The same examples in every run: what one change passes, the next does not fail by chance.
hypothesis.settings.register_profile("same", derandomize=True, database=None)
hypothesis.settings.load_profile("same")
# Of a test with more cases than this, the default run tries so many, evenly spread; the slow run tries the others.
CASES = 8


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what lies between the evenly spread cases of a long parametrization."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("whole"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for group in cases.values():
        kept = {index * len(group) // CASES for index in range(CASES)}
        for index, item in enumerate(group):
            if len(group) > CASES and index not in kept:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(1)
