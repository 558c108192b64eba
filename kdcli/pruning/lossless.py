"""What an agent carries and does not need: taken away without changing an action, and proved so on real states."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.agents.agent import Agent
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor
from kdcli.agents.states import States
from kdcli.networks.dependency_graph import DependencyGraph, dependency_graph
from kdcli.networks.stack import Stack
from kdcli.pruning import LOSSLESS
from kdcli.pruning.activation_stats import Seen, watch
from kdcli.pruning.equivalence import Equivalence, check_equivalence, compare
from kdcli.pruning.slicing import keep
from kdcli.pruning.states import together
from kdcli.pruning.surgery import Tensors, as_stack, built, check_whole, like, tensors_of, with_network

# A unit whose values differ by less, relative, is constant: float32 has seven digits.
_STILL = 1e-7
# Steps that rest on what was seen, the least certain first.
_BY_STATES = ("units", "inputs")
Step = Callable[[Agent, States], Agent]


def lossless(agent: Agent, states: States, without: Collection[str] = ()) -> Agent:
    """The agent without all that `LOSSLESS` finds idle on `states`; acts as before on each of them.

    `without` names steps that are not done.

    Raises:
        UsageError: the agent is quantized, or has layers whose units are not known.
        RefusedError: it does not.
    """
    check_whole(agent)
    found = agent
    for name in LOSSLESS.names():
        if name not in without:
            step: Step = LOSSLESS.load(name)
            found = step(found, states)
            check_equivalence(agent, found, states, f"the lossless step {name!r}")
    return found


def heads(agent: Agent, states: States) -> Agent:
    """Only what chooses the greedy action: no critic, no spread, and of quantiles their mean, which is linear."""
    network, policy = agent.policy.network, agent.policy
    if not policy.quantiles:
        return with_network(agent, network)
    stack = as_stack(network)
    tensors = tensors_of(stack)
    for name in ("head.weight", "head.bias"):
        if name in tensors:
            tensors[name] = tensors[name].double().unflatten(0, (policy.quantiles, -1)).mean(0).float()
    mean = built({**stack.config(), "outputs": len(tensors["head.weight"])}, tensors)
    return with_network(agent, like(mean, network), quantiles=0)


def inputs(agent: Agent, states: States) -> Agent:
    """Only the features that vary, or are read: a constant one's part goes into the bias behind."""
    stack = as_stack(agent.policy.network)
    body, whole = dependency_graph(stack), with_network(agent, stack)
    kept = body.everything()
    features = list(set(range(body.n_features)) - body.fixed - body.mixed)
    idle = _idle(whole, body, states)
    kept[features] = ~idle[features]
    kept = _one_each(agent.preprocess, kept, body.n_features)
    if kept.all():
        return agent
    means = [seen.entry_mean for seen in watch(whole, body.readers, states)]
    thin = with_network(agent, like(keep(stack, kept, means), agent.policy.network))
    if thin.n_params >= agent.n_params:  # biases that were not there came to more
        return agent
    return replace(thin, preprocess=_reading(agent.preprocess, kept[: body.n_features]))


def _one_each(sees: Preprocessor, kept: np.ndarray, n_features: int) -> np.ndarray:
    """At least one feature of each part of the observation stays: a part cannot be empty."""
    found, at = kept.copy(), 0
    for part in sees.parts.values():
        here = slice(at, min(at + part.n_features, n_features))
        if here.start < here.stop and not found[here].any():
            found[at] = True
        at += part.n_features
    return found


def _reading(sees: Preprocessor, kept: np.ndarray) -> Preprocessor:
    """The preprocessing that gives the features with `kept` true; a mask, which comes last, is given as it is."""
    read, at = {}, 0
    for name, part in sees.parts.items():
        mine = kept[at : at + part.n_features]
        read[name] = part if at >= len(kept) or mine.all() else _picked(part, np.flatnonzero(mine))
        at += part.n_features
    return JointPreprocess(sees.space, read) if isinstance(sees, JointPreprocess) else read.popitem()[1]


def _picked(part: Preprocess, columns: np.ndarray) -> Preprocess:
    """Those of the features that it reads now, with their means and scales."""
    before = np.arange(part.n_features) if part.columns is None else np.array(part.columns)
    picked = replace(part, columns=tuple(map(int, before[columns])), normalizer=None)
    norm, places = part.normalizer, columns if part.columns is not None else picked.places
    if norm is None:
        return picked
    mean, scale = (array.reshape(-1)[places] for array in (norm.mean, norm.scale))
    return replace(picked, normalizer=Normalizer(mean, scale, norm.clip))


def units(agent: Agent, states: States) -> Agent:
    """Only the hidden units that vary, or are read; taking some away may show others to be idle."""
    while True:
        stack = as_stack(agent.policy.network)
        body, whole = dependency_graph(stack), with_network(agent, stack)
        idle = _idle(whole, body, states)
        kept = body.everything()
        for group in body.groups:
            mine = list(set(group.units) - body.mixed - body.fixed)
            kept[mine] = ~idle[mine]
            kept[group.first] |= not kept[list(group.units)].any()
        if kept.all():
            return agent
        means = [seen.entry_mean for seen in watch(whole, body.readers, states)]
        thin = with_network(agent, like(keep(stack, kept, means), agent.policy.network))
        if thin.n_params >= agent.n_params:
            return agent
        agent = thin


def _idle(agent: Agent, body: DependencyGraph, states: States) -> np.ndarray:
    """Units (n_units,) that every product behind them reads as a constant, or with zeros alone."""
    tensors = dict(agent.policy.network.named_parameters())
    idle = body.everything()
    for reader, seen in zip(body.readers, watch(agent, body.readers, states), strict=True):
        unread = tensors[reader.weight].transpose(0, 1).flatten(1).eq(0).all(1)
        known = reader.owner >= 0
        busy = ~(_constant(seen, reader.padded) | unread).numpy()
        idle[reader.owner[known & busy]] = False
    return idle


def _constant(seen: Seen, padded: bool) -> Tensor:
    """Entries (entries,) that are one number in all states and places; zero, where zeros are padded around them."""
    low, high = seen.low.amin(1), seen.high.amax(1)
    still = high - low <= _STILL * torch.maximum(low.abs(), high.abs())
    return still & (high == 0) & (low == 0) if padded else still


def linear(agent: Agent, states: States) -> Agent:
    """One product instead of two with nothing between, where that has fewer numbers."""
    stack = as_stack(agent.policy.network)
    found = stack
    while (index := _foldable(found)) is not None:
        found = _folded(found, index)
    return agent if found is stack else with_network(agent, like(found, agent.policy.network))


def _readers_behind(stack: Stack) -> list[tuple[nn.Module, nn.Module]]:
    return list(pairwise([*stack.trunk, stack.head]))


def _foldable(stack: Stack) -> int | None:
    """The place in the trunk of a linear layer that the next layer can take in, with no more numbers than before."""
    for index, (first, second) in enumerate(_readers_behind(stack)):
        if isinstance(first, nn.Linear) and isinstance(second, nn.Linear | nn.GRUCell | nn.LSTMCell):
            weight = second.weight if isinstance(second, nn.Linear) else second.weight_ih
            rows, (width, inputs) = len(weight), first.weight.shape
            if rows * inputs <= rows * width + width * inputs:
                return index
    return None


def _folded(stack: Stack, index: int) -> Stack:
    """W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."""
    config, old = stack.config(), tensors_of(stack)
    last = index + 1 == len(stack.trunk)
    path = "head" if last else f"trunk.{index + 1}"
    weight, bias = ("weight_ih", "bias_ih") if f"{path}.weight_ih" in old else ("weight", "bias")
    first, second = old[f"trunk.{index}.weight"].double(), old[f"{path}.{weight}"].double()
    old[f"{path}.{weight}"] = (second @ first).float()
    shift = old.get(f"trunk.{index}.bias")
    if shift is not None:
        _shift(config, old, path, bias, second @ shift.double())
    config["trunk"].pop(index)
    return built(config, _renumbered(old, index))


def _shift(config: dict[str, Any], tensors: Tensors, path: str, bias: str, shift: Tensor) -> None:
    """Add to a bias, which is made where there is none."""
    missing = f"{path}.{bias}" not in tensors
    tensors[f"{path}.{bias}"] = (shift + (0.0 if missing else tensors[f"{path}.{bias}"].double())).float()
    if not missing:
        return
    if path == "head":
        config["bias"] = True
        return
    config["trunk"][int(path.partition(".")[2])][1].pop("bias", None)
    if bias == "bias_ih":
        tensors[f"{path}.bias_hh"] = torch.zeros_like(tensors[f"{path}.bias_ih"])


def _renumbered(tensors: Tensors, gone: int) -> Tensors:
    """The parameters of the trunk without its layer `gone`."""
    found = {}
    for name, tensor in tensors.items():
        room, _, rest = name.partition(".")
        place, _, leaf = rest.partition(".")
        if room == "trunk" and int(place) == gone:
            continue
        later = room == "trunk" and int(place) > gone
        found[f"trunk.{int(place) - 1}.{leaf}" if later else name] = tensor
    return found


@dataclass(frozen=True)
class Proved:
    """A lossless agent, and how it compares on states that had no part in the search.

    `n_seen` states had; `left_out` are the steps that those others spoke against.
    """

    agent: Agent
    alike: Equivalence
    n_seen: int
    left_out: tuple[str, ...] = ()


def proved(agent: Agent, gather: Callable[[int], States], tries: int = 3) -> Proved:
    """`lossless`, proved on states of other episodes; where those show a difference, they are evidence, too.

    What still differs after so many tries is not done: a unit may be idle for very long. `gather` gives real states by
    a seed.

    Raises:
        RefusedError: actions change even so.
    """
    seen, seed, left_out = gather(0), 0, tuple[str, ...]()
    for without in (*[()] * tries, _BY_STATES[:1], _BY_STATES):
        seed, left_out = seed + 1, without
        found, fresh = lossless(agent, seen, without), gather(seed)
        alike = compare(agent, found, fresh)
        if alike.holds:
            return Proved(found, alike, len(seen), left_out)
        seen = together(seen, fresh)
    return Proved(found, check_equivalence(agent, found, fresh, "what was lossless before"), len(seen), left_out)
