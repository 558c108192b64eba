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
order the trunk uses them, which a safetensors file does not keep; a state dict has its own order. What lies in
dictionaries is named by the path to it: `model.actor.mu` of `{"model": {"actor": {"mu.weight": ...}}}`.

`unused`: beginnings of names that do not act, such as those of a critic with layers of its own. `observation` and
`action`: the spaces; without them the env tells (`--env`, or `env.id`). `normalizer`: (x - mean) / sqrt(var + epsilon),
or / (std + epsilon), and then clipped. `image`: whether observations are divided by 255. `squash`: how a mean becomes
an action. All but `trunk` and `heads` may be left out; `what`, `source`, `state`, `parameters` and `measured_return`
are for people; `sha256` is checked.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdcli.agents.observation import Normalizer
from kdcli.errors import RefusedError, UsageError
from kdcli.files import open_file, read_json

MAX_CARD = 2**22
SIGNALS = ("logits", "q", "mean")
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
        if sum(text in SIGNALS for text in found.values()) != 1 or not {*found.values()} <= {*SIGNALS, "value"}:
            raise ValueError(f"one of {', '.join(SIGNALS)}, and value; not {', '.join(given.values())}")
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
    """Whether a card lies beside the file.

    Raises:
        RefusedError: what lies there is no regular file.
    """
    try:
        with open_file(path.with_suffix(".json"), None) as handle:
            text = handle.read(MAX_CARD)
    except (UsageError, OSError):
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
        return Card.model_validate(read_json(path.with_suffix(".json"), MAX_CARD))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        fix = f"known keys: {', '.join(Card.model_fields)}"
        raise RefusedError(f"{name} is not a card kdcli reads", f"{place}: {first['msg']}", fix) from None
    except ValueError as error:
        raise RefusedError(f"{name} is not a card", str(error)[:200], "a JSON object is expected") from None
