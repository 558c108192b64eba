"""Single weights become zero: the shapes stay, and so does the time of onnxruntime, which multiplies by zeros, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdcli.agents.agent import Agent
from kdcli.errors import UsageError, option
from kdcli.pruning.activation_stats import run
from kdcli.pruning.surgery import Tensors, built, like, with_network
from kdcli.pruning.unit_stats import UnitStats

Scores = dict[str, Tensor]


def check_judges_weights(importance: str) -> None:
    """Raise UsageError for an importance that judges units only."""
    if importance not in _SCORES:
        why, fix = f"for weights: {', '.join(_SCORES)}", f"give {option('importance', 'magnitude')}"
        raise UsageError(f"{importance!r} judges units, not single weights", why, fix)


def weight_scores(unit_stats: UnitStats, importance: str) -> Scores:
    """Parameter -> how much each of its weights matters; biases are not judged.

    Raises:
        UsageError: this importance judges units only.
    """
    check_judges_weights(importance)
    return _SCORES[importance](unit_stats)


def _matrices(unit_stats: UnitStats) -> Tensors:
    return {name: tensor for name, tensor in unit_stats.tensors.items() if tensor.ndim > 1}


def _magnitude(unit_stats: UnitStats) -> Scores:
    """|w|."""
    return {name: tensor.abs() for name, tensor in _matrices(unit_stats).items()}


def _activation(unit_stats: UnitStats) -> Scores:
    """|w| times the root mean square of what it multiplies: Sun et al. 2023 (Wanda)."""
    found = {}
    for reader, seen in zip(unit_stats.body.readers, unit_stats.seen, strict=True):
        scale = (seen.variance + seen.mean.square()).mean(1).sqrt().float()
        weight = unit_stats.tensors[reader.weight]
        found[reader.weight] = weight.abs() * scale.reshape(1, -1, *(1,) * (weight.ndim - 2))
    return found


def _taylor(unit_stats: UnitStats) -> Scores:
    """E[(w do/dw)^2] of random sums o of the outputs, by small batches: Molchanov et al. 2019."""
    rule, draw = unit_stats.agent.rule, torch.Generator().manual_seed(0)
    weights = {name: p for name, p in unit_stats.agent.policy.network.named_parameters() if p.ndim > 1}
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    _require(weights, True)
    for heads in run(unit_stats.agent, unit_stats.states, batch=16):
        outputs = rule.unit(heads.scores()) if rule.continuous else heads.scores()
        signs = torch.randint(0, 2, outputs.shape, generator=draw) * 2.0 - 1.0
        slopes = torch.autograd.grad((outputs * signs).sum(), list(weights.values()))
        for (name, p), slope in zip(weights.items(), slopes, strict=True):
            total[name] += (p.detach() * slope).square()
    _require(weights, False)
    return total


def _require(weights: Mapping[str, Tensor], gradient: bool) -> None:
    for p in weights.values():
        p.requires_grad_(gradient)


def _movement(unit_stats: UnitStats) -> Scores:
    """w (w - w before): Sanh et al. 2020."""
    if unit_stats.before is None:
        raise UsageError("movement needs training", "the weights did not move yet", f"give {option('recover')}")
    old = UnitStats(unit_stats.before, unit_stats.states).tensors
    return {name: tensor * (tensor - old[name]) for name, tensor in _matrices(unit_stats).items()}


_SCORES: Mapping[str, Callable[[UnitStats], Scores]] = {
    "magnitude": _magnitude,
    "activation": _activation,
    "taylor": _taylor,
    "movement": _movement,
}


def masked(unit_stats: UnitStats, masks: Mapping[str, Tensor]) -> Agent:
    """The agent with zeros where a mask (the parameter's shape, bool) is false."""
    tensors = {name: tensor * masks[name] if name in masks else tensor for name, tensor in unit_stats.tensors.items()}
    stack = built(unit_stats.stack.config(), tensors)
    return with_network(unit_stats.given, like(stack, unit_stats.given.policy.network))


def sparsest(unit_stats: UnitStats, scores: Scores, n_nonzero: int, uniform: bool) -> dict[str, Tensor]:
    """Masks that leave `n_nonzero` numbers in all, biases among them; `uniform`: the same share of every matrix.

    A weight that is zero already stays zero.
    """
    matrices = _matrices(unit_stats)
    fixed = sum(tensor.numel() for tensor in unit_stats.tensors.values()) - sum(t.numel() for t in matrices.values())
    room = n_nonzero - fixed
    if room < len(matrices):
        raise UsageError(
            f"{n_nonzero:,} numbers are too few",
            f"{fixed:,} are biases, which stay",
            f"{option('to', f'nonzeros<={fixed + len(matrices)}')} is the least",
        )
    ranked = {name: torch.where(tensor == 0, -torch.inf, scores[name]) for name, tensor in matrices.items()}
    if uniform:
        share = room / sum(tensor.numel() for tensor in matrices.values())
        return {name: _top(score, max(1, int(share * score.numel()))) for name, score in ranked.items()}
    flat = _top(torch.cat([score.flatten() for score in ranked.values()]), room)
    parts = flat.split([score.numel() for score in ranked.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(ranked.items(), parts, strict=True)}


def _top(scores: Tensor, n: int) -> Tensor:
    """A mask of the n largest."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().argsort(descending=True, stable=True)[:n]] = True
    return mask.reshape(scores.shape) & (scores > -torch.inf)


def n_of_m(scores: Scores, n: int, m: int) -> dict[str, Tensor]:
    """Masks with the `n` largest of every `m` neighbours along the inputs; a rest shorter than `m` stays whole."""
    return {name: _blocks(score.flatten(1), n, m).reshape(score.shape) for name, score in scores.items()}


def _blocks(scores: Tensor, n: int, m: int) -> Tensor:
    rows, width = scores.shape
    whole = width - width % m
    mask = torch.ones(rows, width, dtype=torch.bool)
    blocks = scores[:, :whole].reshape(rows, -1, m)
    best = blocks.argsort(dim=2, descending=True, stable=True)[:, :, :n]
    mask[:, :whole] = torch.zeros_like(blocks, dtype=torch.bool).scatter(2, best, True).reshape(rows, whole)
    return mask
