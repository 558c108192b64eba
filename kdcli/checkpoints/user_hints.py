"""What a checkpoint does not say and its user must: each missing answer is an error that names the option."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdcli import artifact
from kdcli.agents.action import Squash
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.env_ids import Inputs
from kdcli.checkpoints.safe.zips import open_zip
from kdcli.checkpoints.sb3.zoo import find_env, read_surroundings
from kdcli.errors import RefusedError, UsageError, unknown
from kdcli.networks.activations import ACTIVATIONS
from kdcli.progress import Listener
from kdcli.spec import Box, Dict, EnvSpec, Part, Space, handed

MAX_STATS = 2**28


@dataclass(frozen=True, eq=False)
class Place:
    """The spaces of an agent, and the env they were seen in, where it is known."""

    env: EnvSpec | None
    observation: Space
    action: Part


def find_place(path: Path, config: LoadConfig, n_inputs: int, listen: Listener) -> Place | None:
    """The env that `config` or the files around the checkpoint name, made once to see its spaces; None if none does.

    Raises:
        UsageError: it cannot be made, or takes actions of a Dict.
    """
    env = find_env(path, config, read_surroundings(path), Inputs(n_inputs), listen)
    return None if env is None else place(env)


def place(env: EnvSpec) -> Place:
    """The env with its spaces.

    Raises:
        UsageError: it cannot be made, or takes actions of a Dict.
    """
    from kdcli.envs.make import make, to_space

    made = make(env)
    try:
        observation, action = to_space(made.observation_space), to_space(made.action_space)
    finally:
        made.close()
    if isinstance(action, Dict):
        raise UsageError(
            f"{env} takes actions of {action}", "kdcli knows single actions", "name another env with --env"
        )
    return Place(env, observation, handed(action))


def need_place(path: Path, config: LoadConfig, n_inputs: int, listen: Listener) -> Place:
    """As `find_place`.

    Raises:
        UsageError: no env is named.
    """
    found = find_place(path, config, n_inputs, listen)
    if found is None:
        raise no_env(path.name)
    return found


def no_env(name: str) -> UsageError:
    """The error for a file that needs an env to be named."""
    return UsageError(f"{name} does not say what it observes and does", "", "name the env it was trained on with --env")


def activations(config: LoadConfig, n: int, what: str, usual: str) -> list[str]:
    """The names of `n` activations, of which the last may be one too many; `usual` is the library's own.

    Raises:
        UsageError: `--activation` is missing, or names none.
    """
    if config.activation is None:
        why = "its weights are the same with any"
        raise UsageError(f"{what} does not say its activation", why, f"--activation {usual} is the library's own")
    names = [name.strip() for name in config.activation.split(",")]
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)
    if len(names) not in (1, n):
        raise UsageError(
            f"--activation names {len(names)}", f"{what} has {n} hidden layers", "name one, or one for each"
        )
    return names * n if len(names) == 1 else names


def squash(config: LoadConfig, action: Space, what: str) -> Squash:
    """How the network's output becomes an action of a Box.

    Raises:
        UsageError: `--squash` is missing.
    """
    if not isinstance(action, Box):
        return "clip"
    if config.squash is None:
        why = "its policy may end in a tanh that leaves no trace in the weights"
        raise UsageError(f"{what} does not say how it acts", why, "--squash clip, or tanh where its output is a tanh")
    return config.squash


@dataclass(frozen=True, eq=False)
class Statistics:
    """A normalizer, or none, and the digest of the file it comes from."""

    normalizer: Normalizer | None
    sha256: str | None = None


@dataclass(frozen=True)
class Convention:
    """What a library does with mean and variance, where a file of them does not say so itself.

    `epsilon` is added to the variance, or `beside` the root to the standard deviation; then it is clipped to +-`clip`.
    """

    epsilon: float = 1e-8
    clip: float = np.inf
    beside: bool = False


_PLAIN = Convention()


def need_statistics(config: LoadConfig, what: str, why: str, convention: Convention = _PLAIN) -> Statistics:
    """The statistics in the file that `--obs-stats` names.

    Raises:
        UsageError: the option is missing, or the file cannot be opened.
        RefusedError: as `statistics`.
    """
    if config.obs_stats is None:
        raise UsageError(f"{what} needs its observation statistics", why, "--obs-stats x.npz (mean, var), or none")
    return statistics(config, convention)


def statistics(config: LoadConfig, convention: Convention = _PLAIN) -> Statistics:
    """The statistics in the file that `--obs-stats` names; nothing without one, or for `none`.

    The file is an .npz with `mean` and `var` or `std`, of the observation's shape, and optionally `epsilon` (added to
    the variance, or to the standard deviation) and `clip`; else both are the `convention`'s, 1e-8 and none without.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it holds no such arrays.
    """
    if config.obs_stats in (None, "none"):
        return Statistics(None)
    path = Path(config.obs_stats)
    arrays = _arrays(path)
    if "mean" not in arrays or ("var" in arrays) == ("std" in arrays):
        raise RefusedError(f"{path.name} is not a file of statistics", f"it holds {', '.join(arrays)}", _WANTED)
    epsilon, clip = (arrays.get(key, np.array(getattr(convention, key))) for key in ("epsilon", "clip"))
    scale = _scale(arrays, epsilon, convention)
    single = epsilon.size == clip.size == 1 and clip > 0
    if not single or arrays["mean"].shape != scale.shape or not (scale > 0).all():
        why = "shapes differ, or a scale is not positive"
        raise RefusedError(f"{path.name} holds no usable statistics", why, _WANTED)
    digest = artifact.sha256(path)
    return Statistics(Normalizer(arrays["mean"], scale, float(clip.reshape(()))), digest)


def _scale(arrays: Mapping[str, np.ndarray], epsilon: np.ndarray, convention: Convention) -> np.ndarray:
    """What observations less their mean are divided by."""
    if "std" in arrays:
        return arrays["std"] + epsilon
    with np.errstate(invalid="ignore"):  # a variance below zero has no root
        return np.sqrt(arrays["var"]) + epsilon if convention.beside else np.sqrt(arrays["var"] + epsilon)


_WANTED = "np.savez(path, mean=..., var=..., epsilon=..., clip=...)"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz in float64; nothing pickled is read."""
    found = {}
    with open_zip(path) as members:
        for name in members.names:
            content = members.read(name, MAX_STATS)
            try:
                found[name.removesuffix(".npy")] = _array(content)
            except (ValueError, OverflowError, SyntaxError, TypeError, RecursionError) as error:
                raise RefusedError(f"{path.name}: {name} cannot be read", str(error).splitlines()[0], _WANTED) from None
    numbers = {name: array for name, array in found.items() if array.dtype.kind in "fiu"}
    if not all(np.isfinite(array).all() for name, array in numbers.items() if name != "clip"):
        raise RefusedError(f"{path.name} holds NaN or infinity", "", _WANTED)
    return {name: array.astype(np.float64) for name, array in numbers.items()}


def _array(content: bytes) -> np.ndarray:
    """The array in the bytes of an .npy; numpy's own reader makes room for whatever shape is claimed."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return np.frombuffer(content[stream.tell() :], dtype).reshape(shape, order="F" if fortran else "C")


def channels_come_last(space: Space, n_channels: int, config: LoadConfig) -> bool:
    """Whether the env gives images (H, W, C) to a network whose first convolution reads `n_channels` of (C, H, W)."""
    if len(space.shape) != 3 or config.channels_last is not None:
        return bool(config.channels_last)
    return space.shape[2] == n_channels != space.shape[0]


def preprocess(
    space: Space, normalizer: Normalizer | None, what: str, image: bool = False, channels_last: bool = False
) -> Preprocessor:
    """How a foreign agent reads observations of `space`: normalised, or as they are.

    Raises:
        RefusedError: the statistics are for observations of another shape.
    """
    if isinstance(space, Dict):
        if normalizer is not None:
            raise RefusedError(
                f"{what} has statistics of one observation", f"the env gives {space}", "flatten it first"
            )
        return JointPreprocess(space, {name: Preprocess(part) for name, part in space.spaces.items()})
    if normalizer is not None and normalizer.mean.size != int(np.prod(space.shape)):
        why = f"statistics of {normalizer.mean.size} numbers, the env gives {space}"
        raise RefusedError(f"{what} does not fit the env", why, "name the env with --env")
    shaped = normalizer and Normalizer(
        normalizer.mean.reshape(space.shape), normalizer.scale.reshape(space.shape), normalizer.clip
    )
    return Preprocess(space, shaped, image, channels_last)
