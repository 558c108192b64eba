"""Units of what is regressed: how far the teacher's own values, Q-values and hidden layers vary over labelled states.

Returns are in the hundreds where a policy's divergence is a hundredth, and their common height hides the differences
that decide: a squared error in units of return is an error of the height. Compared in units of the teacher's own
variation, an error of 1 is that of the best constant, whatever the env's rewards. While a student trains, its output
layer is written in these units, too, so that a learning rate means the same for all of them; between trainings it gives
values in units of return, and what it gives does not change when the units do (van Hasselt et al. 2016, Pop-Art).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdcli.agents.heads import Heads
from kdcli.agents.packed_weights import is_quantized
from kdcli.agents.policy import Policy
from kdcli.distillation.buffer import Buffer

# What the common height of Q-values weighs beside their differences, which alone decide.
HEIGHT = 0.1
_OF_BOTH = ("q", "value")  # of the student in the teacher's units; it is a projection that is like the other heads
_LEAST = 1e-6  # of the size of the numbers: what varies less is constant


@dataclass(frozen=True, eq=False)
class Unit:
    """x = matrix z + shift: x (B, n) as the teacher says it, z in standard units; `inverse` is the matrix's."""

    matrix: Tensor
    inverse: Tensor
    shift: Tensor

    def standard(self, x: Tensor) -> Tensor:
        """(B, n), or (B,) of one number, in standard units."""
        return ((x[:, None] if x.ndim == 1 else x) - self.shift).matmul(self.inverse.T).view_as(x)

    def begin(self, layer: nn.Linear) -> None:
        """Take what a fresh layer gives for standard units."""
        with torch.no_grad():
            layer.weight.copy_(self.matrix @ layer.weight)
            layer.bias.copy_(self.matrix @ layer.bias + self.shift)

    @contextmanager
    def written(self, layer: nn.Linear) -> Iterator[None]:
        """Within, the numbers of a layer are those of standard units; what it gives is the same."""
        parametrize.register_parametrization(layer, "weight", _Written(self.matrix, self.inverse))
        parametrize.register_parametrization(layer, "bias", _Written(self.matrix, self.inverse, self.shift))
        try:
            yield
        finally:
            for name in ("weight", "bias"):
                parametrize.remove_parametrizations(layer, name)


class _Written(nn.Module):
    """matrix z + shift for z (n, ...)."""

    def __init__(self, matrix: Tensor, inverse: Tensor, shift: Tensor | None = None) -> None:
        super().__init__()
        self._matrix, self._inverse, self._shift = matrix, inverse, shift

    def forward(self, z: Tensor) -> Tensor:
        """Standard units -> the teacher's."""
        return self._matrix @ z if self._shift is None else self._matrix @ z + self._shift

    def right_inverse(self, x: Tensor) -> Tensor:
        """The teacher's units -> standard ones."""
        return self._inverse @ (x if self._shift is None else x - self._shift)


class Units:
    """The unit of each of `heads`, those that losses compare in standard units, measured on the states of a buffer."""

    def __init__(self, heads: Iterable[str], buffer: Buffer) -> None:
        columns = {name: buffer.column(name) for name in sorted(heads)}
        self._units = {
            name: _of_choices(x, buffer.groups or (x.shape[1],)) if name == "q" else _of_one(x)
            for name, x in columns.items()
            if x is not None
        }

    def standard(self, student: Heads, teacher: Heads) -> tuple[Heads, Heads]:
        """Both sets of heads, what is read in standard units being so."""
        ours, theirs = student.present(), teacher.present()
        return (
            student.having({n: u.standard(ours[n]) for n, u in self._units.items() if n in ours and n in _OF_BOTH}),
            teacher.having({n: u.standard(theirs[n]) for n, u in self._units.items() if n in theirs}),
        )

    def begin(self, policy: Policy) -> None:
        """Let the outputs of a fresh student begin where the teacher's are, and vary as far."""
        for name, layer in self._layers(policy).items():
            self._units[name].begin(layer)

    @contextmanager
    def written(self, policy: Policy) -> Iterator[None]:
        """Within, the output layers that give values hold numbers of standard units."""
        with ExitStack() as stack:
            for name, layer in self._layers(policy).items():
                stack.enter_context(self._units[name].written(layer))
            yield

    def _layers(self, policy: Policy) -> Mapping[str, nn.Linear]:
        """The output layer of each of these heads, where its numbers may be written otherwise."""
        value = policy.value if isinstance(policy.value, nn.Linear) or policy.value is None else policy.value.head
        found = {"q": policy.network.head if policy.signal == "q" and policy.n_pooled == 1 else None, "value": value}
        if is_quantized(policy):
            return {}
        return {name: layer for name, layer in found.items() if name in self._units and layer and _is_free(layer)}


def _is_free(layer: nn.Linear) -> bool:
    """Whether nothing else makes a layer's numbers, or holds them."""
    held = parametrize.is_parametrized(layer) or any(p._backward_hooks for p in layer.parameters())
    return layer.bias is not None and not held


def _of_one(x: Tensor) -> Unit:
    """The unit of numbers (N,) or (N, n) that belong together: one mean and one deviation for all."""
    n = 1 if x.ndim == 1 else x.shape[1]
    scale, eye = _deviation(x), torch.eye(n)
    return Unit(eye * scale, eye / scale, x.mean().expand(n))


def _of_choices(q: Tensor, groups: Sequence[int]) -> Unit:
    """The unit of Q-values (N, A): for each choice the height, its mean, apart from what the actions have above it.

    The mean of z^2 over the actions is the squared difference in its own deviation, plus HEIGHT times that of the
    height in its own.
    """
    made = [_of_choice(part) for part in q.split(list(groups), dim=1)]
    matrix, inverse = (torch.block_diag(*(getattr(u, name) for u in made)) for name in ("matrix", "inverse"))
    return Unit(matrix, inverse, torch.cat([u.shift for u in made]))


def _of_choice(q: Tensor) -> Unit:
    n, height = q.shape[1], q.mean(1, keepdim=True)
    tall, apart = _deviation(height) / HEIGHT**0.5, _deviation(q - height)
    mean = torch.full((n, n), 1.0 / n)
    rest = torch.eye(n) - mean
    return Unit(tall * mean + apart * rest, mean / tall + rest / apart, height.mean().expand(n))


def _deviation(x: Tensor) -> Tensor:
    """The root of the mean square distance of all numbers from their mean, 1 where they are the same."""
    found = x.double().std(correction=0).float()
    return found if float(found) > _LEAST * float(x.abs().max()) else torch.ones(())
