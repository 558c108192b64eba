"""States near those that were seen, which the teacher labels, too: they count as labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdcli.agents.actor import Actor, no_memory
from kdcli.agents.observation import is_image
from kdcli.choice import Choice
from kdcli.distillation import AUGMENTATIONS
from kdcli.errors import UsageError, option
from kdcli.spec import MASK, Box, Dict, Part, parts, split_rows

# One part of the observation (N, *shape), how much, and chance -> the same moved.
Move = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def gaussian(rows: np.ndarray, much: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on every number, `much` of its standard deviation over the rows."""
    return rows + much * rows.std(0) * rng.standard_normal(rows.shape)


def mix(rows: np.ndarray, much: float, rng: np.random.Generator) -> np.ndarray:
    """From each row some way, up to `much` of it, to another row; after Zhang et al. 2018 (mixup), labelled anew."""
    share = rng.uniform(0.0, much, len(rows)).reshape(-1, *[1] * (rows.ndim - 1))
    return rows + share * (rows[rng.permutation(len(rows))].astype(np.float64) - rows)


def shift(rows: np.ndarray, much: float, rng: np.random.Generator) -> np.ndarray:
    """Images (N, C, H, W) or (N, H, W, C) moved by up to `much` pixels each way, edges repeated.

    Kostrikov et al. 2021 (DrQ), section 3.2.
    """
    pad, last = int(much), rows.shape[-1] <= 4
    high, wide = (1, 2) if last else (2, 3)
    widths = [(pad, pad) if axis in (high, wide) else (0, 0) for axis in range(4)]
    padded, moved = np.pad(rows, widths, mode="edge"), np.empty_like(rows)
    for row, (y, x) in enumerate(rng.integers(0, 2 * pad + 1, (len(rows), 2))):
        h, w = rows.shape[high], rows.shape[wide]
        moved[row] = padded[row, y : y + h, x : x + w] if last else padded[row, :, y : y + h, x : x + w]
    return moved


@dataclass(frozen=True)
class Augmentation:
    """One way to move states, and the share of the labels it gets."""

    move: Move
    much: float
    share: float
    for_images: bool

    def __call__(self, teacher: Actor, obs: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` moved states of those in `obs` (N, *shape), raw and inside the space.

        Raises:
            UsageError: the teacher has memory, or sees nothing that can be moved so.
        """
        no_memory(teacher)
        rows = obs[rng.integers(0, len(obs), n)]
        space = teacher.observation
        named = {name: part for name, part in parts(space).items() if self._fits(name, part)}
        if not named:
            kind = "image" if self.for_images else "number"
            raise UsageError(
                "this augmentation does not fit",
                f"the observation has no {kind}",
                f"choose another: kdcli list augmentations, or leave {option('augment')} out",
            )
        moved = rows.copy()
        for name, part in named.items():
            found = _inside(part, self.move(split_rows(space, rows)[name], self.much, rng))
            moved[name if isinstance(space, Dict) else ...] = found
        return moved

    def _fits(self, name: str, part: Part) -> bool:
        return isinstance(part, Box) and name != MASK and is_image(part) == self.for_images


def _inside(space: Part, rows: np.ndarray) -> np.ndarray:
    assert isinstance(space, Box)
    return np.clip(rows, space.low, space.high).astype(space.dtype)


def parse_augmentation(text: str) -> Augmentation | None:
    """`gaussian:0.05`, `shift:4,share=0.25`; none for an empty text.

    Raises:
        UsageError: unknown name, or a number that is not one.
    """
    if not text:
        return None
    choice = Choice.parse(text).only("share")
    move = AUGMENTATIONS.load(choice.name)
    try:
        much, share = float(choice.value), float(choice.options.get("share", "0.5"))
    except ValueError:
        much, share = -1.0, 0.5
    if not (0.0 < much < np.inf and 0.0 < share < 1.0):
        why = "it takes a positive number, and a share of the labels below 1"
        raise UsageError(f"cannot read {text!r}", why, f"{choice.name}:0.05,share=0.5")
    return Augmentation(move, much, share, move is shift)
