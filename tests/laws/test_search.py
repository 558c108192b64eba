"""Laws of the search for the smallest size, on made-up candidates."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kdcli.compression.budget import Throughput, TrainingBudget, plan
from kdcli.compression.search import Candidate, search
from kdcli.compression.size_grid import first_size, mlp_params, size_grid

TEACHER = 71_942
RUNGS = size_grid([(17,)], 6, TEACHER)


def promising(candidate: Any) -> bool:
    return bool(candidate.promising)


def found(good: Callable[[int, int], bool], limit: int = 99) -> list[Any]:
    """The candidates tried when `good(parameters, tried before)` says which are promising."""
    left = [limit]

    def attempt(index: int, before: int) -> Candidate | None:
        left[0] -= 1
        made = SimpleNamespace(index=index, params=RUNGS[index].n_params, promising=good(RUNGS[index].n_params, before))
        return None if left[0] < 0 else made  # type: ignore[return-value]

    tried: list[Any] = []
    search(RUNGS, first_size(RUNGS, TEACHER), attempt, promising, tried)
    return tried


def test_the_ladder_is_smaller_than_the_teacher() -> None:
    """Law: rungs grow, start with linear, and have at most half of the teacher's parameters."""
    sizes = [architecture.n_params for architecture in RUNGS]
    assert sizes == sorted(sizes)
    assert RUNGS[0].student == "linear"
    assert sizes[-1] <= TEACHER / 2
    assert mlp_params(17, (256, 256), 6) == TEACHER
    assert RUNGS[first_size(RUNGS, TEACHER)].n_params <= TEACHER / 30


@pytest.mark.parametrize("least", [architecture.n_params for architecture in RUNGS if architecture.n_params < 6000])
def test_the_smallest_promising_size_is_found(least: int) -> None:
    """Law: where every size from one on is promising, that one is found, in few attempts."""
    tried = found(lambda params, _: params >= least)
    assert min(c.params for c in tried if c.promising) == least
    assert len(tried) <= 9


def test_linear_that_is_enough_ends_the_search() -> None:
    """Law: nothing is trained below the smallest."""
    assert [c.index for c in found(lambda *_: True)] == [0]


def test_images_begin_where_students_can_see() -> None:
    """Law: without a linear rung the search begins at the first size, and still reaches the smallest."""
    architectures, asked = size_grid([(4, 84, 84)], 6, 866_439), []
    first = first_size(architectures, 866_439)

    def attempt(index: int, before: int) -> Candidate | None:
        asked.append(index)
        return SimpleNamespace(index=index, promising=True)  # type: ignore[return-value]

    search(architectures, first, attempt, promising, [])
    assert asked[0] == first > 1
    assert asked[-1] == 0


def test_what_failed_gets_another_attempt() -> None:
    """Law: a size that succeeds only the second time is found."""
    tried = found(lambda params, before: params >= 1000 or (params > 400 and before > 0))
    assert min(c.params for c in tried if c.promising) < 500


def test_hopeless_teachers_end_too() -> None:
    """Law: where nothing is promising, the search ends by itself."""
    assert 0 < len(found(lambda *_: False)) <= 12


def test_no_time_ends_the_search() -> None:
    """Law: when the time is over, what was tried is returned."""
    assert len(found(lambda params, _: params >= 600, limit=3)) == 3


def test_what_does_not_hold_sends_the_search_up() -> None:
    """Law: a promising size that turns out not to hold is as one that failed; a larger one is looked for."""
    tried: list[Any] = []

    def attempt(index: int, before: int) -> Candidate | None:
        return SimpleNamespace(index=index, promising=RUNGS[index].n_params >= 600)  # type: ignore[return-value]

    search(RUNGS, first_size(RUNGS, TEACHER), attempt, lambda one: RUNGS[one.index].n_params >= 3000, tried)
    held = [RUNGS[one.index].n_params for one in tried if RUNGS[one.index].n_params >= 3000]
    assert min(held) == min(rung.n_params for rung in RUNGS if rung.n_params >= 3000)


def test_the_ladder_of_images_is_convolutional() -> None:
    """Law: for images the rungs are convolutions of growing width, at most half the teacher's parameters."""
    architectures = size_grid([(4, 84, 84)], 6, 866_439)
    sizes = [architecture.n_params for architecture in architectures]
    assert sizes == sorted(sizes)
    assert all(architecture.student.startswith("cnn:") for architecture in architectures)
    assert sizes[-1] <= 866_439 / 2
    assert sizes[0] < 866_439 / 100


def test_a_lesson_fits_its_time() -> None:
    """Law: where a step costs little a student gets what it needs; where it costs much, what time allows."""
    quick = plan(Throughput(steps=5_000, updates=400, length=1_000), 40)
    assert (quick.labels, quick.updates, quick.rounds, quick.judged) == (50_000, 6_400, 16, 4)
    assert plan(Throughput(steps=5_000, updates=400, length=1_000), 1) == TrainingBudget(4_000, 3_000, 16, 4)
    images = Throughput(steps=500, updates=20, length=1_700)
    slow = plan(images, 60)
    assert (slow.labels, slow.updates, slow.rounds, slow.judged) == (7_500, 600, 4, 2)
    assert slow.rounds * slow.judged * images.length / images.steps < 30
    assert plan(images, 1e5) == TrainingBudget(150_000, 120_000, 16, 24)


def test_quick_rungs_look_at_fewer_places() -> None:
    """Law: where quick ones are asked for, every width comes with wide strides, too, still in order; not for boards."""
    architectures = size_grid([(4, 84, 84)], 6, 866_439, quick=True)
    sizes, usual = [architecture.n_params for architecture in architectures], size_grid([(4, 84, 84)], 6, 866_439)
    assert sizes == sorted(sizes)
    assert {architecture.student for architecture in usual} < {architecture.student for architecture in architectures}
    assert "cnn:8x16x16,hidden=128,strides=8x2x1" in {architecture.student for architecture in architectures}
    assert size_grid([(4, 10, 10)], 6, 866_439, quick=True) == size_grid([(4, 10, 10)], 6, 866_439)


@pytest.mark.parametrize(
    ("input_shapes", "begin", "kind"), [([(4,)], "linear", "gru:"), ([(3, 80, 80)], "gru:", "gru:")]
)
def test_the_ladder_of_who_remembers_remembers(input_shapes: list[tuple[int, ...]], begin: str, kind: str) -> None:
    """Law: students of a teacher with memory have memory, in growing sizes; the linear one is tried still."""
    architectures = size_grid(input_shapes, 3, 800_000, memory=True)
    sizes = [architecture.n_params for architecture in architectures]
    assert sizes == sorted(sizes)
    assert architectures[0].student.startswith(begin)
    assert len(architectures) > 5
    assert all(architecture.student.startswith(kind) for architecture in architectures[1:])
