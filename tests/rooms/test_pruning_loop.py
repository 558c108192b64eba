"""Zeros in weights, what they are worth, and rounds of cutting and recovering that stop by return."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, agent, student
from test_pruning_lossless import QUANTIZED, states_of

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.errors import UsageError
from kdcli.pruning import PACES
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.loop import Tools, prune
from kdcli.pruning.masks import masked, n_of_m, sparsest, weight_scores
from kdcli.pruning.size_targets import Budget, nonzeros
from kdcli.pruning.sparse import storage
from kdcli.pruning.unit_stats import UnitStats
from kdcli.spec import Discrete, box

CLIP, CHOOSE, FLAT = ActionRule(box((3,), -1.0, 1.0)), ActionRule(Discrete(4)), Preprocess(box((5,)))


def made(text: str = "mlp:20x10,activation=relu") -> Agent:
    return student(text, CLIP, FLAT)


def unit_stats(given: Agent, before: Agent | None = None) -> UnitStats:
    return UnitStats(given, states_of(given), before)


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "movement"])
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("name", ["net_tanh", "stack_image", "lstm"])
def test_so_many_numbers_are_left(name: str, uniform: bool, importance: str) -> None:
    """Law: as many weights as asked for are not zero, biases stay, shapes stay, and zeros stay zeros."""
    given = POLICIES[name]()
    found = unit_stats(given, before=given)
    scores = weight_scores(found, importance)
    goal = given.n_params // 2
    thin = masked(found, sparsest(found, scores, goal, uniform))
    assert thin.n_params == given.n_params
    assert goal - 8 <= nonzeros(thin) <= goal
    before, after = given.policy.network.state_dict(), thin.policy.network.state_dict()
    for key, tensor in before.items():
        assert after[key].shape == tensor.shape
        assert tensor.ndim > 1 or torch.equal(after[key], tensor)
    again = unit_stats(thin, before=given)
    sparser = masked(again, sparsest(again, weight_scores(again, importance), goal // 2 + 40, uniform))
    assert nonzeros(sparser) >= goal // 2 + 32
    zeros = [tensor == 0 for tensor in thin.policy.network.parameters()]
    assert all(bool((p[z] == 0).all()) for p, z in zip(sparser.policy.network.parameters(), zeros, strict=True))


def test_the_largest_stay() -> None:
    """Law: by magnitude, no weight that goes is larger than one that stays, in all or in each matrix."""
    found = unit_stats(made())
    for uniform in (True, False):
        masks = sparsest(found, weight_scores(found, "magnitude"), 200, uniform)
        pairs = [(found.tensors[name].abs(), mask) for name, mask in masks.items()]
        parts = (
            pairs if uniform else [tuple(torch.cat([p.flatten() for p in part]) for part in zip(*pairs, strict=True))]
        )
        assert all(float(size[~mask].max()) <= float(size[mask].min()) for size, mask in parts)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2)])
def test_n_of_m(n: int, m: int) -> None:
    """Law: of every m neighbours along the inputs the n largest stay, a shorter rest stays whole."""
    found = unit_stats(made("mlp:10x9"))
    scores = weight_scores(found, "magnitude")
    for name, mask in n_of_m(scores, n, m).items():
        width = mask.shape[1] - mask.shape[1] % m
        blocks = mask[:, :width].reshape(len(mask), -1, m)
        assert bool((blocks.sum(2) == n).all())
        assert bool(mask[:, width:].all())
        size = scores[name][:, :width].reshape(blocks.shape)
        assert bool((size.masked_fill(~blocks, np.inf).amin(2) >= size.masked_fill(blocks, 0).amax(2)).all())


def test_units_are_not_judged_weight_by_weight() -> None:
    """Law: an importance that judges units only says so, and so does one that needs training."""
    with pytest.raises(UsageError, match="disagreement"):
        weight_scores(unit_stats(made()), "disagreement")
    with pytest.raises(UsageError, match="movement"):
        weight_scores(unit_stats(made()), "movement")
    found = unit_stats(made())
    with pytest.raises(UsageError, match="too few"):
        sparsest(found, weight_scores(found, "magnitude"), 10, uniform=False)


@torch.no_grad()
def test_what_zeros_are_worth() -> None:
    """Law: bytes by hand: a bit a number, or a column number a value and a place a row; never more than dense."""
    given = agent(CLIP, net={"hidden": (16,)})
    first, head = given.policy.network.linears()
    first.weight[:] = 0.0
    first.weight[:, 0] = 1.0  # 16 of 80
    found = storage(given)
    biases, whole = 4 * (16 + 3), 4 * head.weight.numel()
    assert found.dense == 4 * given.n_params
    assert found.bitmap == 16 * 4 + 80 // 8 + whole + biases
    assert found.rows == 16 * (4 + 1) + (16 + 1) * 1 + whole + biases
    assert found.smallest == found.bitmap
    assert storage(made()).smallest == 4 * made().n_params


class Teacher:
    """Recovers and judges as it is told, and remembers what it was asked."""

    def __init__(self, scores: list[float], budget: str) -> None:
        self.scores, self.recovered, self.tools = (
            scores,
            list[Agent](),
            Tools(self.recover, self.judge, Budget.parse(budget)),
        )

    def recover(self, given: Agent) -> Agent:
        self.recovered.append(given)
        return replace(given, name=f"{given.name}'")

    def judge(self, given: object) -> float:
        return self.scores.pop(0)


def config(**options: object) -> PruneConfig:
    return PruneConfig(**{"to": "params<=100", "importance": "magnitude", "min_score": 0.9, **options})


@pytest.mark.parametrize("pace", PACES.names())
def test_rounds_go_down_to_the_goal(pace: str) -> None:
    """Law: after each round the agent is as small as the pace says, in the end as small as asked, and was recovered."""
    given, teacher = made(), Teacher([1.0, 0.95, 0.92], "params<=100")
    done = prune(given, states_of(given), config(pace=pace), teacher.tools)
    assert done.reached
    wanted = [PACES.load(pace)(given.n_params, 100, p) for p in (1 / 3, 2 / 3, 1)]
    assert [cut.asked for cut in done.rounds] == pytest.approx(wanted)
    assert all(cut.size <= cut.asked for cut in done.rounds)
    assert done.agent.n_params == done.rounds[-1].n_params <= 100
    assert len(teacher.recovered) == 3
    assert done.agent.name.endswith("'''")
    assert given.n_params == made().n_params


def test_the_return_says_stop() -> None:
    """Law: a round that scores less than asked ends it, and the agent before that round is the answer."""
    given, teacher = made(), Teacher([0.95, 0.5, 1.0], "params<=100")
    done = prune(given, states_of(given), config(), teacher.tools)
    assert not done.reached
    assert [cut.score for cut in done.rounds] == [0.95, 0.5]
    assert done.agent.n_params == done.rounds[0].n_params > done.rounds[1].n_params
    first = Teacher([0.1], "params<=100")
    assert prune(given, states_of(given), config(), first.tools).agent.n_params == given.n_params


def test_movement_begins_with_a_recovery() -> None:
    """Law: what shall be judged by how training moved it is trained before the first cut."""
    given, teacher = made(), Teacher([1.0], "params<=100")
    done = prune(given, states_of(given), config(importance="movement", rounds=1), teacher.tools)
    assert teacher.recovered[0].n_params == given.n_params
    assert done.agent.n_params <= 100


def test_single_weights_by_rounds_and_by_pattern() -> None:
    """Law: zeros count towards a budget of numbers that are none, and towards no other; N:M needs one round."""
    given = made()
    done = prune(given, states_of(given), config(pattern="weights"), Teacher([1.0] * 3, "nonzeros<=150").tools)
    assert nonzeros(done.agent) <= 150
    assert done.agent.n_params == given.n_params
    with pytest.raises(UsageError, match="zeros do not change params"):
        prune(given, states_of(given), config(pattern="weights"), Teacher([1.0], "params<=150").tools)
    half = prune(given, states_of(given), config(pattern="2:4"), Teacher([1.0], "nonzeros<=1").tools)
    assert len(half.rounds) == 1
    assert 0.4 < nonzeros(half.agent) / given.n_params < 0.75


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_is_quantized_is_refused(name: str) -> None:
    """Law: pruning comes before quantization."""
    given = POLICIES[name]()
    with pytest.raises(UsageError, match="quantized"):
        prune(given, states_of(given), config(), Teacher([1.0], "params<=100").tools)


def test_thousands() -> None:
    """Law: counts may be given in thousands."""
    assert PruneConfig.model_validate({"recover": "20k", "labels": "1.5k"}).recover == 20_000
    assert PruneConfig.model_validate({"labels": "1.5k"}).labels == 1500


@pytest.mark.parametrize("pace", PACES.names())
def test_a_pace_begins_and_ends_where_it_is_told(pace: str) -> None:
    """Law: from the first size to the last, never up."""
    sizes = [PACES.load(pace)(1000.0, 10.0, p) for p in np.linspace(0, 1, 11)]
    assert (sizes[0], sizes[-1]) == pytest.approx((1000.0, 10.0))
    assert (np.diff(sizes) <= 0).all()


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({}, "nothing is asked for"),
        ({"pattern": "4:2"}, "unknown pattern"),
        ({"pattern": "rows", "to": "params<=9"}, "unknown pattern"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, str], what: str) -> None:
    """Law: a size, or a pattern that is one; lossless needs neither."""
    with pytest.raises(UsageError, match=what):
        PruneConfig(**asked).check()
    for sound in ({"lossless": True}, {"pattern": "2:4"}, {"to": "params<=2000"}):
        PruneConfig(**sound).check()
