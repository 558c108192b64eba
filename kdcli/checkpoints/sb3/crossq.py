"""CrossQ: SAC whose layers see normalised inputs. Out of training, batch renormalisation is a plain scaling.

It is folded into the layer that follows, in float64 (Bhatt et al. 2024; Ioffe 2017): what remains is an MLP.
"""

from __future__ import annotations

import re

import torch

from kdcli.agents.policy import Policy
from kdcli.checkpoints.assembly import SCALING, Part, activation, folded, linear
from kdcli.checkpoints.safe.weights import Layer, Weights
from kdcli.checkpoints.sb3.actor_critic import spread
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.checkpoints.sb3.off_policy import acting, clip_mean, has_linear_spread, linear_spread, mean_layer, squashed
from kdcli.checkpoints.sb3.off_policy import unneeded as off_policy_unneeded
from kdcli.errors import RefusedError
from kdcli.progress import Listener, Note

_LATENT = "actor.latent_pi"
_INDEXED = re.compile(r"\.(\d{1,6})\.(weight|ra_mean)$", re.ASCII)


def unneeded(saved: Saved) -> tuple[str, ...]:
    """What SAC does not need, and how many steps the statistics are of."""
    steps = (name for name in saved.weights.state if name.startswith(_LATENT) and name.endswith(".steps"))
    return (*off_policy_unneeded(saved), *steps)


def policy(saved: Saved, listen: Listener) -> Policy:
    """SAC's Gaussian actor, without the statistics between its layers."""
    what, mu = saved.weights.what, mean_layer(saved)
    hidden = _latent(saved)
    after = [part for part in hidden[-1:] if part.kind == SCALING]
    network = acting(saved, "actor", folded([*hidden, linear(mu)], what))
    if has_linear_spread(saved):
        noise = linear_spread(_layer(folded([*after, linear(saved.weights.linear("actor.log_std"))], what)), mu, what)
        return Policy(network, squashed(saved, 0.0), "mean", noise)
    gsde = spread(saved, "actor.log_std", mu.weight, listen)
    if after:
        listen(Note("its exploration noise reads normalised features that are no more: it will act without noise"))
    return Policy(network, squashed(saved, clip_mean(saved)), "mean", None if after else gsde)


def _layer(parts: list[Part]) -> Layer:
    [part] = parts
    return Layer("actor.log_std", part.tensors["weight"], part.tensors.get("bias"))


def _latent(saved: Saved) -> list[Part]:
    """The hidden layers: scaling, linear, activation, ..., scaling; no scalings with `batch_norm=False`.

    Raises:
        RefusedError: it is another sequence.
    """
    weights, name, epsilon = saved.weights, saved.activation("relu"), _epsilon(saved)
    matches = (_INDEXED.match(key, len(_LATENT)) for key in weights.state if key.startswith(_LATENT))
    found = sorted((int(match[1]), match[2]) for match in matches if match)
    if not any(kind == "ra_mean" for _, kind in found):
        return [part for layer in weights.linears(_LATENT) for part in (linear(layer), activation(name))]
    starts = range(0, 3 * (len(found) // 2), 3)
    wanted = [(start + offset, kind) for start in starts for offset, kind in enumerate(("ra_mean", "weight"))]
    if found != [*wanted, (len(starts) * 3, "ra_mean")]:
        raise RefusedError(f"{weights.what}: {_LATENT} is no MLP of CrossQ", f"its layers are {str(found)[:80]}")
    layers = [
        part
        for start in starts
        for part in (
            _scaling(weights, f"{_LATENT}.{start}", epsilon),
            linear(weights.linear(f"{_LATENT}.{start + 1}")),
            activation(name),
        )
    ]
    return [*layers, _scaling(weights, f"{_LATENT}.{len(starts) * 3}", epsilon)]


def _scaling(weights: Weights, prefix: str, epsilon: float) -> Part:
    """(x - ra_mean) / sqrt(ra_var + epsilon) * scale + bias, all (F,)."""
    names = ("ra_mean", "ra_var", "scale", "bias")
    mean, variance, scale, bias = (weights.take(f"{prefix}.{name}").double() for name in names)
    if mean.ndim != 1 or len({tensor.shape for tensor in (mean, variance, scale, bias)}) > 1 or (variance < 0).any():
        raise RefusedError(f"{weights.what}: {prefix} holds no statistics", f"ra_mean has shape {tuple(mean.shape)}")
    factor = scale / torch.sqrt(variance + epsilon)
    return Part(SCALING, {}, {"scale": factor, "shift": bias - mean * factor})


def _epsilon(saved: Saved) -> float:
    """What is added to variances; not in the weights, 0.001 unless told otherwise."""
    epsilon = saved.kwargs.get("batch_norm_eps", 0.001)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < float("inf"):
        raise RefusedError(f"{saved.name}: batch_norm_eps is {str(epsilon)[:40]}", "it must be a positive number")
    return float(epsilon)
