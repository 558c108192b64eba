"""A policy made ready to be called: what is timed. Here those of torch and onnxruntime; others are made of its exports.

What is timed is what a user of Python calls: the observation goes in as numpy has it, the action comes out so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.onnx.session import OnnxAgent, start
from kdcli.spec import STATE_IN, STATE_OUT, Space, feed, input_names, parts

if TYPE_CHECKING:
    from onnx import ValueInfoProto

FLOOR = "an empty graph"
_NOTHING = "nothing"
ValueInfo = tuple[str, tuple[int, ...]]  # dtype and shape


@dataclass(frozen=True, eq=False)
class Program:
    """One policy in one runtime.

    Attributes:
        call: what a user calls, with what `given` made.
        given: raw observations (B, *shape) -> what `call` takes.
        block: decisions in one timed call: more than one where a single one is too short for the clock.
        floor: a program of the same runtime that takes the same inputs and gives one of them back: what a call costs
            before any policy.
    """

    call: Callable[[Any], object]
    given: Callable[[np.ndarray], Any]
    block: int = 1
    floor: Program | None = None


def program(agent: Actor) -> Program:
    """What a user calls: `agent.act`, or the session that a deployment holds."""
    return _session(agent) if isinstance(agent, OnnxAgent) else _acting(agent)


def _session(agent: OnnxAgent) -> Program:
    run, names = agent.session.run, ["action", *([STATE_OUT] if agent.state_size else [])]
    empty, nothing = start(empty_graph(agent.observation, agent.state_size), FLOOR).run, [_NOTHING]
    return Program(lambda given: run(names, given), agent.inputs, 1, Program(lambda x: empty(nothing, x), agent.inputs))


def _acting(agent: Actor) -> Program:
    import torch

    dtype, size = agent.observation.dtype, agent.state_size
    first = next(iter(parts(agent.observation)))

    @torch.inference_mode()
    def empty(given: tuple[np.ndarray, ...]) -> np.ndarray:
        obs = given[0]
        return torch.from_numpy(obs[first] if obs.dtype.names else obs).numpy()

    def given(obs: np.ndarray) -> tuple[np.ndarray, ...]:
        memory = (np.zeros((len(obs), size), np.float32),) if size else ()
        return (obs.astype(dtype, copy=False), *memory)

    act = agent.step if size else agent.act
    return Program(lambda given: act(*given), given, 1, Program(empty, given))


def inputs(space: Space, state_size: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Raw observations (B, *shape) -> the inputs of an export by name, each (B, ...); an episode begins."""

    def given(obs: np.ndarray) -> dict[str, np.ndarray]:
        memory = {STATE_IN: np.zeros((len(obs), state_size), np.float32)} if state_size else {}
        return {**feed(space, obs), **memory}

    return given


def empty_graph(space: Space, state_size: int = 0) -> bytes:
    """An ONNX file that gives back its inputs, the first as `nothing`."""
    from onnx import helper

    def port(name: str, like: ValueInfo) -> ValueInfoProto:
        dtype, shape = like
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["batch", *shape])

    names = input_names(space)
    ends: dict[str, ValueInfo] = {names[name]: (part.dtype, part.shape) for name, part in parts(space).items()}
    if state_size:
        ends[STATE_IN] = ("float32", (state_size,))
    back = dict(zip(ends, [_NOTHING, *(f"{name}_back" for name in [*ends][1:])], strict=True))
    nodes = [helper.make_node("Identity", [name], [back[name]]) for name in ends]
    ins, outs = ([port(called[name], like) for name, like in ends.items()] for called in ({n: n for n in ends}, back))
    model = helper.make_model(
        helper.make_graph(nodes, "empty", ins, outs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model.SerializeToString()
