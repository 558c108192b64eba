"""The inside of a Stable-Baselines3 zip, decoded and checked, before it becomes an Agent."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.checkpoints.safe.pickles import Global, Record, decode
from kdcli.checkpoints.safe.weights import Weights, read_state
from kdcli.checkpoints.safe.zips import Members, open_zip
from kdcli.checkpoints.sb3.spaces import to_space
from kdcli.errors import RefusedError
from kdcli.spec import Dict, Part, Space

MAX_DATA = 2**25  # JSON of lists takes some thirty times its length in memory
_ACTIVATIONS = {
    "ELU": "elu",
    "GELU": "gelu",
    "LeakyReLU": "leaky_relu",
    "ReLU": "relu",
    "SELU": "selu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_LAYERS = "stable_baselines3.common.torch_layers"
_EXTRACTORS = ("CombinedExtractor", "FlattenExtractor", "NatureCNN")


@dataclass(frozen=True, eq=False)
class Saved:
    """What one zip says. `data` is its JSON, where pickled entries stay undecoded."""

    name: str
    data: Mapping[str, Any]
    policy_class: str
    kwargs: Mapping[str, Any]
    observation: Space
    action: Part
    weights: Weights
    version: str | None

    def activation(self, default: str) -> str:
        """The activation function's name in kdcli.

        Raises:
            RefusedError: one kdcli does not know.
        """
        named = self.kwargs.get("activation_fn")
        if named is None:
            return default
        if isinstance(named, Global) and named.module == "torch.nn.modules.activation" and named.name in _ACTIVATIONS:
            return _ACTIVATIONS[named.name]
        asked = named.called if isinstance(named, Record) else named
        raise RefusedError(
            f"{self.name}: the activation {str(asked)[:80]} is not read yet", f"known: {', '.join(_ACTIVATIONS)}"
        )

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value of the policy's arguments."""
        value = self.kwargs.get(name)
        if value is not None and not isinstance(value, bool | int):
            raise RefusedError(f"{self.name}: {name} is {str(value)[:40]}", "true or false is expected")
        return default if value is None else bool(value)


def read_saved(path: Path) -> Saved:
    """Decode the zip at `path`.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, unsafe, or not written by Stable-Baselines3.
    """
    with open_zip(path) as members:
        data = _json(members, path.name)
        policy_class = _policy_class(_entry(data, "policy_class", path.name), path.name)
        kwargs = _kwargs(_entry(data, "policy_kwargs", path.name), path.name)
        observation, action = (_space(data, key, path.name) for key in ("observation_space", "action_space"))
        if isinstance(action, Dict):
            raise RefusedError(f"{path.name}: it acts in a Dict of spaces", "Stable-Baselines3 knows no such agents")
        what = f"{path.name}: policy.pth"
        weights = Weights(read_state(members.read("policy.pth"), what), what)
        return Saved(path.name, data, policy_class, kwargs, observation, action, weights, _version(members))


def _json(members: Members, name: str) -> dict[str, Any]:
    try:
        data = json.loads(members.read("data", MAX_DATA))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{name}: data is not JSON", str(error), "copy the file again") from None
    if not isinstance(data, dict):
        raise RefusedError(f"{name}: data is not what Stable-Baselines3 writes", "a JSON object is expected")
    return data


def _entry(data: Mapping[str, Any], key: str, name: str) -> Any:
    """One entry of the data, unpickled by `decode` when it is pickled."""
    value = data.get(key)
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    try:
        content = base64.b64decode(value[":serialized:"], validate=False)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RefusedError(f"{name}: {key} cannot be read", str(error), "copy the file again") from None
    return decode(content, f"{name}: {key}")


def _space(data: Mapping[str, Any], key: str, name: str) -> Space:
    return to_space(_entry(data, key, name), f"{name}: {key}")


def _policy_class(value: Any, name: str) -> str:
    if not isinstance(value, Global):
        raise RefusedError(f"{name} does not name its policy class", "it is not what Stable-Baselines3 writes")
    return str(value)


def _kwargs(value: Any, name: str) -> Mapping[str, Any]:
    """The policy's arguments, checked for what would change its inputs."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(f"{name}: policy_kwargs is not a dictionary", "it is not what Stable-Baselines3 writes")
    extractor = value.get("features_extractor_class")
    if extractor is not None and str(extractor) not in [f"{_LAYERS}.{known}" for known in _EXTRACTORS]:
        asked = extractor.called if isinstance(extractor, Record) else extractor
        raise RefusedError(
            f"{name}: the features extractor {str(asked)[:80]} is not read yet",
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
