"""An exported policy as an agent, run by onnxruntime on one thread. Loading it needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.agents.in_batches import InBatches, in_batches
from kdcli.agents.onnx.count import count
from kdcli.agents.onnx.edits import check_actions, check_parts
from kdcli.agents.onnx.sandbox import try_out
from kdcli.agents.onnx.validate import check_decision, check_ends, check_numbers, check_record, refuse_other_files
from kdcli.agents.predict import Observation, predict
from kdcli.artifact import strict_json
from kdcli.errors import RefusedError, UsageError
from kdcli.files import read_bytes
from kdcli.spec import STATE_IN, STATE_OUT, Dict, EnvSpec, Part, Space, feed, space_from_json, zeros

if TYPE_CHECKING:
    import onnx
    import onnxruntime

KEY = "kdcli"
SCHEMA = 2
MAX_FILE = 2**28
_OPEN = '"digest":"'
_BLANK = "0" * 64


def seal(data: bytes) -> bytes:
    """Fill in the digest that the record in `data` leaves blank (see `blank_record`): of all its other bytes."""
    return data.replace((_OPEN + _BLANK).encode(), (_OPEN + hashlib.sha256(data).hexdigest()).encode(), 1)


def blank_record(record: Mapping[str, Any]) -> str:
    """The record as the text a file carries, its digest not yet filled in; equal records give equal text."""
    content = {**record, "kind": "policy", "schema": SCHEMA, "digest": _BLANK}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_intact(data: bytes, digest: str) -> bool:
    blank = data.replace((_OPEN + digest).encode(), (_OPEN + _BLANK).encode(), 1)
    return hashlib.sha256(blank).hexdigest() == digest


@dataclass(frozen=True, eq=False)
class OnnxAgent:
    """A policy in a file. `record` is what the file says of itself, `size_bytes` its length.

    `n_params` are weights and biases of the matrix products, `n_constants` all other numbers in the file (normalizer,
    bounds), `multiply_adds` those of the matrix products for one observation; all counted in the file, not claimed.
    `edits` say what of the file is no longer what its record says.
    """

    name: str
    env: EnvSpec | None
    observation: Space
    action: Part
    record: Mapping[str, Any]
    session: onnxruntime.InferenceSession | InBatches
    size_bytes: int
    n_params: int
    n_constants: int
    multiply_adds: int
    edits: tuple[str, ...] = ()

    @cached_property
    def outputs(self) -> list[str]:
        """Names of what the file puts out."""
        return [output.name for output in self.session.get_outputs()]

    @cached_property
    def state_size(self) -> int:
        """Numbers it carries from step to step; 0 without memory."""
        return 0 if self.record["state"] is None else int(self.record["state"]["size"])

    def run(self, obs: np.ndarray, state: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Raw observations (B, *shape), and states (B, S) of a policy with memory -> every output of the file."""
        return dict(zip(self.outputs, self.session.run(None, self.inputs(obs, state)), strict=True))

    def inputs(self, obs: np.ndarray, state: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What the session is given, by name."""
        given = feed(self.observation, obs)
        if self.state_size:
            given[STATE_IN] = np.zeros((len(obs), self.state_size), np.float32) if state is None else state
        return given

    def predict(
        self,
        observation: Observation,
        state: np.ndarray | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions and the next state, in Stable-Baselines3's form; see `kdcli.agents.predict`."""
        return predict(self, observation, state, episode_start, deterministic)

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions (B, *shape); deterministic without `rng`, else sampled.

        Raises:
            UsageError: sampled play of a file that holds no distribution, or a policy with memory: use `step`.
        """
        if self.state_size:
            raise UsageError(f"{self.name} has memory", "it needs the state of the step before", "use step")
        if rng is None or not self.record["sampled_by"]:
            return self.session.run(_ACTION, self.inputs(obs))[0]
        return self._sample(self.run(obs), rng)

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `act`, with the states before (B, S); returns those after, too. Zeros begin an episode."""
        found = self.run(obs, state)
        sampled = rng is not None and self.record["sampled_by"]
        actions = self._sample(found, rng) if sampled and rng is not None else found["action"]
        return actions, found.get(STATE_OUT, state)

    def _sample(self, found: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """As the agent it was made from draws, with the same generator the same actions."""
        needed = self.record["sampled_by"]
        if not set(needed) <= set(self.outputs):
            raise UsageError(
                f"{self.name} cannot be sampled from",
                f"the file puts out {', '.join(self.outputs)}; sampling needs {', '.join(needed)}",
                f"export it with --outputs action,{','.join(needed)}",
            )
        return _draw({name: array for name, array in found.items() if name in needed}, self, rng)


_ACTION = ["action"]


def _draw(found: Mapping[str, np.ndarray], agent: OnnxAgent, rng: np.random.Generator) -> np.ndarray:
    import torch

    from kdcli.agents.action import ActionRule
    from kdcli.agents.distributions import sample
    from kdcli.agents.heads import Heads

    rule = ActionRule(agent.action, **agent.record["rule"])
    heads = Heads().having({name: torch.from_numpy(array) for name, array in found.items()})
    return sample(heads, rule, rng).numpy().astype(agent.action.dtype, copy=False)


def load(path: Path) -> OnnxAgent:
    """Read a policy exported by kdcli.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is not ONNX, not exported by kdcli, or has other weights than it was exported with.
    """
    return from_bytes(read_bytes(path, MAX_FILE), path.name, strange=True)


def from_bytes(data: bytes, source: str, strange: bool = False) -> OnnxAgent:
    """The agent in the bytes of an exported file; `source` is what errors call it.

    Where they are `strange`, of a file and not just made here, they are tried in another process first.

    Raises:
        RefusedError: as `load`.
    """
    model = _parse(data, source)
    try:
        record, edits = _record(model, data, source)
        env = None if record["env"] is None else EnvSpec.from_json(record["env"])
        sees, does = (space_from_json(record[key]) for key in ("observation", "action"))
        check_record(record)
        check_numbers(model)
        if strange:
            try_out(data, source)
        session = in_batches(start(data, source)) if edits else start(data, source)
        check_ends(session, record, sees, edited=bool(edits))
        if isinstance(does, Dict):
            raise ValueError("actions of a Dict")
        agent = OnnxAgent(record["name"], env, sees, does, record, session, len(data), *count(model), edits)
        if strange:
            check_decision(lambda: agent.run(zeros(sees, 2)), does)
        return replace(agent, edits=(*edits, *_acted(model, agent, source))) if edits else agent
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise RefusedError(f"{source} does not describe a policy", repr(error), "export it again") from None


def start(data: bytes, source: str) -> onnxruntime.InferenceSession:
    """An onnxruntime session on one thread of the CPU.

    Raises:
        RefusedError: onnxruntime does not take the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's own kinds have no common base but this
        reason = str(error).splitlines()[0]
        what = f"onnxruntime {onnxruntime.__version__} cannot run {source}"
        raise RefusedError(what, reason, "export it again, or with a lower --opset") from None


def _parse(data: bytes, source: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise RefusedError(f"{source} is not an ONNX file", str(error), "copy or export it again") from None
    refuse_other_files(model, source)
    return model


def _acted(model: onnx.ModelProto, agent: OnnxAgent, source: str) -> tuple[str, ...]:
    """What an edited file does, beside what its record says, and how many observations it takes at a time."""

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return dict(zip(agent.outputs, agent.session.run(None, dict(given)), strict=True))
        except Exception as error:  # onnxruntime's own kinds have no common base but this
            raise ValueError(str(error).splitlines()[0]) from None

    said = [check_actions(model, agent.record, run, source)]
    if isinstance(agent.session, InBatches):
        said.append(f"it takes {agent.session.size} at a time, and is given more one after the other")
    return tuple(said)


def _record(model: onnx.ModelProto, data: bytes, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the file says of itself, checked against its digest, and what was edited since."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    try:
        record = strict_json(properties[KEY])
        kind, schema, digest = record["kind"], record["schema"], record["digest"]
    except (KeyError, RecursionError, TypeError, ValueError):
        why = "its metadata does not say what it observes and how it acts"
        raise RefusedError(f"{source} was not exported by kdcli", why, "export the agent with kdcli export") from None
    if (kind, schema) != ("policy", SCHEMA):
        what = f"{source} is a {str(kind)[:40]!r} of schema {str(schema)[:40]}"
        raise RefusedError(what, f"this kdcli reads {SCHEMA}", "update kdcli")
    return record, () if _is_intact(data, str(digest)) else (check_parts(model, record, source),)
