"""Fake quantization: a network that computes in floats what it will compute on few levels, and learns all the while.

Weights are on their levels whenever they are read (Jacob et al. 2018), activations in front of every product; the
gradient goes straight through the rounding, and to the scales and levels (Esser et al. 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdcli.agents.agent import Agent
from kdcli.agents.packed_weights import is_quantized, unpack_into
from kdcli.agents.policy import Network, Policy
from kdcli.agents.states import States, actions
from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.activation_grid import TINY, DynamicQuantize, Quantize
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Stack
from kdcli.quantization.calibration import Calibration, minmax
from kdcli.quantization.observer_placement import as_stack, with_places
from kdcli.quantization.plan import Plan
from kdcli.quantization.rounding import straight_through
from kdcli.quantization.schemes import Scheme

_MOST = 1 << 22
_WHOLE = minmax(Choice("minmax"))


class Watch(nn.Module):
    """A place for a grid: gives what it is given, and keeps the first numbers of it."""

    def __init__(self, place: Quantize) -> None:
        super().__init__()
        self.place, self.seen, self._n = place, list[np.ndarray](), 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same."""
        if self._n < _MOST:
            self.seen.append(x.detach().numpy().copy())
            self._n += x.numel()
        return x


class Grid(nn.Module):
    """A `Quantize` whose scale is learned as its logarithm; where 0 lies stays."""

    zero: Tensor

    def __init__(self, scale: np.ndarray, zero: np.ndarray, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.log_scale = nn.Parameter(torch.from_numpy(scale.astype(np.float32)).log())
        self.register_buffer("zero", torch.from_numpy(zero.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return straight_through(x, self.log_scale.exp(), self.zero, self.low, self.high)

    def settled(self) -> Quantize:
        """The same, as it is now, for good."""
        made = Quantize(self.low, self.high, self.zero.numel() if self.zero.ndim else 0)
        made.scale, made.zero = self.log_scale.detach().exp(), self.zero.clone()
        return made


class DynamicGrid(DynamicQuantize):
    """A `DynamicQuantize` through whose rounding the gradient goes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        scale, zero = self.scale_of(x.detach()), torch.tensor(float(self.zero))
        return straight_through(x, scale, zero, self.low, self.high)

    def settled(self) -> DynamicQuantize:
        """The same, for good."""
        return DynamicQuantize(self.low, self.high, self.zero)


def check_floats(agent: Agent) -> None:
    """Raise UsageError for an agent that is quantized already."""
    if is_quantized(agent.policy):
        raise UsageError(f"{agent.name} is quantized already", "its weights lie on few levels", "start from its floats")


def prepare(agent: Agent, plan: Plan, states: States) -> Agent:
    """A new agent that acts as it will when quantized, ready to be trained: `settle` makes it one for good.

    Grids cover the ranges of activations in `states`. A critic is left out: it does not act.

    Raises:
        UsageError: the agent is quantized already.
    """
    check_floats(agent)
    policy = copy.deepcopy(agent.policy)
    policy.value, policy.critics = None, nn.ModuleList()
    if plan.activations:
        policy = _with_network(policy, _watched(policy.network, plan))
        if plan.calibration is not None:
            actions(replace(agent, policy=policy.eval()), states)
            _settle_watches(policy.network, plan.calibration, agent.preprocess.image)
    policy.requires_grad_(True)
    for name, module, key in list(products(policy.network)):
        _fake(module, key, plan.scheme_of(name))
    return replace(agent, policy=policy.eval())


def products(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The weight matrices: name of the parameter in the policy, module, and its key there."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.RNNCellBase) and not parametrize.is_parametrized(module):
            for key, parameter in module.named_parameters():
                if parameter.ndim > 1:
                    yield f"network.{name}.{key}", module, key


def _fake(module: nn.Module, key: str, scheme: Scheme) -> None:
    lattice = scheme.fit(getattr(module, key).detach().numpy())
    parametrize.register_parametrization(module, key, lattice, unsafe=True)


def _with_network(policy: Policy, network: Network) -> Policy:
    rest = policy.spread, None, policy.quantiles, policy.atoms
    return Policy(network, policy.rule, policy.signal, *rest)


def _watched(network: Network, plan: Plan) -> Stack:
    placed = with_places(as_stack(network), plan.places)
    _replace(placed, _in_training)
    return placed


def _in_training(module: nn.Module) -> nn.Module | None:
    if isinstance(module, DynamicQuantize):
        return DynamicGrid(module.low, module.high, module.zero)
    return Watch(module) if isinstance(module, Quantize) else None


def _settle_watches(network: nn.Module, calibration: Calibration, image: bool) -> None:
    """Observations keep their whole range: one that is cut off is a state that is not seen.

    That of an image is known, and stays: with 8 bits, its bytes are the codes.
    """
    first = {id(next(branch.children(), None)) for branch in network.branches}  # type: ignore[union-attr]

    def settled(module: nn.Module) -> Grid | Quantize | None:
        if not isinstance(module, Watch):
            return None
        if image and id(module) in first and not module.place.scale.ndim:
            return _of_image(module.place)
        return _grid(module, _WHOLE if id(module) in first else calibration)

    _replace(network, settled)


def _of_image(place: Quantize) -> Quantize:
    """The grid from 0 to 1."""
    made = Quantize(place.low, place.high)
    made.scale.fill_(1.0 / (place.high - place.low))
    made.zero.fill_(place.low)
    return made


def _replace(network: nn.Module, by: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace every module for which `by` gives another one."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (other := by(child)) is not None:
                module.register_module(name, other)


def _grid(watch: Watch, calibration: Calibration) -> Grid:
    """The grid over the range of what was seen."""
    place = watch.place
    seen = np.concatenate(watch.seen).astype(np.float64)
    seen = seen if place.scale.ndim else seen.reshape(-1)
    bits = (place.high - place.low + 1).bit_length() - 1
    low, high = calibration(seen, bits)
    scale, zero = between(low, high, place.low, place.high)
    return Grid(scale, zero, place.low, place.high)


def between(low: np.ndarray, high: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and the code of 0 of a grid from `first` to `last` that covers the range and 0.

    A range that is nearly as wide on both sides is symmetric: its middle code is 0.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    both = np.minimum(-low, high) > 0.5 * np.maximum(-low, high)
    most = np.maximum(-low, high)
    low, high = np.where(both, -most, low), np.where(both, most, high)
    middle = (first + last + 1) // 2
    scale = np.where(both, most / (last - middle), (high - low) / (last - first))
    scale = np.maximum(scale, TINY)
    zero = np.where(both, middle, np.round(-low / scale) + first)
    return np.asarray(scale), np.asarray(zero)


def settle(agent: Agent) -> Agent:
    """A new agent with what `prepare` and training made, for good: weights packed, grids fixed.

    Biases of products in whole numbers lie on the grid of their sums, as integer arithmetic has them: this is the only
    difference to the agent that was trained.
    """
    policy = copy.deepcopy(agent.policy).eval().requires_grad_(False)
    _replace(policy.network, lambda module: module.settled() if isinstance(module, Grid | DynamicGrid) else None)
    packing = _packed(policy)
    _round_biases(policy.network, packing)
    return replace(agent, policy=unpack_into(policy, packing))


def _packed(policy: Policy) -> dict[str, Packed]:
    """Parameter -> what it lies on; the lattices are taken off `policy`."""
    found: dict[str, Packed] = {}
    for name, module in list(policy.named_modules()):
        if parametrize.is_parametrized(module):
            parts: Any = module.parametrizations
            found |= {f"{name}.{key}": parts[key][0].packed(parts[key].original.detach()) for key in parts}
    _replace(policy.network, lambda module: _plain(module) if parametrize.is_parametrized(module) else None)
    return found


def _plain(module: nn.Module) -> nn.Module:
    """The module that was parametrized. Torch's own way back changes the class, which copies of the module share."""
    kind: Any = type(module).__bases__[0]
    made: nn.Module = kind.__new__(kind)
    parts = cast(Any, module.parametrizations)
    made.__dict__.update(module.__dict__)
    made._modules = {name: child for name, child in module._modules.items() if name != "parametrizations"}
    originals = {key: nn.Parameter(parts[key].original.detach(), requires_grad=False) for key in parts}
    made._parameters = {**module._parameters, **originals}
    return made


def _round_biases(network: Network, packing: Mapping[str, Packed]) -> None:
    if not isinstance(network, Stack):
        return
    names = {id(module): f"network.{name}.weight" for name, module in network.named_modules()}
    grids = [_round_in_turn(list(branch.children()), None, names, packing) for branch in network.branches]
    _round_in_turn([*network.trunk, network.head], grids[0] if len(grids) == 1 else None, names, packing)


def _round_in_turn(
    modules: list[nn.Module], grid: Quantize | None, names: Mapping[int, str], packing: Mapping[str, Packed]
) -> Quantize | None:
    """Round the biases of products whose input is on a grid, at first `grid`; the grid at the end."""
    for module in modules:
        if isinstance(module, nn.Linear | nn.Conv2d) and grid is not None:
            _round_bias(module, grid, packing[names[id(module)]])
        if not isinstance(module, nn.Flatten | nn.MaxPool2d):
            grid = module if isinstance(module, Quantize) else None
    return grid


def _round_bias(module: nn.Linear | nn.Conv2d, grid: Quantize, packed: Packed) -> None:
    """To multiples of what one step of the grid times one of the weights is, where both have eight bits or more."""
    if packed.scale is None or packed.bits < 8 or grid.high - grid.low < 255 or grid.scale.ndim or module.bias is None:
        return
    step = grid.scale.double() * torch.from_numpy(packed.scale).double()
    module.bias = nn.Parameter(((module.bias.double() / step).round() * step).float(), requires_grad=False)
