"""Frames stacked after they were normalized: the order of RL Zoo, whose `normalize` comes before its `frame_stack`.

The statistics are those of one frame and hold for each. Where an episode begins, what came before is zero *after*
normalizing: in the raw observations that kdcli's agents read, it is the mean. So the env is wrapped in a `frame-stack`
that pads with the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from kdcli.checkpoints.sb3.vecnormalize import Moments
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Listener, Note
from kdcli.spec import Box, EnvSpec, Part

STACK = "frame-stack"
MAX_PADS = 2**12
MAX_FRAMES = 64
_OTHERWISE = "export the policy to ONNX where it was trained"


def frames_after(spaces: Mapping[str, Part], moments: Moments | None) -> int:
    """How many frames of the statistics' size the observations hold; 1 where they are of one size, or do not fit."""
    if moments is None or not moments.of:
        return 1
    counts = {_frames(spaces.get(name), mean.shape) for name, (mean, _) in moments.of.items()}
    return counts.pop() if len(counts) == 1 else 1


def _frames(part: Part | None, shape: tuple[int, ...]) -> int:
    """How often an array of `shape` stands side by side in a part, along its last axis."""
    if not isinstance(part, Box) or len(part.shape) != len(shape) or not shape or part.shape[:-1] != shape[:-1]:
        return 1
    n, rest = divmod(part.shape[-1], shape[-1])
    return n if not rest and n <= MAX_FRAMES else 1


def repeated(moments: Moments, n: int) -> Moments:
    """The statistics of `n` frames side by side."""
    return replace(
        moments,
        of={
            name: (np.concatenate([mean] * n, -1), np.concatenate([variance] * n, -1))
            for name, (mean, variance) in moments.of.items()
        },
    )


def padded(
    env: EnvSpec | None, spaces: Mapping[str, Part], moments: Moments, n: int, listen: Listener
) -> EnvSpec | None:
    """The env whose frames are stacked by `n`, with the mean in the place of those before an episode.

    Raises:
        UsageError: its wrappers stack other frames.
        RefusedError: an observation has more numbers than a wrapper is told, or was cut to integers.
    """
    _refuse_cut(spaces, moments)
    wrapper = f"{STACK}:{n},{_axis(spaces)}pad={_pads(spaces, moments, n)}"
    why = f"{n} frames are stacked after they were normalized, as RL Zoo does: those before an episode are the mean"
    listen(Note(why if env is not None else f"{why}; wrap its env by --wrapper {wrapper}"))
    if env is None:
        return None
    inside, last = (env.wrappers[:-1], env.wrappers[-1]) if env.wrappers else ((), "")
    if any(text.partition(":")[0] == STACK for text in inside):
        inner = next(text for text in inside if text.partition(":")[0] == STACK)
        raise UsageError(f"{inner} comes before another wrapper", why, f"--wrapper {STACK}:{n} as the last")
    if last.partition(":")[0] != STACK:
        return replace(env, wrappers=(*env.wrappers, wrapper))
    if last.partition(":")[2].split(",")[0] not in ("" if n == 4 else str(n), str(n)):
        raise UsageError(f"the env is wrapped in {last}", why, f"--wrapper {STACK}:{n}")
    return replace(env, wrappers=(*inside, last if "pad=" in last else wrapper))


def _refuse_cut(spaces: Mapping[str, Part], moments: Moments) -> None:
    """VecFrameStack keeps frames in the dtype of the space, normalized or not; an image's has become float32 before."""
    cut = [name for name in moments.of if np.dtype(spaces[name].dtype).kind != "f"]
    if cut:
        why = f"VecFrameStack cut what VecNormalize gave to {spaces[cut[0]].dtype}, before the policy saw it"
        raise RefusedError(f"frames of {spaces[cut[0]]} were normalized and then stacked", why, _OTHERWISE)


def _axis(spaces: Mapping[str, Part]) -> str:
    """VecFrameStack takes what is normalized for no image: it stacks along the last axis."""
    return "axis=last," if any(len(part.shape) == 3 for part in spaces.values()) else ""


def _pads(spaces: Mapping[str, Part], moments: Moments, n: int) -> str:
    """The mean of one frame, number by number, zeros for parts that are not normalized."""
    found = [
        moments.of[name][0].reshape(-1) if name in moments.of else np.zeros(prod(part.shape) // n)
        for name, part in spaces.items()
    ]
    pads = np.concatenate(found)
    if len(pads) > MAX_PADS:
        why = f"frames of {len(pads)} numbers were normalized and then stacked; at most {MAX_PADS} are told a wrapper"
        raise RefusedError(f"{moments.name} cannot be used", why, _OTHERWISE)
    return "/".join(repr(float(pad)) for pad in pads)
