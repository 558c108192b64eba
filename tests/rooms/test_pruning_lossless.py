"""What an agent does not need is taken away, and no action changes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, _stacked, agent, observations
from torch import nn

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.states import States, actions
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Branch
from kdcli.pruning.equivalence import compare
from kdcli.pruning.lossless import lossless, proved
from kdcli.pruning.slicing import with_biases
from kdcli.pruning.surgery import as_stack, like
from kdcli.spec import Discrete, box

QUANTIZED = ("quantized", "quantized_dynamic", "quantized_image")
every_policy = pytest.mark.parametrize("name", [name for name in POLICIES if name not in QUANTIZED])


def states_of(made: Agent, n: int = 80, seed: int = 0) -> States:
    slots = 4 if made.state_size else 1
    begins = np.arange(n) < slots
    return States(observations(made, n, seed), "rollout", slots, begins | (np.arange(n) // slots == 9))


def still(made: Agent, columns: list[int], n: int = 80) -> States:
    """States in which these columns of a flat observation never vary."""
    found = states_of(made, n)
    found.observations.reshape(n, -1)[:, columns] = 3
    return found


@every_policy
def test_no_action_changes(name: str, tmp_path: Path) -> None:
    """Law: every kind of agent acts as before, says no more than it needs, can be stored, and is itself as it was."""
    whole = POLICIES[name]()
    states, weights = states_of(whole), {key: w.clone() for key, w in whole.policy.state_dict().items()}
    thin = lossless(whole, states)
    assert all(torch.equal(weights[key], tensor) for key, tensor in whole.policy.state_dict().items())
    assert compare(whole, thin, states).holds
    assert thin.n_params <= whole.n_params
    assert thin.policy.value is None
    assert thin.policy.spread is None
    again = store.load(store.save(tmp_path / "thin.safetensors", thin, {}))
    np.testing.assert_allclose(actions(again, states), actions(thin, states), atol=1e-6)


@every_policy
def test_one_form_for_all(name: str) -> None:
    """Law: an MLP and its stack are one function, and the way back gives the same network, biases or not."""
    network = POLICIES[name]().policy.network
    stack = as_stack(network)
    features = torch.randn(5, network.inputs, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(features), network(features), rtol=1e-5, atol=1e-6)
    assert like(stack, network).config() == network.config()
    torch.testing.assert_close(with_biases(stack)(features), network(features), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sees_normalized", "sees_normalized_matrix", "sees_float64", "sees_some_normalized"])
def test_columns_that_never_vary_go(name: str) -> None:
    """Law: what never varies is not read any more: not by the network, not by the normalizer."""
    whole = POLICIES[name]()
    reads = whole.preprocess.columns or range(whole.preprocess.n_features)
    states = still(whole, [reads[0], reads[2]])
    thin = lossless(whole, states)
    assert thin.preprocess.n_features == thin.policy.network.inputs == whole.preprocess.n_features - 2
    assert not {reads[0], reads[2]} & set(thin.preprocess.columns)
    assert thin.observation is whole.observation
    if thin.preprocess.normalizer is not None:
        assert thin.preprocess.normalizer.mean.shape == (thin.preprocess.n_features,)
    made = convert(thin, states, ExportConfig())
    assert made.size.n_params == thin.n_params < whole.n_params


@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_that_never_vary_go(channels_last: bool) -> None:
    """Law: where an image is read by a plain product, still pixels go, in whatever order the env gives them."""
    image = Preprocess(box((3, 4, 2), 0, 255, "uint8"), image=True, channels_last=channels_last)
    whole = agent(ActionRule(Discrete(4)), image)
    states = still(whole, [0, 7, 20])
    thin = lossless(whole, states)
    assert thin.preprocess.n_features == 21
    assert np.array_equal(thin.act(states.observations), whole.act(states.observations))


def test_parts_of_a_dict_lose_their_own_columns() -> None:
    """Law: in a Dict each part reads less of itself, none nothing, images for convolutions stay whole."""
    whole = POLICIES["dict_normalized"]()
    states = states_of(whole)
    states.observations["vector"][:, 1] = 0.5
    states.observations["place"][:] = 2
    thin = lossless(whole, states)
    sees = thin.preprocess.parts
    assert sees["image"].columns is None
    assert sees["vector"].columns == (0, 2, 3)
    assert sees["place"].n_features == 1
    assert compare(whole, thin, states).holds


def test_masks_stay() -> None:
    """Law: a mask is no input of the network and is never taken away."""
    whole = POLICIES["masked_discrete"]()
    states = states_of(whole)
    states.observations["action_mask"][:, 1] = 1
    states.observations["obs"][:, 1] = 1
    thin = lossless(whole, states)
    assert thin.preprocess.parts["obs"].columns == (0, 2, 3, 4)
    assert thin.preprocess.parts["action_mask"].columns is None


RELU = {"activation_name": "relu", "hidden": (10, 9)}


@torch.no_grad()
def test_units_that_never_vary_go() -> None:
    """Law: dead ReLUs, saturated units and units that nobody reads go; what they said is in the next bias."""
    whole = agent(ActionRule(box((3,), -1.0, 1.0)), net=RELU)
    first, second, head = whole.policy.network.linears()
    first.bias[:2] = -100.0  # dead
    first.weight[2], first.bias[2] = 0.0, 1.5  # always 1.5
    head.weight[:, 4] = 0.0  # unread
    second.bias[5] = -1000.0
    states = states_of(whole)
    thin = lossless(whole, states)
    assert thin.policy.network.hidden == (7, 7)
    assert isinstance(thin.policy.network, MLP)
    tanh = agent(ActionRule(Discrete(4)))
    tanh.policy.network.linears()[0].bias[3] = 50.0  # always 1
    assert lossless(tanh, states_of(tanh)).policy.network.hidden == (15, 12)


@torch.no_grad()
def test_an_idle_unit_leaves_others_idle() -> None:
    """Law: what only fed on idle units is found idle, too."""
    whole = agent(ActionRule(Discrete(4)), net=RELU)
    _, second, head = whole.policy.network.linears()
    head.weight[:, 1] = 0.0
    second.weight[[0, 2, 3, 4, 5, 6, 7, 8], 6] = 0.0  # unit 6 is read by unit 1 alone
    assert lossless(whole, states_of(whole)).policy.network.hidden == (9, 8)


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 1])
def test_channels_that_never_vary_go(padding: int) -> None:
    """Law: a dead channel goes; a constant one, too, unless zeros are padded around it."""
    layers = (
        ("conv2d", {"out": 4, "kernel": 3}),
        ("relu", {}),
        ("conv2d", {"out": 3, "kernel": 3, "padding": padding}),
        ("relu", {}),
        ("flatten", {}),
    )
    image = Preprocess(box((2, 9, 8), 0, 255, "uint8"), image=True)
    branch, trunk = Branch(0, (2, 9, 8), layers), (("linear", {"out": 6}), ("relu", {}))
    whole = _stacked(ActionRule(Discrete(4)), image, [branch], trunk)
    conv, after = whole.policy.network.branches[0][0], whole.policy.network.branches[0][2]
    conv.weight[0], conv.bias[0] = 0.0, -1.0
    conv.weight[1], conv.bias[1] = 0.0, 1.0
    after.weight[2], after.bias[:] = 0.0, 1.0
    states = states_of(whole)
    thin = lossless(whole, states)
    convolutions = [len(m.weight) for m in thin.policy.network.layers() if isinstance(m, nn.Conv2d)]
    assert convolutions == [2 if padding == 0 else 3, 2]
    assert compare(whole, thin, states).holds


@torch.no_grad()
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_units_that_stay_zero_go(name: str) -> None:
    """Law: a cell's unit that is zero from the beginning on goes, and so does its part of the state."""
    whole = POLICIES[name]()
    cell = next(m for m in whole.policy.network.trunk if isinstance(m, nn.GRUCell | nn.LSTMCell))
    gates = 3 if isinstance(cell, nn.GRUCell) else 4
    rows = [2 + cell.hidden_size * k for k in range(gates)]
    for tensor in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh):
        tensor[rows] = 0.0
    states = states_of(whole)
    thin = lossless(whole, states)
    assert thin.state_size == whole.state_size - (1 if gates == 3 else 2)
    assert compare(whole, thin, states).holds


def test_linear_layers_fold() -> None:
    """Law: linear layers with nothing between become one, unless a narrow one saves numbers; cells take them in."""
    rule = ActionRule(box((3,), -1.0, 1.0))
    wide = ("linear", {"out": 9, "bias": False}), ("linear", {"out": 8})
    cell = ("gru_cell", {"out": 6, "bias": False}), ("linear", {"out": 7})
    whole = _stacked(rule, Preprocess(box((5,))), [Branch(0, (5,))], (*wide, *cell))
    states = states_of(whole)
    thin = lossless(whole, states)
    assert str(thin.policy.network) == "5-gru_cell:6-3"
    assert compare(whole, thin, states).holds
    bottleneck = ("linear", {"out": 1}), ("linear", {"out": 8}), ("tanh", {})
    narrow = _stacked(rule, Preprocess(box((5,))), [Branch(0, (5,))], bottleneck)
    assert str(lossless(narrow, states_of(narrow)).policy.network) == "5-1-8-tanh-3"


def test_quantiles_become_their_mean() -> None:
    """Law: quantiles of the return are averaged once, in the head's weights."""
    whole = POLICIES["quantiles"]()
    thin = lossless(whole, states_of(whole))
    assert thin.policy.quantiles == 0
    assert thin.policy.network.outputs == 4
    assert isinstance(thin.policy.network, MLP)


def test_what_changes_actions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a step that is not lossless on the states ends in a refusal, not in an agent."""
    whole = agent(ActionRule(box((3,), -1.0, 1.0)))

    def broken(given: Agent, states: States) -> Agent:
        other = replace(given, policy=deepcopy(given.policy))
        with torch.no_grad():
            other.policy.network.head.bias[0] += 1e-3
        return other

    monkeypatch.setattr("kdcli.pruning.lossless.linear", broken)
    with pytest.raises(RefusedError, match="'linear' changes actions"):
        lossless(whole, states_of(whole))


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_is_quantized_is_not_pruned(name: str) -> None:
    """Law: weights on few levels stay there: pruning comes before quantization."""
    whole = POLICIES[name]()
    with pytest.raises(UsageError, match="quantized"):
        lossless(whole, states_of(whole))


def test_a_choice_between_equals_is_a_tie() -> None:
    """Law: another choice where the best two are equal is no difference, any other is."""
    whole = agent(ActionRule(Discrete(4)))
    other = replace(whole, policy=deepcopy(whole.policy))
    with torch.no_grad():
        for made, shift in ((whole, 0.0), (other, 1e-8)):
            made.policy.network.head.weight[1] = made.policy.network.head.weight[0]
            made.policy.network.head.bias[:2] = torch.tensor([0.0, shift])
    states = states_of(whole)
    assert compare(whole, other, states).holds
    with torch.no_grad():
        other.policy.network.head.bias[1] = 1.0
    assert compare(whole, other, states).other > 0


def rarely(made: Agent) -> Callable[[int], States]:
    """States of which later ones show what earlier ones do not: feature 0 is not always 0."""

    def gather(seed: int) -> States:
        states = states_of(made, seed=seed)
        states.observations[:, 0] = 0.0
        states.observations[:5, 0] = 0.1 * seed
        return states

    return gather


def test_what_other_episodes_show_counts() -> None:
    """Law: an input that varies in states of the proof is no idle input; the agent is proved on states after those."""
    whole = agent(ActionRule(box((3,), -1.0, 1.0)))
    assert lossless(whole, rarely(whole)(0)).preprocess.n_features == 4
    done = proved(whole, rarely(whole))
    assert done.agent.preprocess.n_features == 5
    assert done.left_out == ()
    assert done.n_seen == 160


def test_what_is_idle_for_long_is_left_alone() -> None:
    """Law: where every try shows another unit to be alive, units are left as they are, and that is said."""
    whole = agent(ActionRule(box((3,), -1.0, 1.0)), net=RELU)
    with torch.no_grad():
        first = whole.policy.network.linears()[0]
        first.weight[:5], first.bias[:5] = 0.0, -1.0
        first.weight[torch.arange(5), 0] = 1.0

    def gather(seed: int) -> States:
        states = states_of(whole, seed=seed)
        states.observations[:, 0] = 0.0
        states.observations[0, 0] = 0.5 + seed  # the sixth time, all five fire
        return states

    with torch.no_grad():
        first.bias[:5] = -torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0])
    done = proved(whole, gather)
    assert done.left_out == ("units",)
    assert done.agent.n_params == whole.n_params
