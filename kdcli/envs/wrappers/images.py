"""Wrappers of images; each works on every image in a Dict of observations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import flag, size, whole, word
from kdcli.envs.wrappers.parts import Map, Mapped
from kdcli.errors import UsageError

_IMAGES = "images (height, width, channels)"
_NTSC = np.array([0.2125, 0.7154, 0.0721])


def need_cv2() -> Any:
    """The module cv2.

    Raises:
        UsageError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UsageError("the wrapper needs OpenCV", str(error), "pip install 'kdcli[atari]'") from None
    return cv2


def _need_pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError("the wrapper needs Pillow", str(error), "pip install 'kdcli[atari]'") from None
    return Image


def _pictures(shape: tuple[int, ...]) -> Box:
    return Box(0, 255, shape, np.uint8)


def crop_rows(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """The rows `first` <= row < `end` of each image."""
    choice.only("first", "end")
    first, end = whole(choice, "first", 0, least=0), whole(choice, "end")

    def change(space: Box) -> tuple[Box, Map] | None:
        if len(space.shape) not in (2, 3) or not first < end <= space.shape[0]:
            return None
        return Box(space.low[first:end], space.high[first:end], dtype=space.dtype.type), lambda obs: obs[first:end]

    return Mapped(env, change, f"images of at least {end} rows")


def _weighted(obs: np.ndarray) -> np.ndarray:
    return (obs * _NTSC).sum(-1, keepdims=True).astype(np.uint8)


def _by_cv2() -> Map:
    cv2 = need_cv2()
    return lambda obs: cv2.cvtColor(obs, cv2.COLOR_RGB2GRAY)[..., None]


def _mean(obs: np.ndarray) -> np.ndarray:
    # The same as obs.mean(-1), in a third of the time: adding up an axis of three is slow.
    return (obs[..., :1].astype(np.uint16) + obs[..., 1:2] + obs[..., 2:]) / 3


_GRAY: dict[str, Map] = {"weights": _weighted, "mean": _mean}


def grayscale(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Gray images (H, W, 1), or with `flat` (H, W), of (H, W, 3) ones.

    `weights` is gymnasium's since 1.0, `cv2` gym's and gymnasium's before, `mean` the mean as a real number.
    """
    choice.only("flat")
    kind, flat = word(choice, "", ("weights", "cv2", "mean")), flag(choice, "flat")
    turn = _by_cv2() if kind == "cv2" else _GRAY[kind]

    def change(space: Box) -> tuple[Box, Map] | None:
        if len(space.shape) != 3 or space.shape[2] != 3 or space.dtype != np.uint8:
            return None
        shape = space.shape[:2] if flat else (*space.shape[:2], 1)
        new = Box(0.0, 255.0, shape, np.float64) if kind == "mean" else _pictures(shape)
        return new, (lambda obs: turn(obs)[..., 0]) if flat else turn

    return Mapped(env, change, "colour images (height, width, 3) of bytes")


def resize(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Images of bytes (H, W) or (H, W, C) in another size.

    `area` is OpenCV's, as gymnasium's ResizeObservation has it; `bilinear` Pillow's, as scipy's imresize had it.
    """
    choice.only("by")
    height, width = size(choice)
    by = word(choice, "by", ("area", "bilinear"))
    turn = _by_area(height, width) if by == "area" else _by_bilinear(height, width)

    def change(space: Box) -> tuple[Box, Map] | None:
        if len(space.shape) not in (2, 3) or space.dtype != np.uint8:
            return None
        shape = (height, width, *space.shape[2:])
        return _pictures(shape), lambda obs: turn(obs).reshape(shape)

    return Mapped(env, change, f"{_IMAGES} of bytes")


def _by_area(height: int, width: int) -> Map:
    cv2 = need_cv2()
    return lambda obs: cv2.resize(obs, (width, height), interpolation=cv2.INTER_AREA)


def _by_bilinear(height: int, width: int) -> Map:
    image = _need_pillow()

    def plane(obs: np.ndarray) -> np.ndarray:
        return np.asarray(image.fromarray(obs).resize((width, height), image.Resampling.BILINEAR))

    def turn(obs: np.ndarray) -> np.ndarray:
        return plane(obs) if obs.ndim == 2 else np.stack([plane(obs[..., c]) for c in range(obs.shape[2])], -1)

    return turn


def _stretched(obs: np.ndarray) -> np.ndarray:
    """Least to greatest as 0 to 255, rounded half up."""
    low = obs.min()
    scaled = (obs - low) * (255.0 / (float(obs.max() - low) or 1.0))
    return (scaled.clip(0, 255) + 0.5).astype(np.uint8)


def bytescale(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Each frame's least to greatest value as 0 to 255, as scipy's bytescale did."""
    choice.only()
    return Mapped(env, lambda s: (_pictures(s.shape), _stretched) if len(s.shape) in (2, 3) else None, _IMAGES)


def to_bytes(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Images of truth values, or of numbers between finite bounds, as bytes: the lower bound 0, the upper 255."""
    choice.only()

    def change(space: Box) -> tuple[Box, Map] | None:
        low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
        if len(space.shape) not in (2, 3) or not np.isfinite(high - low).all():
            return None
        factor = 255.0 / np.where(high > low, high - low, 1.0)
        return _pictures(space.shape), lambda obs: ((obs - low) * factor + 0.5).astype(np.uint8)

    return Mapped(env, change, "images between finite bounds")


def _transposed(env: gymnasium.Env, order: tuple[int, int, int], needs: str) -> gymnasium.Env:
    def change(space: Box) -> tuple[Box, Map] | None:
        if len(space.shape) != 3:
            return None
        low, high = space.low.transpose(order), space.high.transpose(order)
        return Box(low, high, dtype=space.dtype.type), lambda obs: obs.transpose(order)

    return Mapped(env, change, needs)


def channels_first(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Images (C, H, W) of (H, W, C) ones, as Stable-Baselines3's VecTransposeImage."""
    choice.only()
    return _transposed(env, (2, 0, 1), _IMAGES)


def channels_last(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Images (H, W, C) of (C, H, W) ones."""
    choice.only()
    return _transposed(env, (1, 2, 0), "images (channels, height, width)")
