"""The running statistics of VecNormalize: found, read from their pickle, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.agents.observation import Normalizer
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.arrays import Array
from kdcli.checkpoints.safe.pickles import MAX_BYTES, Record, decode
from kdcli.errors import RefusedError, UsageError
from kdcli.files import read_bytes
from kdcli.progress import Listener, Note
from kdcli.spec import OBS

if TYPE_CHECKING:
    from kdcli.checkpoints.sb3.zoo import Surroundings

_ANSWER = "name the file with --vecnormalize, or say --no-vecnormalize"


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each part of the observations (`obs` where there is one), of its shape.

    `name` and `sha256` are those of the file.
    """

    of: Mapping[str, tuple[np.ndarray, np.ndarray]]
    epsilon: float
    clip: float
    name: str
    sha256: str

    def normalizer(self, part: str) -> Normalizer | None:
        """As the wrapper applies them to a part; None for a part that it leaves alone."""
        return None if part not in self.of else Normalizer.from_moments(*self.of[part], self.epsilon, self.clip)

    def variance(self) -> np.ndarray | None:
        """That of an observation that stands alone, flat; None where there are several."""
        return self.of[OBS][1].reshape(-1) if self.of.keys() == {OBS} else None


def find_moments(path: Path, config: LoadConfig, around: Surroundings, listen: Listener) -> Moments | None:
    """The statistics that belong to the checkpoint at `path`, or None when there are none.

    Raises:
        UsageError: the file named does not exist, or the training normalised and no file is found.
        RefusedError: the file is damaged or unsafe.
    """
    if config.vecnormalize == "none":
        return None
    if config.vecnormalize != "auto":
        return read_moments(Path(config.vecnormalize))
    if around.vecnormalize is None:
        if around.normalized:
            raise UsageError(
                f"{path.name} was trained on normalised observations", "their statistics are gone", _ANSWER
            )
        return None
    moments = read_moments(around.vecnormalize)
    if moments is not None:
        listen(Note(f"observations are normalised by {around.vecnormalize.name} beside it"))
        if path.stem == "best_model":
            listen(Note("best_model.zip may be older than these statistics; if its returns are low, that is why"))
    return moments


def read_moments(path: Path) -> Moments | None:
    """The statistics in the file at `path`; None when it normalises rewards only.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged or unsafe.
    """
    try:
        content = read_bytes(path, MAX_BYTES)
    except UsageError as error:
        raise UsageError(error.what, error.why, _ANSWER) from None
    state = _state(decode(content, path.name), path.name)
    if not state.get("norm_obs", True):
        return None
    epsilon, clip = _positive(state, "epsilon", 1e-8, path.name), _positive(state, "clip_obs", 10.0, path.name)
    of = {part: _statistics(rms, path.name) for part, rms in _each(state, path.name).items()}
    return Moments(of, epsilon, clip, path.name, hashlib.sha256(content).hexdigest()) if of else None


def _each(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The statistics of each part that is normalised; of a Dict, all parts unless some are named."""
    rms = state.get("obs_rms")
    if not isinstance(rms, dict):
        return {OBS: rms}
    keys = state.get("norm_obs_keys")
    if keys is None:
        return rms
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in rms for key in keys):
        raise RefusedError(f"{name}: norm_obs_keys is {str(keys)[:80]}", "there are no statistics of these")
    return {key: rms[key] for key in keys}


def _statistics(rms: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a RunningMeanStd."""
    if not isinstance(rms, Record) or not isinstance(rms.state, Mapping):
        raise RefusedError(f"{name} holds no statistics of observations", "obs_rms is missing")
    mean, variance = (_finite(rms.state, key, name) for key in ("mean", "var"))
    if mean.shape != variance.shape or (variance < 0).any():
        raise RefusedError(f"{name}: obs_rms.var is not a variance", f"shape {variance.shape}")
    return mean, variance


def _state(record: Any, name: str) -> Mapping[str, Any]:
    known = isinstance(record, Record) and record.called.name == "VecNormalize" and isinstance(record.state, Mapping)
    if not known:
        raise RefusedError(f"{name} is not a VecNormalize", "it is another pickle", _ANSWER)
    return record.state


def _finite(state: Mapping[str, Any], key: str, name: str) -> np.ndarray:
    value = state.get(key)
    if not isinstance(value, Array) or value.value is None or value.value.size == 0:
        raise RefusedError(f"{name}: obs_rms.{key} is missing", "it is not a complete VecNormalize")
    array = value.value.astype(np.float64)
    if not np.isfinite(array).all():
        raise RefusedError(f"{name}: obs_rms.{key} holds NaN or infinity", "the training diverged, or it is damaged")
    return array


def _positive(state: Mapping[str, Any], key: str, default: float, name: str) -> float:
    value = state.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise RefusedError(f"{name}: {key} is {str(value)[:40]}", "a positive number is expected")
    return float(value)
