"""Units and what they are worth: cut out of every network, judged, ranked, and cut to a size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, agent, student
from test_pruning_lossless import states_of
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.errors import UsageError
from kdcli.networks.dependency_graph import NOBODY
from kdcli.pruning import IMPORTANCE
from kdcli.pruning.equivalence import margins, moved
from kdcli.pruning.size_targets import Budget, params
from kdcli.pruning.slicing import keep
from kdcli.pruning.structured import order, shrink
from kdcli.pruning.surgery import as_stack, with_network
from kdcli.pruning.unit_stats import UnitStats
from kdcli.spec import Discrete, MultiBinary, MultiDiscrete, box

KINDS = ("net_", "stack", "student", "dict", "gru", "lstm")
NETWORKS = [name for name in POLICIES if name.startswith(KINDS)]
every_network = pytest.mark.parametrize("name", NETWORKS)
CLIP, CHOOSE = ActionRule(box((3,), -1.0, 1.0)), ActionRule(Discrete(4))


@cache
def unit_stats(name: str) -> UnitStats:
    made = POLICIES[name]()
    bare = with_network(made, made.policy.network)
    return UnitStats(bare, states_of(bare))


def judged() -> UnitStats:
    """A ReLU network whose unit 0 nobody reads, unit 1 is dead, and unit 2 is read ten times as loudly as unit 3."""
    made = agent(CLIP, net={"activation_name": "relu", "hidden": (8, 8)})
    first, second, head = made.policy.network.linears()
    with torch.no_grad():
        head.weight *= 0.1
        second.weight[:, 0] = 0.0
        first.weight[1], first.bias[1] = 0.0, -1.0
        first.weight[3], first.bias[3] = first.weight[2], first.bias[2]
        second.weight[:, 2] = 10 * second.weight[:, 3]
    return UnitStats(made, states_of(made))


@every_network
def test_every_number_has_its_place(name: str) -> None:
    """Law: an owner for each entry along the axis it names; units are features or of one group, each read somewhere."""
    found = unit_stats(name)
    body, tensors = found.body, found.tensors
    for slot in body.slots:
        assert len(slot.owner) == tensors[slot.key].shape[slot.axis]
    units = [unit for group in body.groups for unit in group.units]
    assert len(set(units)) == len(units)
    read = {unit for reader in body.readers for unit in reader.owner.tolist()} - {NOBODY}
    assert set(units) <= read
    assert read <= set(units) | set(range(body.n_features))


@every_network
def test_a_cut_is_a_constant_in_the_units_place(name: str) -> None:
    """Law: without a unit, the network says what it says with the unit at its mean, wherever the unit is read.

    Not so where a normalization reads it with others, nor exactly where zeros are padded around it.
    """
    found = unit_stats(name)
    body, checked = found.body, 0
    padded = {u for reader in body.readers if reader.padded for u in reader.owner.tolist()}
    for group in body.groups:
        if group.size < 2 or set(group.units) & (body.mixed | body.fixed | padded):
            continue
        unit = group.first + group.size // 2
        thin = found.kept([unit])
        scores = UnitStats(thin, found.states).scores
        torch.testing.assert_close(scores, found.without(unit), rtol=1e-4, atol=1e-4)
        assert not torch.equal(scores, found.scores) or not _is_alive(found, unit)
        checked += 1
    assert checked or not body.groups or body.mixed or body.fixed or padded or all(g.size < 2 for g in body.groups)


def _is_alive(found: UnitStats, unit: int) -> bool:
    seen = zip(found.body.readers, found.seen, strict=True)
    return any(bool((said.variance[reader.owner == unit] > 1e-6).any()) for reader, said in seen)


@every_network
def test_cuts_of_many_units_fit_together(name: str) -> None:
    """Law: half of every layer's units cut leaves a network that runs, is described by its config, and is smaller."""
    found = unit_stats(name)
    halves = (unit for group in found.body.groups for unit in group.units[: group.size // 2])
    gone = [unit for unit in halves if unit not in found.body.fixed]
    thin = found.kept(gone)
    heads = thin.heads(found.states.observations[: found.states.slots], None)
    assert heads.scores().isfinite().all()
    assert sum(prod(p.shape) for p in thin.policy.network.parameters()) == params(thin)
    assert not gone or params(thin) < params(found.given) or name == "net_no_bias"


@pytest.mark.parametrize("name", ["student_residual", "student_both", "student_mobilenet"])
def test_what_is_added_goes_together(name: str) -> None:
    """Law: a unit of a residual stream is cut from everything that adds to it, and from convolutions of it alone."""
    found = unit_stats(name)
    stream = next(g for g in found.body.groups if sum((s.owner == g.first).any() for s in found.body.slots) > 3)
    thin = found.kept([stream.first])
    before, after = found.tensors, dict(as_stack(thin.policy.network).named_parameters())
    touched = {slot.key for slot in found.body.slots if (slot.owner == stream.first).any()}
    assert len(touched) > 3
    assert all(after[key].numel() < before[key].numel() for key in touched)
    assert all(after[key].shape == tensor.shape for key, tensor in before.items() if key not in touched)


def oracle(stack: nn.Module) -> nn.Sequential:
    """The same layers in a form that torch-pruning follows: modules that are called, one behind the other."""
    layers = [*(m for branch in stack.branches for m in branch), *stack.trunk, stack.head]
    return nn.Sequential(*layers).requires_grad_(True)


SIGHT = Preprocess(box((2, 19, 18), 0, 255, "uint8"), image=True)
FLAT = Preprocess(box((5,)))


@pytest.mark.parametrize(
    ("text", "sees"),
    [
        ("mlp:9x8,activation=relu", FLAT),
        ("mlp:9x8,norm=layer,activation=relu", FLAT),
        ("mlp:8x8x8,residual=true,activation=relu", FLAT),
        ("cnn:5x6x4,hidden=9", SIGHT),
        ("mobilenet:5x6x6,expand=2,hidden=9", SIGHT),
    ],
)
def test_torch_pruning_cuts_the_same(text: str, sees: Preprocess) -> None:
    """Law: of the same layer the same units cut, shapes and outputs are those that torch-pruning comes to."""
    import torch_pruning as tp

    made = student(text, CHOOSE, sees)
    found = UnitStats(made, states_of(made, 20))
    x = sees(found.states.observations).reshape(20, *found.stack.parts[0].shape)
    for group in found.body.groups:
        theirs = oracle(as_stack(found.stack))
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=x)
        layer = _layer(theirs, found, group.name)
        cut = tp.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else tp.prune_linear_out_channels
        graph.get_pruning_group(layer, cut, idxs=[0, group.size - 2]).prune()
        stays = found.body.everything()
        stays[[group.first, group.first + group.size - 2]] = False
        ours = keep(found.stack, stays)
        shapes = [tuple(p.shape) for p in oracle(ours).parameters()]
        assert shapes == [tuple(p.shape) for p in theirs.parameters()]
        torch.testing.assert_close(oracle(ours)(x), theirs(x), rtol=1e-5, atol=1e-5)


def _layer(theirs: nn.Sequential, found: UnitStats, path: str) -> nn.Module:
    """The oracle's copy of the module at `path` of the stack."""
    wanted = found.stack.get_submodule(path)
    places = {id(m): i for i, m in enumerate(oracle(found.stack).modules())}
    return list(theirs.modules())[places[id(wanted)]]


@pytest.mark.parametrize("name", IMPORTANCE.names())
def test_importance_is_a_number_a_unit(name: str) -> None:
    """Law: finite numbers, one a unit, the same each time, for networks of every kind."""
    for kind in ("net_tanh", "lstm", "student_entities", "stack_image", "multi_binary", "student_gru_image"):
        found = unit_stats(kind)
        moving = UnitStats(found.given, found.states, before=found.given)
        scores = IMPORTANCE.load(name)(moving)
        assert scores.shape == (found.body.n_units,)
        assert np.isfinite(scores).all()
        assert np.array_equal(scores, IMPORTANCE.load(name)(moving))


@pytest.mark.parametrize("name", ["disagreement", "taylor", "activation"])
def test_who_says_nothing_is_worth_nothing(name: str) -> None:
    """Law: what is not read, or never varies, is worth 0; what is read ten times as loudly is worth more."""
    scores = IMPORTANCE.load(name)(judged())[5:]
    assert scores[:2] == pytest.approx(0.0, abs=1e-6)
    assert scores[2] > 2 * scores[3] > 0


def test_first_order_is_the_measured_change_where_all_is_linear() -> None:
    """Law: with no activation between, taylor is the root mean square change of the outputs, exactly."""
    found = unit_stats("net_linear")
    assert not found.body.groups
    made = student("mlp:6,activation=relu", ActionRule(box((2,))), FLAT)
    deep = UnitStats(made, states_of(made))
    scores = IMPORTANCE.load("taylor")(deep)
    for unit in deep.body.groups[0].units:
        change = (deep.without(unit) - deep.scores).square().sum(1).mean().sqrt()
        assert scores[unit] == pytest.approx(float(change), rel=1e-4)


def test_movement_is_away_from_zero() -> None:
    """Law: weights that grew matter, those that shrank do not; without training nothing is known."""
    grown, before = judged(), judged().given
    with torch.no_grad():
        first = grown.given.policy.network.linears()[0]
        first.weight[4] *= 2.0
        first.weight[5] *= 0.5
    scores = IMPORTANCE.load("movement")(UnitStats(grown.given, grown.states, before))[5:]
    assert scores[4] > 0 > scores[5]
    assert scores[6] == 0
    with pytest.raises(UsageError):
        IMPORTANCE.load("movement")(grown)


def test_uniform_takes_the_same_share_of_every_layer() -> None:
    """Law: half of all units are half of each layer; the best of each layer always stays."""
    made = student("mlp:20x10,activation=relu", CLIP, FLAT)
    found = UnitStats(made, states_of(made))
    scores = IMPORTANCE.load("magnitude")(found)
    going = order(found, scores, "uniform", comparable=False)
    assert len(going) == 28
    first, second = (sorted(set(going[:15]) & set(group.units)) for group in found.body.groups)
    assert (len(first), len(second)) == (10, 5)
    for group in found.body.groups:
        units = np.array(group.units)
        assert units[scores[units].argmax()] not in going
        ranked = [unit for unit in going if unit in group.units]
        assert (np.diff(scores[ranked]) >= 0).all()


def test_global_goes_by_score() -> None:
    """Law: scores that compare decide alone; others are taken relative to their layer's mean."""
    made = student("mlp:6x6,activation=relu", CLIP, FLAT)
    found = UnitStats(made, states_of(made))
    scores = np.zeros(found.body.n_units)
    scores[5:] = np.arange(12) + 1.0
    assert order(found, scores, "global", comparable=True)[:5] == [5, 6, 7, 8, 9]
    assert order(found, scores, "global", comparable=False)[:3] == [5, 6, 11]


SIZES: dict[str, Callable[[Agent], float]] = {"params": params, "macs": Budget.parse("macs<=1").measure}


@pytest.mark.parametrize("measure", SIZES)
@pytest.mark.parametrize("text", ["mlp:20x10,activation=relu", "gru:12,before=9"])
def test_shrink_takes_as_few_as_needed(text: str, measure: str) -> None:
    """Law: at most the size that was asked for, and one unit more would be too many; what fits already stays."""
    made = student(text, CHOOSE, FLAT)
    found, size = UnitStats(made, states_of(made)), SIZES[measure]
    going = order(found, IMPORTANCE.load("magnitude")(found), "uniform", comparable=False)
    goal = size(made) / 2
    thin = shrink(found, going, size, goal)
    assert size(thin) <= goal
    n = next(n for n in range(len(going)) if size(found.kept(going[:n])) <= goal)
    assert size(found.kept(going[:n])) == size(thin)
    assert shrink(found, going, size, 2 * size(made)) is found.given
    with pytest.raises(UsageError, match="cannot come to 3"):
        shrink(found, going, size, 3)


@pytest.mark.parametrize(
    ("text", "most"),
    [("params<=2000", 2000), ("macs <= 10k", 10_000), ("nonzeros<=1.5M", 1.5e6), ("params<=2_000", 2000)],
)
def test_budgets_are_read(text: str, most: float) -> None:
    """Law: a measure, <= and a number."""
    budget = Budget.parse(text)
    assert budget.most == most
    assert budget.name == text.partition("<")[0].strip()
    assert budget.measure(agent(CHOOSE)) > 0


@pytest.mark.parametrize("text", ["params", "params<2000", "params<=", "prams<=3", "params<=-3", ""])
def test_budgets_that_are_none(text: str) -> None:
    """Law: what cannot be read is said, with a way out."""
    with pytest.raises(UsageError) as raised:
        Budget.parse(text)
    assert raised.value.fix


RULES = {
    "choice": ActionRule(Discrete(4)),
    "choices": ActionRule(MultiDiscrete((3, 2))),
    "bits": ActionRule(MultiBinary(3)),
    "clip": ActionRule(box((3,), -0.5, 2.0)),
    "tanh": ActionRule(box((3,), -2.0, 2.0), "tanh"),
    "free": ActionRule(box((3,))),
}


@pytest.mark.parametrize("name", RULES)
def test_how_far_actions_move(name: str) -> None:
    """Law: 0 where nothing changes, never negative, of choices at most 1, and 1 where another choice is made."""
    rule, draw = RULES[name], torch.Generator().manual_seed(0)
    before, after = (torch.randn(200, rule.n_outputs, generator=draw) for _ in range(2))
    assert float(moved(rule, before, before).max()) == 0
    found = moved(rule, before, after)
    assert found.shape == (200,)
    assert float(found.min()) >= 0
    if rule.continuous:
        return
    other = (rule.decode(before) != rule.decode(after)).reshape(200, -1).any(1)
    assert float(found.max()) <= 1
    assert bool((found[other] == 1).all())
    assert bool((found[~other] < 1).all()) or rule.bits
    assert margins(before, rule).shape[1] == max(1, len(rule.groups) or rule.n_outputs)
