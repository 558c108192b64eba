"""From the raw observation of an env to the features a network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.spec import MASK, OBS, Box, Dict, Discrete, MultiDiscrete, Part, Space, n_features


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
    VecNormalize wrapper, so results are equal bit for bit. With `channels_last` the env gives images (H, W, C) and the
    network reads (C, H, W), flattened. `columns` (K,), in rising order, are those of the flat features that are read,
    all without it; then the normalizer has mean and scale of these alone, (K,).
    """

    space: Part
    normalizer: Normalizer | None = None
    image: bool = False
    channels_last: bool = False
    columns: tuple[int, ...] | None = None

    @property
    def n_features(self) -> int:
        """The number of features of one observation."""
        return n_features(self.space) if self.columns is None else len(self.columns)

    @cached_property
    def places(self) -> np.ndarray | None:
        """Where `columns` lie in the flat raw observation (K,); of integers, among their one-hot numbers."""
        if self.columns is None:
            return None
        order = np.arange(n_features(self.space))
        if self.channels_last:
            order = np.moveaxis(order.reshape(self.space.shape), -1, 0).reshape(-1)
        return order[list(self.columns)]

    @property
    def parts(self) -> dict[str, Preprocess]:
        """The observations side by side, by name."""
        return {OBS: self}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features before they are flattened: (C, H, W) of an image, (N, D) of rows, else (F,).

        An image whose channels come last, and stay there, is numbers: its rows are no channels.
        """
        if isinstance(self.space, Box) and len(self.space.shape) == 2 and self.columns is None:
            return self.space.shape
        if not isinstance(self.space, Box) or len(self.space.shape) != 3 or self.columns is not None:
            return (self.n_features,)
        if not self.channels_last and looks_channels_last(self.space):
            return (self.n_features,)
        *size, channels = self.space.shape if self.channels_last else (*self.space.shape[1:], self.space.shape[0])
        return (channels, *size)

    @property
    def n_constants(self) -> int:
        """Numbers the normalizer brings into a deployed file, counted beside the parameters."""
        return 0 if self.normalizer is None else 2 * self.normalizer.mean.size

    def __call__(self, obs: np.ndarray) -> Tensor:
        """Raw observations (B, *shape) -> features (B, F)."""
        if isinstance(self.space, Discrete):
            return self._chosen(_one_hot(obs.reshape(-1).astype(np.int64) - self.space.start, self.space.n))
        if isinstance(self.space, MultiDiscrete):
            groups = zip(obs.astype(np.int64).T, self.space.nvec, strict=True)
            return self._chosen(torch.cat([_one_hot(part, n) for part, n in groups], dim=1))
        if self.places is not None:
            obs = obs.reshape(len(obs), -1)[:, self.places]
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        features = torch.from_numpy(np.ascontiguousarray(self._in_order(obs), np.float32)).reshape(len(obs), -1)
        return features / 255.0 if self.image else features

    def _chosen(self, one_hot: Tensor) -> Tensor:
        return one_hot if self.places is None else one_hot[:, self.places]

    def _in_order(self, obs: np.ndarray) -> np.ndarray:
        """Channels before rows; what was picked by its place is in order already."""
        return np.moveaxis(obs, -1, 1) if self.channels_last and self.places is None else obs

    @property
    def feature_bytes(self) -> int:
        """Bytes of the packed features of one observation."""
        return self.n_features * (1 if self._is_packed else 4)

    @property
    def _is_packed(self) -> bool:
        """Whether features are the observation's own bytes, divided by 255 when they are read."""
        return self.image and self.normalizer is None

    def pack(self, obs: np.ndarray) -> Tensor:
        """Raw observations (B, *shape) -> features (B, F) to be kept: an image as the bytes it is."""
        if not self._is_packed:
            return self(obs)
        read = obs if self.places is None else obs.reshape(len(obs), -1)[:, self.places]
        return torch.from_numpy(np.ascontiguousarray(self._in_order(read))).reshape(len(obs), -1)

    def unpack(self, packed: Tensor) -> Tensor:
        """What `pack` gave -> features (B, F) float32."""
        return packed.float() / 255.0 if self._is_packed else packed


@dataclass(frozen=True, eq=False)
class JointPreprocess:
    """Raw observations of a Dict, a structured array (B,) -> features (B, F) float32 of all parts, side by side.

    The features are in the order of the space, those of the action mask last.
    """

    space: Dict
    given: Mapping[str, Preprocess]

    @cached_property
    def parts(self) -> dict[str, Preprocess]:
        """How each part is read, in the order of the features."""
        names = sorted(self.space.spaces, key=lambda name: name == MASK)  # stable: only the mask moves
        return {name: self.given[name] for name in names}

    normalizer = None  # each part has its own
    image = False

    @property
    def n_features(self) -> int:
        """The number of features of one observation."""
        return sum(part.n_features for part in self.given.values())

    @property
    def n_constants(self) -> int:
        """Numbers the normalizers bring into a deployed file."""
        return sum(part.n_constants for part in self.given.values())

    def __call__(self, obs: np.ndarray) -> Tensor:
        """Raw observations (B, *shape) -> features (B, F)."""
        return torch.cat([part(obs[name]) for name, part in self.parts.items()], 1)

    @property
    def feature_bytes(self) -> int:
        """Bytes of the packed features of one observation."""
        return 4 * self.n_features

    def pack(self, obs: np.ndarray) -> Tensor:
        """Raw observations (B,) -> features (B, F) to be kept."""
        return self(obs)

    def unpack(self, packed: Tensor) -> Tensor:
        """What `pack` gave -> features (B, F) float32."""
        return packed


Preprocessor = Preprocess | JointPreprocess


def plain(space: Space) -> Preprocessor:
    """How observations are read where nothing is known but their space: images divided by 255, else as they are."""
    if isinstance(space, Dict):
        return JointPreprocess(space, {name: plain_part(part) for name, part in space.spaces.items()})
    return plain_part(space)


def plain_part(space: Part) -> Preprocess:
    """The same of one part; of an image, the channels are the shortest axis."""
    image = is_image(space)
    return Preprocess(space, image=image, channels_last=image and looks_channels_last(space))


def looks_channels_last(space: Part) -> bool:
    """Whether the last of three axes is the shortest, as the channels of an image (H, W, C) are."""
    return len(space.shape) == 3 and space.shape[2] < min(space.shape[:2])


def _one_hot(index: np.ndarray, n: int) -> Tensor:
    return F.one_hot(torch.from_numpy(index), n).float()


def is_image(space: Space) -> bool:
    """Whether Stable-Baselines3 takes the space for an image and divides by 255: uint8, three axes, 0 to 255."""
    if not isinstance(space, Box) or space.dtype != "uint8" or len(space.shape) != 3:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())
