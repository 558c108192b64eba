"""A graph says what a policy does, in numbers and names alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sample_policies import POLICIES

from kdcli.errors import UsageError
from kdcli.graph.count import count
from kdcli.graph.operations import KINDS, Graph, Op, Port
from kdcli.graph.trace import output_names, trace
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.mlp import MLP
from kdcli.spec import parts

every_policy = pytest.mark.parametrize("name", POLICIES)


def test_every_activation_is_a_kind() -> None:
    """A network's activation has the same name in a graph."""
    assert ACTIVATIONS.keys() <= KINDS.keys()


def test_every_kind_is_used() -> None:
    """No kind of operation is there that no policy needs."""
    graphs = [trace(agent, output_names(agent)) for agent in (make() for make in POLICIES.values())]
    assert {op.kind for graph in graphs for op in graph.ops} == KINDS.keys()


@every_policy
def test_count_is_the_actors(name: str) -> None:
    """The deployed graph has the actor's parameters, no critic's, and the normalizer's numbers beside them."""
    agent = POLICIES[name]()
    counted = count(trace(agent))
    assert counted.n_params == agent.n_params
    kinds = ("clip", "expectation", "quantize", "repeat", "unscale")
    bounds = sum(w.size for op in trace(agent).ops if op.kind in kinds for w in op.weights.values())
    assert counted.n_constants == agent.preprocess.n_constants + bounds
    if isinstance(agent.policy.network, MLP):
        assert counted.multiply_adds == sum(linear.weight.numel() for linear in agent.policy.network.linears())


def test_multiply_adds_of_convolutions() -> None:
    """The products of a convolution are done at every place of its output, those of a cell once."""
    image = sum([(2 * 3 * 2) * 5 * (5 * 7), 5 * 2 * 2 * 4 * (2 * 3), 24 * 6, 6 * 4])
    assert count(trace(POLICIES["stack_image"]())).multiply_adds == image
    assert count(trace(POLICIES["lstm"]())).multiply_adds == 4 * 5 * (5 + 5) + 5 * 4 + 4 * 3


@every_policy
def test_ends_are_the_envs(name: str) -> None:
    """A graph takes what the env gives and puts out what the env takes, under the names it was asked by."""
    agent = POLICIES[name]()
    graph = trace(agent, output_names(agent))
    seen = tuple(Port(name, part.shape, part.dtype) for name, part in parts(agent.observation).items())
    state = (Port("state_in", (agent.state_size,)),) if agent.state_size else ()
    assert graph.inputs == (*seen, *state)
    assert graph.outputs[0] == Port("action", agent.action.shape, agent.action.dtype)
    names = [port.name for port in graph.outputs if port.name != "state_out"]
    assert names == output_names(agent)
    assert len(graph.outputs) - len(names) == len(state)


@every_policy
def test_weights_are_copies(name: str) -> None:
    """A graph holds arrays of its own: training on does not change it."""
    agent = POLICIES[name]()
    graph = trace(agent)
    arrays = [array for op in graph.ops for array in op.weights.values()]
    before = [array.copy() for array in arrays]
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(1.0)
    assert all(type(array) is np.ndarray for array in arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_nothing_beside_what_is_asked() -> None:
    """What an output does not need is not in the graph."""
    value, action = (trace(POLICIES["value"](), [name]) for name in ("value", "action"))
    assert [op.kind for op in value.ops] == ["gemm", "elu", "gemm", "reshape"]
    assert [op.kind for op in action.ops] == ["gemm", "tanh", "gemm", "tanh", "gemm", "argmax"]


@every_policy
def test_what_outputs_share_is_there_once(name: str) -> None:
    """However many outputs are asked for, no layer runs twice."""
    agent = POLICIES[name]()
    layers = [op.weights["weight"] for op in trace(agent, output_names(agent)).ops if op.kind == "gemm"]
    assert len({array.tobytes() for array in layers}) == len(layers)


def test_unit_bounds_cost_nothing() -> None:
    """Actions between -1 and 1, and actions without bounds, need no operation to get there."""
    assert trace(POLICIES["tanh"]()).ops[-1].kind == "tanh"
    assert trace(POLICIES["unbounded"]()).ops[-1].kind == "gemm"


def test_unknown_output_is_named() -> None:
    """An output the agent has not is an error that lists those it has."""
    with pytest.raises(UsageError) as raised:
        trace(POLICIES["q"](), ["action", "logits"])
    assert "'logits'" in raised.value.what
    assert raised.value.why == "it has: action, q"


def test_a_value_is_made_once_and_before_use() -> None:
    """A graph is in static single assignment form, or is refused."""
    x, y = Port("x", (2,)), Port("y", (2,))
    tanh = Op("tanh", (x,), (y,))
    with pytest.raises(ValueError, match="'y' is made twice"):
        Graph((x,), (tanh, tanh), (y,))
    with pytest.raises(ValueError, match="'y' is used before"):
        Graph((x,), (Op("relu", (y,), (Port("z", (2,)),)), tanh), (y,))
    with pytest.raises(ValueError, match="'y' is used before"):
        Graph((x,), (), (y,))
    with pytest.raises(ValueError, match="'x' is used before"):
        Graph((x,), (Op("tanh", (Port("x", (3,)),), (y,)),), (y,))
    with pytest.raises(ValueError, match="unknown kind"):
        Op("tahn", (x,), (y,))


def test_definitions_need_no_torch() -> None:
    """Reading a graph loads neither torch nor onnx."""
    code = "import sys, kdcli.graph.operations, kdcli.graph.count; assert not {'torch', 'onnx'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
