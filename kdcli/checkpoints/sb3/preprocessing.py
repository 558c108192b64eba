"""How an agent of Stable-Baselines3 reads what its env gives: statistics, images, the order of their axes, masks.

Stable-Baselines3 moves the channels of images first and saves the space after that, so that the file does not tell
how the env gives them: the env does, or else the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kdcli.agents.observation import JointPreprocess, Preprocess, Preprocessor, is_image
from kdcli.checkpoints.sb3 import extractors
from kdcli.checkpoints.sb3.archive import Saved
from kdcli.checkpoints.sb3.vecnormalize import Moments
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Listener, Note
from kdcli.spec import MASK, OBS, Box, Dict, EnvSpec, MultiBinary, Part, box, parts


@dataclass(frozen=True)
class Source:
    """Where observations come from: the env, where it is known, and what the user says about its images."""

    env: EnvSpec | None
    channels_last: bool | None


def preprocess(saved: Saved, moments: Moments | None, source: Source, n_mask: int, listen: Listener) -> Preprocessor:
    """Raw observations to the features of the policy, `n_mask` > 0 numbers of an action mask last.

    Raises:
        RefusedError: the statistics do not belong to the file, or a part of the observation is called `action_mask`.
        UsageError: images are said to arrive channels last, and there are none.
    """
    spaces = parts(saved.observation)
    if moments is not None:
        _check(saved, spaces, moments)
    scaled = saved.flag("normalize_images", default=True)
    own = _as_given(extractors.pictures(saved), source, listen)
    read = {
        name: _read(
            Preprocess(part, moments.normalizer(name) if moments else None, scaled and is_image(part)),
            own.get(name) or _unnormalized(part, name, moments),
        )
        for name, part in spaces.items()
    }
    return _joined(saved, read, n_mask)


def _joined(saved: Saved, read: Mapping[str, Preprocess], n_mask: int) -> Preprocessor:
    """The parts as one; with a mask there are at least two."""
    if n_mask == 0 and not isinstance(saved.observation, Dict):
        return read[OBS]
    if n_mask and MASK in read:
        why = f"kdcli gives that name to the mask of a {saved.policy_class.rpartition('.')[2]}"
        raise RefusedError(
            f"{saved.name}: a part of the observation is called {MASK}",
            why,
            "export it to ONNX where it was trained: the network with its mask, which reads that part",
        )
    masks = {MASK: Preprocess(MultiBinary(n_mask))} if n_mask else {}
    given = {**read, **masks}
    return JointPreprocess(Dict({name: part.space for name, part in given.items()}), given)


def _check(saved: Saved, spaces: Mapping[str, Part], moments: Moments) -> None:
    found = {name: mean.shape for name, (mean, _) in moments.of.items()}
    wrong = [name for name, shape in found.items() if name not in spaces or spaces[name].shape != shape]
    if wrong:
        why = f"its statistics have shape {found[wrong[0]]}, the observations {saved.observation}"
        fix = "name the right file with --vecnormalize, or --no-vecnormalize"
        raise RefusedError(f"{moments.name} does not belong to {saved.name}", why, fix)


def _unnormalized(part: Part, name: str, moments: Moments | None) -> Part:
    """The part before VecNormalize, which puts a space of real numbers within its clip in the place of an image's.

    So it does since 1.7 for images alone, so that the policy does not divide by 255 what is no longer bytes.
    """
    if moments is None or name not in moments.of or not isinstance(part, Box) or len(part.shape) != 3:
        return part
    clip = np.float32(moments.clip)
    if part.dtype != "float32" or (part.low != -clip).any() or (part.high != clip).any():
        return part
    return box(part.shape, 0, 255, "uint8")


def _read(read: Preprocess, given: Part) -> Preprocess:
    """The same part from a space of the same shape, or one with the channels last."""
    if given.shape == read.space.shape:
        return replace(read, space=given)
    norm = read.normalizer
    if norm is not None:
        norm = replace(norm, mean=np.moveaxis(norm.mean, 0, -1), scale=np.moveaxis(norm.scale, 0, -1))
    return Preprocess(given, norm, read.image, channels_last=True)


def _as_given(images: Mapping[str, Box], source: Source, listen: Listener) -> Mapping[str, Part]:
    """The images as the env gives them, by name; those of which nothing is known are left out."""
    if source.channels_last and not images:
        raise UsageError("--channels-last is about images", "this agent observes none", "leave it out")
    if source.channels_last is False or not images:
        return {}
    last = {name: _channels_last(part) for name, part in images.items()}
    if source.channels_last:
        return last
    given = _given(source.env, listen)
    known = {
        name: given[name]
        for name in images
        if name in given and given[name].shape in (images[name].shape, last[name].shape)
    }
    if any(part.shape != images[name].shape for name, part in known.items()):
        listen(Note("images arrive with their channels last, as the env gives them"))
    return known


def _channels_last(image: Box) -> Box:
    """The space (C, H, W) as the env has it, (H, W, C)."""
    low, high = (np.moveaxis(bound, 0, -1) for bound in (image.low, image.high))
    return Box(low.shape, image.dtype, low, high)


def _given(env: EnvSpec | None, listen: Listener) -> Mapping[str, Part]:
    """What the env gives, by name; nothing where it is not known."""
    if env is None:
        listen(Note("images are taken with their channels first; if the env gives them last, say --channels-last"))
        return {}
    from kdcli.envs.make import spaces_of

    try:
        return parts(spaces_of(env)[0])
    except UsageError as error:
        listen(Note(f"images are taken with their channels first, since the env cannot be asked: {error.what}"))
        return {}
