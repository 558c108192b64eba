"""Hostile pickles in every place where a file keeps one."""

from __future__ import annotations

import base64
import io
import json
import pickle
import pickletools
from collections.abc import Iterator

import torch
from cases import Case, Law, of_files, of_main
from pickled import expressions, name, payloads, text, whole
from seeds import Seed
from tensors import TORCH, torch_zip, weights, with_weights
from zipped import members, rezipped

# Without these the policy cannot be rebuilt; all others need not even be looked at.
NEEDED = ("policy_class", "policy_kwargs", "observation_space", "action_space")
OTHERS = ("learning_rate", "lr_schedule", "clip_range", "_last_obs", "ep_info_buffer", "rollout_buffer_class", "extra")
ARGUMENTS = ("activation_fn", "net_arch", "features_extractor_class", "squash_output", "use_sde", "ortho_init", "extra")
SPACE_STATE = ("low", "high", "_shape", "dtype", "shape", "n", "nvec", "spaces", "_np_random")
STATISTICS = ("obs_rms", "clip_obs", "epsilon", "norm_obs", "norm_obs_keys", "ret_rms", "extra")
MOMENTS = ("mean", "var", "count")


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every hostile pickle, wherever the seeds keep one."""
    for seed in seeds.values():
        if seed.family == "zip":
            yield from _entries(seed)
            yield from _members(seed)
        if "vecnormalize.pkl" in seed.files:
            yield from _statistics(seed)
        if seed.family in TORCH:
            yield from _weights(seed)
        if seed.family == "pickle":
            yield from _described(seed)


def _entries(seed: Seed) -> Iterator[Case]:
    """In the base64 entries of a Stable-Baselines3 zip: as they are, and inside what they should be."""
    for key in (*NEEDED, *OTHERS):
        # Arguments that do not matter are not looked at, and may be of any kind.
        law = Law.SAFE if key == "policy_kwargs" else Law.REFUSED if key in NEEDED else Law.LOADS
        step = 1 if key == "observation_space" else 3 if key == "policy_kwargs" else 10
        for title, data in list(payloads().items())[::step]:
            yield of_main(seed, "pickle", f"{key}: {title}", lambda d=data, k=key: with_entry(seed, k, d), law)
    for title, part in expressions().items():
        for number, argument in enumerate(ARGUMENTS):
            data = whole(b"}" + text(argument) + part + b"s")
            if number % 3 == len(title) % 3:
                case = f"policy_kwargs[{argument}]: {title}"
                yield of_main(seed, "pickle", case, lambda d=data: with_entry(seed, "policy_kwargs", d), Law.SAFE)
        for number, key in enumerate(SPACE_STATE):
            data = whole(name("gymnasium.spaces.box", "Box") + b")\x81}" + text(key) + part + b"sb")
            if number % 3 == len(title) % 3:
                case = f"observation_space.{key}: {title}"
                yield of_main(seed, "pickle", case, lambda d=data: with_entry(seed, "observation_space", d))


def with_entry(seed: Seed, key: str, pickled: bytes) -> bytes:
    """The zip with one pickled entry of its data replaced."""
    content = members(seed.data)
    data = json.loads(content["data"])
    data[key] = {":type:": "x", ":serialized:": base64.b64encode(pickled).decode()}
    return rezipped({**content, "data": json.dumps(data).encode()})


def _members(seed: Seed) -> Iterator[Case]:
    """In members of the zip that nobody needs to read."""
    for member in members(seed.data):
        if member not in ("data", "policy.pth"):
            for title, data in list(payloads().items())[::25]:
                content = {**members(seed.data), member: data}
                yield of_main(seed, "pickle", f"{member}: {title}", lambda c=content: rezipped(c), Law.RIGHT)


def _statistics(seed: Seed) -> Iterator[Case]:
    """In the place of the statistics, and inside them."""
    for title, data in payloads().items():
        files = {**seed.files, "vecnormalize.pkl": data}
        yield of_files(seed, "pickle", f"vecnormalize.pkl: {title}", lambda f=files: f)
    for title, part in expressions().items():
        for number, key in enumerate((*STATISTICS, *MOMENTS)):
            if number % 3 == len(title) % 3:
                inner = rms(key, part) if key in MOMENTS else part
                data = wrapped("obs_rms" if key in MOMENTS else key, inner)
                files = {**seed.files, "vecnormalize.pkl": data}
                yield of_files(seed, "pickle", f"vecnormalize.pkl {key}: {title}", lambda f=files: f)


def wrapped(key: str, value: bytes) -> bytes:
    """A pickled VecNormalize whose state is one value."""
    kind = name("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize")
    return whole(kind + b")\x81}" + text(key) + value + b"sb")


def rms(key: str, value: bytes) -> bytes:
    """A RunningMeanStd whose state is one value."""
    return name("stable_baselines3.common.running_mean_std", "RunningMeanStd") + b")\x81}" + text(key) + value + b"sb"


def _weights(seed: Seed) -> Iterator[Case]:
    """In the pickle of a torch file: the new format, the old one, bare, and beside real tensors."""
    for title, data in payloads().items():
        yield of_main(seed, "pickle", f"data.pkl: {title}", lambda d=data: with_weights(seed, torch_zip(d)))
    for title, data in list(payloads().items())[::2]:
        yield of_main(seed, "pickle", f"legacy: {title}", lambda d=data: with_weights(seed, legacy(d)))
    for title, data in list(payloads().items())[::4]:
        yield of_main(seed, "pickle", f"bare: {title}", lambda d=data: with_weights(seed, d))
    for title, part in expressions().items():
        yield of_main(
            seed, "pickle", f"beside tensors: {title}", lambda p=part: with_weights(seed, beside(seed, p)), Law.RIGHT
        )


def _described(seed: Seed) -> Iterator[Case]:
    """In the pickle around d3rlpy's networks."""
    for key in ("torch", "config", "version"):
        for title, part in expressions().items():
            rest = {name: value for name, value in pickle.loads(seed.data).items() if name != key}
            data = whole(pickle.dumps(rest, 4)[2:-1] + text(key) + part + b"s")
            law = Law.RIGHT if key == "version" else Law.REFUSED
            yield of_main(seed, "pickle", f"its {key}: {title}", lambda d=data: d, law)


def legacy(pickled: bytes) -> bytes:
    """A file of torch before 1.6 whose object is this pickle, with no storages."""
    buffer = io.BytesIO()
    torch.save({}, buffer, _use_new_zipfile_serialization=False)
    head, tail = buffer.getvalue().split(b"\x80\x02}q\x00.", 1)
    return head + pickled + tail


def beside(seed: Seed, expression: bytes) -> bytes:
    """The seed's weights, their pickle extended by one more item at the front of its dictionary."""
    if seed.family == "legacy":
        return legacy_beside(seed, expression)
    content = members(weights(seed))
    [key] = [member for member in content if member.endswith("data.pkl")]
    body = content[key][2:]
    return rezipped({**content, key: b"\x80\x04" + expression + b"0" + body})


def legacy_beside(seed: Seed, expression: bytes) -> bytes:
    """The same in the old format, where the object is the fourth pickle; its first opcodes follow the protocol."""
    stream = io.BytesIO(seed.data)
    for _ in range(3):
        for _ in pickletools.genops(stream):
            pass
    at = stream.tell()
    return seed.data[:at] + b"\x80\x04" + expression + b"0" + seed.data[at + 2 :]
