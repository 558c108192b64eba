"""The inside of a Stable-Baselines3 zip, decoded and checked, before it becomes an Agent."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdcli.checkpoints.safe.containers import is_state, read_bytes, unwrapped
from kdcli.checkpoints.safe.pickles import ANY, SB3, Dialect, Global, Record, decode
from kdcli.checkpoints.safe.records import spelled
from kdcli.checkpoints.safe.torch_files import read_torch
from kdcli.checkpoints.safe.weights import Weights, read_state
from kdcli.checkpoints.safe.zips import Members, open_zip
from kdcli.checkpoints.sb3.spaces import to_space
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.activations import CLASSES
from kdcli.spec import Dict, MultiBinary, Part, Space, handed

MAX_DATA = 2**25  # JSON of lists takes some thirty times its length in memory
_MODULES = ("torch.nn.modules.activation", "torch.nn.modules.linear")
_SB3 = "stable_baselines3"
_LIBRARIES = ("stable_baselines3.", "sb3_contrib.")
_LAYERS = f"{_SB3}.common.torch_layers"
_EXTRACTORS = ("CombinedExtractor", "FlattenExtractor", "NatureCNN")


@dataclass(frozen=True, eq=False)
class Saved:
    """What one zip says. `data` is its JSON, where pickled entries stay undecoded.

    `policy_class` is one of Stable-Baselines3's; `own_class` is the user's own class where it is that instead, which
    its tensors alone tell something about.
    """

    name: str
    data: Mapping[str, Any]
    policy_class: str
    kwargs: Mapping[str, Any]
    observation: Space
    action: Part
    weights: Weights
    version: str | None
    own_class: str | None = None
    said_activation: str | None = None

    def activation(self, default: str) -> str:
        """The activation function's name in kdcli; that of a class of one's own must be told.

        Raises:
            RefusedError: one kdcli does not know.
            UsageError: nothing tells that of a class of one's own.
        """
        named = self.kwargs.get("activation_fn")
        if self.said_activation is not None:
            return self.said_activation
        if named is None and self.own_class is not None:
            raise UsageError(
                f"{self.name}: the policy class {self.own_class} is code of its own",
                "its tensors are those of a policy kdcli reads, but not what is between its layers",
                f"--activation {default}, which is Stable-Baselines3's, if it only sets widths; else the one it uses",
            )
        if named is None:
            return default
        return _activation(named, self.name)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value of the policy's arguments."""
        value = self.kwargs.get(name)
        if value is not None and not isinstance(value, bool | int):
            raise RefusedError(f"{self.name}: {name} is {str(value)[:40]}", "true or false is expected")
        return default if value is None else bool(value)


def read_saved(path: Path, known: Collection[str]) -> Saved:
    """Decode the zip at `path`; `known` are the names of the policy classes that are read.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, unsafe, or not written by Stable-Baselines3.
    """
    with open_zip(path) as members:
        data = _json(members, path.name)
        named = _policy_class(_entry(data, "policy_class", path.name, ANY), path.name)
        kwargs = check_arguments(_entry(data, "policy_kwargs", path.name, ANY), path.name)
        observation, action = (_space(data, key, path.name) for key in ("observation_space", "action_space"))
        if isinstance(action, Dict):
            raise RefusedError(f"{path.name}: it acts in a Dict of spaces", "Stable-Baselines3 knows no such agents")
        what = f"{path.name}: policy.pth"
        weights = Weights(read_state(members.read("policy.pth"), what), what)
        policy_class = named if named in known else by_tensors(weights.state, masked="Maskable" in named)
        if policy_class is None or (named not in known and named.startswith(_LIBRARIES)):
            raise _unknown(path.name, named, known)
        own, action = None if named in known else named, handed_by(action, policy_class)
        version = _version(members)
        return Saved(path.name, data, policy_class, kwargs, observation, action, weights, version, own)


def is_policy(path: Path) -> bool:
    """Whether a policy of Stable-Baselines3 saved itself: its tensors, and what it is constructed with."""
    try:
        saved = read_torch(read_bytes(path), path.name, names=True)
    except RefusedError:
        return False
    inside = isinstance(saved, dict) and saved.keys() == {"state_dict", "data"} and isinstance(saved["data"], dict)
    return inside and {"observation_space", "action_space"} <= saved["data"].keys()


def read_saved_policy(path: Path) -> Saved:
    """Decode the file at `path` that `policy.save` wrote; its tensors and arguments tell its class.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, unsafe, or of a class that is not read.
    """
    saved = read_torch(read_bytes(path), path.name, names=True)
    state, data = saved["state_dict"], saved["data"]
    if not is_state(state):
        raise RefusedError(f"{path.name}: state_dict is not one", "it holds other things than tensors by name")
    weights = Weights(unwrapped(state), path.name)
    # Of all policies of states with a critic beside them, the maskable one alone knows no spread.
    policy_class = by_tensors(weights.state, masked="log_std_init" not in data)
    if policy_class is None:
        why = f"its tensors are {', '.join(list(weights.state)[:4])}"
        raise RefusedError(f"{path.name} is a policy of a class that is not read", why, "save the whole model")
    kwargs = check_arguments({key: value for key, value in data.items() if not key.endswith("_space")}, path.name)
    observation, action = (to_space(data[key], f"{path.name}: {key}") for key in ("observation_space", "action_space"))
    if isinstance(action, Dict):
        raise RefusedError(f"{path.name}: it acts in a Dict of spaces", "Stable-Baselines3 knows no such agents")
    facts = {"use_sde": data.get("use_sde") is True}
    return Saved(path.name, facts, policy_class, kwargs, observation, handed_by(action, policy_class), weights, None)


def _unknown(name: str, named: str, known: Collection[str]) -> RefusedError:
    short = ", ".join(sorted({policy.rpartition(".")[2] for policy in known}))
    fix = "export the policy to ONNX where it was trained"
    return RefusedError(f"{name}: the policy class {named} is not read yet", f"known: {short}", fix)


def by_tensors(state: Mapping[str, Any], masked: bool = False) -> str | None:
    """The policy class whose tensors have the names of these; None where none has."""
    policies, contrib = f"{_SB3}.common.policies", "sb3_contrib"

    def has(*prefixes: str) -> bool:
        return all(any(name.startswith(prefix) for name in state) for prefix in prefixes)

    if has("action_net.", "value_net."):
        if has("lstm_actor."):
            return f"{contrib}.common.recurrent.policies.RecurrentActorCriticPolicy"
        mask = f"{contrib}.common.maskable.policies.MaskableActorCriticPolicy"
        return mask if masked else f"{policies}.ActorCriticPolicy"
    if has("action_net."):
        return f"{contrib}.ars.policies.{'ARSPolicy' if has('action_net.0.bias') else 'ARSLinearPolicy'}"
    if has("q_net."):
        return f"{_SB3}.dqn.policies.DQNPolicy"
    if has("quantile_net."):
        return f"{contrib}.qrdqn.policies.QRDQNPolicy"
    if has("actor.log_std"):
        crossed = any(name.endswith((".ra_mean", ".running_mean")) for name in state)
        return f"{contrib}.crossq.policies.CrossQPolicy" if crossed else f"{_SB3}.sac.policies.SACPolicy"
    return f"{_SB3}.td3.policies.TD3Policy" if has("actor.mu.") else None


def handed_by(action: Part, policy_class: str) -> Part:
    """The actions as `predict` hands them to the env: bits are the rounded probabilities, real numbers.

    Under a mask each bit is a choice of two (`MaskableMultiCategoricalDistribution`), an integer.
    """
    if isinstance(action, MultiBinary):
        return replace(action, dtype="int64" if "Maskable" in policy_class else "float32")
    return handed(action)


def _json(members: Members, name: str) -> dict[str, Any]:
    try:
        data = json.loads(members.read("data", MAX_DATA))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{name}: data is not JSON", str(error), "copy the file again") from None
    if not isinstance(data, dict):
        raise RefusedError(f"{name}: data is not what Stable-Baselines3 writes", "a JSON object is expected")
    return data


def _entry(data: Mapping[str, Any], key: str, name: str, dialect: Dialect = SB3) -> Any:
    """One entry of the data, unpickled by `decode` when it is pickled."""
    value = data.get(key)
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    try:
        content = base64.b64decode(value[":serialized:"], validate=False)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RefusedError(f"{name}: {key} cannot be read", str(error), "copy the file again") from None
    return decode(content, f"{name}: {key}", dialect)


def _space(data: Mapping[str, Any], key: str, name: str) -> Space:
    return to_space(_entry(data, key, name), f"{name}: {key}")


def _policy_class(value: Any, name: str) -> str:
    """The name of a class, also of one that cloudpickle wrote out because it was made in a notebook."""
    if not isinstance(value, Global) and "class" not in str(getattr(value, "called", "")):
        asked = f"asks for {spelled(value)}" if isinstance(value, Record) else "does not name a class"
        raise RefusedError(f"{name}: policy_class {asked}", "it is not what Stable-Baselines3 writes")
    return spelled(value)


def _activation(named: Any, name: str) -> str:
    """The activation of the class `named`."""
    if isinstance(named, Global) and named.module in _MODULES and named.name in CLASSES:
        return CLASSES[named.name]
    raise RefusedError(
        f"{name}: activation_fn asks for {spelled(named)}, which is not read",
        f"known: {', '.join(CLASSES)}",
        "export the policy to ONNX where it was trained",
    )


def check_arguments(value: Any, name: str) -> Mapping[str, Any]:
    """The policy's arguments, checked for what would change its inputs; those of training alone may be anything.

    Raises:
        RefusedError: an extractor or activation kdcli does not read, or no arguments at all.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        asked = f"asks for {spelled(value)}" if isinstance(value, Record | Global) else "is not a dictionary"
        raise RefusedError(f"{name}: policy_kwargs {asked}", "it is not what Stable-Baselines3 writes")
    if value.get("activation_fn") is not None:
        _activation(value["activation_fn"], name)
    extractor = value.get("features_extractor_class")
    if extractor is not None and str(extractor) not in [f"{_LAYERS}.{known}" for known in _EXTRACTORS]:
        raise RefusedError(
            f"{name}: features_extractor_class asks for {spelled(extractor)}, which is not read",
            f"kdcli reads {', '.join(_EXTRACTORS)}",
            "export the policy to ONNX where it was trained",
        )
    return value


def _version(members: Members) -> str | None:
    """The version of Stable-Baselines3 that wrote the zip; the oldest did not say."""
    if "_stable_baselines3_version" not in members.names:
        return None
    text = members.read("_stable_baselines3_version", 1000).decode("ascii", "replace").strip()
    return text[:40] if text.isprintable() else None
