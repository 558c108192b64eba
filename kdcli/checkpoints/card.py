"""A file of tensors (safetensors, or a state dict of torch.save) with a card beside it: `policy.json` for `policy.pt`.

    {
      "trunk": [["linear", 64], ["tanh"], ["linear", 64], ["tanh"]],
      "heads": {"action_net": "logits", "value_net": "value"},
      "tensors": {"net.0.weight": [64, 4], "net.0.bias": [64], ...},
      "observation": {"kind": "box", "shape": [4], "dtype": "float32", "low": "-inf", "high": "inf"},
      "action": {"kind": "discrete", "n": 2, "start": 0, "dtype": "int64"},
      "normalizer": {"mean": [0, 0, 0, 0], "var": [1, 1, 1, 1], "epsilon": 1e-8, "clip": 10},
      "squash": "clip",
      "env": {"id": "CartPole-v1"}
    }

`trunk`: the layers of `networks.layers` (conv2d, max_pool2d, flatten, linear, layer_norm, gru_cell, lstm_cell and every
activation), each with its options, or with one number for `out`; an image comes in channels first. `heads`: what each
last linear layer, named as its tensors are, gives: one of logits, q, mean; and value. `tensors`: the tensors in the
order the trunk uses them, which a safetensors file does not keep; a state dict has its own order. `unused`: beginnings
of names that do not act, such as those of a critic with layers of its own. `observation` and `action`: the spaces;
without them the env tells (`--env`, or `env.id`). `normalizer`: (x - mean) / sqrt(var + epsilon), or / (std + epsilon),
and then clipped. `image`: whether observations are divided by 255. `squash`: how a mean becomes an action. All but
`trunk` and `heads` may be left out; `what`, `source`, `state`, `parameters` and `measured_return` are for people;
`sha256` is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor, nn

from kdcli import artifact
from kdcli.agents.action import ActionRule, Squash
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, is_image
from kdcli.agents.policy import Policy, Signal
from kdcli.checkpoints import asked, assembly
from kdcli.checkpoints.asked import Place, channels_come_last, preprocess, statistics
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.finish import finish
from kdcli.checkpoints.sniff import container, is_state, read_bytes
from kdcli.checkpoints.weights import Weights
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.layers import LAYERS
from kdcli.progress import Listener
from kdcli.spec import Box, Dict, EnvSpec, Space, space_from_json

MAX_CARD = 2**22
_CELLS = {"gru_cell": ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
_CELLS["lstm_cell"] = _CELLS["gru_cell"]
_SIGNALS = ("logits", "q", "mean")
Numbers = float | tuple[float, ...]


class Statistics(BaseModel):
    """Of observations: mean, and variance or standard deviation, a number each or one for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Numbers
    var: Numbers | None = None
    std: Numbers | None = None
    epsilon: float = Field(default=1e-8, ge=0)
    clip: float = Field(default=math.inf, gt=0)

    def normalizer(self, shape: tuple[int, ...]) -> Normalizer:
        """For observations of `shape`.

        Raises:
            ValueError: neither var nor std, both, or of another size.
        """
        if (self.var is None) == (self.std is None):
            raise ValueError("normalizer: either var or std")
        mean, spread = (np.asarray(n, np.float64) for n in (self.mean, self.std if self.var is None else self.var))
        scale = spread + self.epsilon if self.var is None else np.sqrt(spread + self.epsilon)
        wide = [np.broadcast_to(part.reshape(shape) if part.ndim else part, shape).copy() for part in (mean, scale)]
        if not np.isfinite(wide).all() or not (wide[1] > 0).all():
            raise ValueError("normalizer: a number that is not finite, or a scale that is not positive")
        return Normalizer(wide[0], wide[1], self.clip)


class EnvCard(BaseModel):
    """Where the agent was trained; `how`, `observation` and `actions` tell people what was done to its observations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    max_steps: int | None = None
    how: str = ""
    observation: str = ""
    actions: str = ""


class Card(BaseModel):
    """What a file of tensors does not say; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: tuple[tuple[str, dict[str, Any]], ...]
    heads: dict[str, str]
    tensors: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    unused: tuple[str, ...] = ()
    observation: dict[str, Any] | None = None
    action: dict[str, Any] | None = None
    normalizer: Statistics | None = None
    image: bool | None = None
    squash: Literal["clip", "tanh"] | None = None
    env: EnvCard | None = None
    sha256: str | None = None
    what: str = ""
    source: str = ""
    state: str = ""
    parameters: int | None = None
    measured_return: dict[str, Any] | str | None = None

    @field_validator("trunk", mode="before")
    @classmethod
    def _layers(cls, given: Any) -> Any:
        """`["linear", 64]` and `["relu"]` as a name with options."""
        if not isinstance(given, list | tuple):
            return given
        return tuple(_layer(entry) for entry in given)

    @field_validator("heads")
    @classmethod
    def _what_heads_give(cls, given: dict[str, str]) -> dict[str, str]:
        """`linear -> logits` is logits, `linear -> 1` a value."""
        found = {name: text.rpartition("->")[2].strip() for name, text in given.items()}
        found = {name: "value" if text == "1" else text for name, text in found.items()}
        if sum(text in _SIGNALS for text in found.values()) != 1 or not {*found.values()} <= {*_SIGNALS, "value"}:
            raise ValueError(f"one of {', '.join(_SIGNALS)}, and value; not {', '.join(given.values())}")
        return found

    def head(self, *kinds: str) -> str | None:
        """The name of the head that gives one of these."""
        return next((name for name, kind in self.heads.items() if kind in kinds), None)

    @property
    def divided(self) -> bool:
        """Whether uint8 observations are divided by 255, as it says, or tells people."""
        told = "" if self.env is None else f"{self.env.how} {self.env.observation}"
        return "divided by 255" in told if self.image is None else self.image


def _layer(entry: Any) -> Any:
    if not isinstance(entry, list | tuple) or not entry or len(entry) > 2:
        raise ValueError(f"{str(entry)[:60]} is not a layer: [name] or [name, options]")
    options = entry[1] if len(entry) == 2 else {}
    return entry[0], {"out": options} if isinstance(options, int) else options


def beside(path: Path) -> bool:
    """Whether a card lies beside the file."""
    try:
        text = path.with_suffix(".json").read_bytes()[:MAX_CARD]
    except OSError:
        return False
    return path.suffix != ".json" and b'"trunk"' in text


def read_card(path: Path) -> Card:
    """The card beside the file at `path`.

    Raises:
        UsageError: it cannot be opened.
        RefusedError: it is not JSON, or not a card.
    """
    name = path.with_suffix(".json").name
    try:
        return Card.model_validate(json.loads(read_bytes(path.with_suffix(".json"))))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        fix = f"known keys: {', '.join(Card.model_fields)}"
        raise RefusedError(f"{name} is not a card kdcli reads", f"{place}: {first['msg']}", fix) from None
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{name} is not a card", str(error)[:200], "a JSON object is expected") from None


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the tensors at `path`, as the card beside them describes it.

    Raises:
        UsageError: the card names no spaces and nothing names an env.
        RefusedError: file and card do not fit, or are damaged.
    """
    card = read_card(path)
    if card.sha256 is not None and card.sha256 != artifact.sha256(path):
        raise RefusedError(
            f"{path.name} is not the file its card describes", "its digest is another", "copy both again"
        )
    weights = Weights(_tensors(path), path.name)
    observation, action, env = _spaces(path, card, config, weights, listen)
    trunk = _trunk(card, weights, _groups(card, weights, read_bytes(path)[:2] == b"PK"))
    last = bool(trunk) and trunk[0].kind == "conv2d" and channels_come_last(observation, trunk[0].inputs)
    shape = assembly.image_shape(observation.shape, last)
    signal_head = card.head(*_SIGNALS)
    assert signal_head is not None
    network = assembly.network(shape, [*trunk, assembly.linear(weights.linear(signal_head))], path.name)
    signal: Signal = card.heads[signal_head]  # type: ignore[assignment]
    policy = Policy(network, _rule(card, action, signal, path.name), signal, value=_value(card, weights))
    weights.refuse_leftovers(card.unused)
    known = statistics(config)
    normalizer = known.normalizer or _normalizer(card, observation.shape, path.name)
    sees = preprocess(observation, normalizer, path.name, card.divided and _is_bytes(observation), last)
    facts = {
        "format": "card",
        "algorithm": None,
        "what": card.what[:200],
        "total_params": weights.count(),
        "critic_params": sum(weights.count(f"{name}.") for name, kind in card.heads.items() if kind == "value"),
        "obs_stats": known.sha256,
        "card": artifact.sha256(path.with_suffix(".json")),
    }
    return finish(path, sees, policy, env, facts)


def _is_bytes(space: Space) -> bool:
    """Whether observations are bytes of an image, not yet divided."""
    return is_image(space) or (isinstance(space, Box) and space.dtype == "uint8")


def _tensors(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name, from either kind of file."""
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = read_bytes(path)
    if content[:2] == b"PK" or content[:1] == b"\x80":
        state = container(path)
    else:
        artifact.read_header(path)
        try:
            state = {name: torch.from_numpy(array) for name, array in load(content).items()}
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RefusedError(f"{path.name} cannot be read", str(error)[:200], "copy it again") from None
    if not is_state(state):
        raise RefusedError(f"{path.name} is not a state dict", "its card describes tensors by name", "")
    return state


def _spaces(
    path: Path, card: Card, config: LoadConfig, weights: Weights, listen: Listener
) -> tuple[Space, Any, EnvSpec | None]:
    """The card's own spaces, or those of the env that the user, the card or the files beside it name."""
    named = config.named_env() or _env(card)
    if card.observation is not None and card.action is not None:
        action = space_from_json(card.action)
        if isinstance(action, Dict):
            raise RefusedError(f"{path.name}: its card tells actions of a Dict", "kdcli knows single actions")
        return space_from_json(card.observation), action, named
    found = _place(path, config, named, listen)
    return found.observation, found.action, found.env


def _place(path: Path, config: LoadConfig, named: EnvSpec | None, listen: Listener) -> Place:
    """The env that was named, with its spaces."""
    if config.env is None and named is not None:
        kwargs = {**named.kwargs, **config.kwargs()}
        return asked.place(replace(named, kwargs=kwargs, wrappers=config.wrapper or named.wrappers))
    return asked.need_place(path, config, 0, listen)


def _env(card: Card) -> EnvSpec | None:
    """The env the card names; a module in its name would be imported, and a file must not decide what is."""
    if card.env is None or ":" in card.env.id:
        return None
    return EnvSpec(card.env.id, card.env.kwargs, card.env.wrappers, card.env.max_steps)


def _trunk(card: Card, weights: Weights, names: Sequence[str]) -> list[assembly.Part]:
    """The layers with their tensors; `names` of those that have some, in order."""
    groups = iter(names)
    parts: list[assembly.Part] = []
    for name, options in card.trunk:
        if name not in LAYERS and name not in ACTIVATIONS:
            known = ", ".join([*LAYERS, *ACTIVATIONS])
            raise RefusedError(f"{weights.what}: its card names the layer {name[:40]!r}", f"known: {known}", "")
        wanted = _wanted(name, options)
        group = next(groups, None) if wanted else None
        if wanted and group is None:
            raise RefusedError(f"{weights.what} has fewer layers than its card", f"none is left for {name}", "")
        tensors = {key: weights.take(f"{group}.{key}") for key in wanted}
        parts.append(assembly.Part(name, {"bias": True, **options} if name == "linear" else options, tensors))
    return parts


def _wanted(name: str, options: Mapping[str, Any]) -> Sequence[str]:
    """The tensors of a layer, under torch's names."""
    if name in _CELLS:
        return _CELLS[name][: 4 if options.get("bias", True) else 2]
    if name in ("linear", "conv2d"):
        return ("weight", "bias") if options.get("bias", True) else ("weight",)
    return ("weight", "bias") if name == "layer_norm" else ()


def _groups(card: Card, weights: Weights, ordered: bool) -> list[str]:
    """Names of the layers that have tensors, in the order they are used, without the heads."""
    listed = [name for name in card.tensors or weights.state if not name.startswith(card.unused)]
    groups = list(dict.fromkeys(name.rpartition(".")[0] for name in listed))
    inside = [group for group in groups if group not in card.heads]
    if not card.tensors and not ordered and len(inside) > 1:
        raise UsageError(
            f"{weights.what} does not keep the order of its layers",
            f"it holds {', '.join(inside[:6])}",
            'list them in the card, in order: "tensors": {"fc1.weight": [64, 4], ...}',
        )
    return inside


def _rule(card: Card, action: Any, signal: str, what: str) -> ActionRule:
    if isinstance(action, Box) != (signal == "mean"):
        raise UsageError(f"{what} gives {signal}", f"the action space is {action}", "see heads in the card, and --env")
    squash: Squash = card.squash or "clip"
    if signal == "mean" and card.squash is None:
        raise UsageError(
            f"the card of {what} does not say how a mean becomes an action", "", '"squash": "clip" or "tanh"'
        )
    return ActionRule(action, squash)


def _value(card: Card, weights: Weights) -> nn.Linear | None:
    """The critic, where it is one layer on the trunk."""
    name = card.head("value")
    if name is None:
        return None
    layer = weights.linear(name)
    made = nn.Linear(layer.weight.shape[1], len(layer.weight), layer.bias is not None, device="meta")
    made.weight = nn.Parameter(layer.weight)
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias)  # type: ignore[assignment]
    return made


def _normalizer(card: Card, shape: tuple[int, ...], what: str) -> Normalizer | None:
    try:
        return None if card.normalizer is None else card.normalizer.normalizer(shape)
    except ValueError as error:
        raise RefusedError(f"the card of {what} cannot be used", str(error), "") from None
