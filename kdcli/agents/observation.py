"""From the raw observation of an env to the features a network reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.spec import Box, Discrete, MultiDiscrete, Space, n_features


@dataclass(frozen=True, eq=False)
class Normalizer:
    """(x - mean) / scale, clipped to +-clip (or infinity), in float64; mean, scale: the observation's shape."""

    mean: np.ndarray
    scale: np.ndarray
    clip: float

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Raw observations (B, *shape) -> normalized ones, float64."""
        scaled = (obs - self.mean) / self.scale
        return np.clip(scaled, -self.clip, self.clip, out=scaled)

    @classmethod
    def from_moments(
        cls, mean: np.ndarray, variance: np.ndarray, epsilon: float = 1e-8, clip: float = 10.0
    ) -> Normalizer:
        """From running statistics, as Stable-Baselines3's VecNormalize applies them."""
        return cls(np.asarray(mean, np.float64), np.sqrt(np.asarray(variance, np.float64) + epsilon), float(clip))

    @classmethod
    def from_data(cls, observations: np.ndarray) -> Normalizer:
        """From observations (N, ...), not clipped; a column that never varies is centred, not blown up."""
        data = observations.astype(np.float64)
        mean, std = data.mean(0), data.std(0)
        return cls(mean, np.where(std > 1e-6 * np.maximum(1.0, np.abs(mean)), std, 1.0), np.inf)


@dataclass(frozen=True, eq=False)
class Preprocess:
    """Raw observations (B, *shape) -> features (B, F) float32.

    Integers become one-hot; `image` divides by 255; `normalizer` comes before the cast to float32, as in the
    VecNormalize wrapper, so results are equal bit for bit.
    """

    space: Space
    normalizer: Normalizer | None = None
    image: bool = False

    @property
    def n_features(self) -> int:
        return n_features(self.space)

    @property
    def n_constants(self) -> int:
        """Numbers the normalizer brings into a deployed file, counted beside the parameters."""
        return 0 if self.normalizer is None else 2 * self.normalizer.mean.size

    def __call__(self, obs: np.ndarray) -> Tensor:
        if isinstance(self.space, Discrete):
            return _one_hot(obs.reshape(-1).astype(np.int64) - self.space.start, self.space.n)
        if isinstance(self.space, MultiDiscrete):
            groups = zip(obs.astype(np.int64).T, self.space.nvec, strict=True)
            return torch.cat([_one_hot(part, n) for part, n in groups], dim=1)
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        features = torch.from_numpy(np.ascontiguousarray(obs, np.float32)).reshape(len(obs), -1)
        return features / 255.0 if self.image else features

    def in_chunks(self, obs: np.ndarray, rows: int = 65536) -> Iterator[Tensor]:
        """Features of many observations, `rows` at a time, so that memory stays bounded."""
        for start in range(0, len(obs), rows):
            yield self(obs[start : start + rows])


def _one_hot(index: np.ndarray, n: int) -> Tensor:
    return F.one_hot(torch.from_numpy(index), n).float()


def is_image(space: Space) -> bool:
    """Whether Stable-Baselines3 takes the space for an image and divides by 255: uint8, three axes, 0 to 255."""
    if not isinstance(space, Box) or space.dtype != "uint8" or len(space.shape) != 3:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())
