"""Any ONNX policy as a black box: grafted onto kdcli's contract, so that it is run, timed and compared like an export.

Observations are matched to the inputs by name (Dict), or are the only one; an input that comes back as an output
(`h_in` and `h_out`, `state` and `next_state`) is the state. Nothing outside the file is read, and only operations that
onnxruntime itself knows are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from kdcli import artifact
from kdcli.agents.onnx.sandbox import try_out
from kdcli.agents.onnx.session import KEY, OnnxAgent, blank_record, from_bytes, seal, start
from kdcli.checkpoints.blackbox.onnx_file import FLOATS, INTEGERS, End, Opened, carried_states, count_numbers, open_file
from kdcli.checkpoints.blackbox.onnx_wrap import Carried, Plan, Seen, wrap_onnx
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.user_hints import Place, need_place
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Listener, Note
from kdcli.spec import Box, Part, input_names, n_outputs, parts, space_to_json, zeros

_ACTS = ("action", "actions")
_MEANT = {"logits": "logits", "q": "q", "q_values": "q", "qvalues": "q", "mean": "mean", "mu": "mean"}
_PROBES = 3


def read(path: Path, config: LoadConfig, listen: Listener) -> OnnxAgent:
    """The policy in the file at `path`, in the env that `config` or the files beside it name.

    Raises:
        UsageError: env, output or signal are not named where they cannot be told, or do not fit.
        RefusedError: as `open_file`; or its inputs are not observations of the env.
    """
    opened = open_file(path)
    n_inputs = sum(prod(n or 1 for n in end.dims[1:]) for end in _free(opened, carried_states(opened)))
    place = need_place(path, config, n_inputs, listen)
    return agent(path, opened, place, config, listen)


def agent(
    path: Path, opened: Opened, place: Place, config: LoadConfig, listen: Listener, kind: str = "onnx_policy"
) -> OnnxAgent:
    """The opened program as the agent of the file at `path`, which is of a `kind` in the table of formats.

    Raises:
        UsageError: output or signal are not named where they cannot be told, or do not fit.
        RefusedError: its inputs cannot be fed.
    """
    plan = _plan(opened, place, config, listen)
    model = _working(opened, plan, listen)
    record = {**_record(path, opened, plan, place), **_facts(path, kind, plan)}
    made = from_bytes(_sealed(model, record), path.name, strange=True)
    # The record's env would be one that a file names; this one may be the user's.
    return replace(made, env=place.env, n_params=count_numbers(opened.model), n_constants=0)


def _free(opened: Opened, carried: Sequence[Carried]) -> list[End]:
    """Inputs that are no state."""
    return [end for end in opened.inputs if end.name not in {state.source for state in carried}]


def _plan(opened: Opened, place: Place, config: LoadConfig, listen: Listener) -> Plan:
    carried = carried_states(opened)
    output = _output(opened, carried, config)
    signal = _signal(output, place.action, config, opened.name)
    _check_output(output, signal, place.action, opened.name)
    seen = _seen(opened.name, _free(opened, carried), place, listen)
    return Plan(seen, tuple(carried), output.name, signal, place.action)


def _seen(name: str, free: Sequence[End], place: Place, listen: Listener) -> tuple[Seen, ...]:
    """Each part of the observation with the input it feeds."""
    wanted, names = parts(place.observation), input_names(place.observation)
    if len(wanted) == 1 == len(free):
        pairs = {next(iter(wanted)): free[0]}
    else:
        pairs = {key: end for key in wanted for end in free if end.name in (key, f"obs_{key}", names[key])}
    if pairs.keys() != wanted.keys() or len(pairs) != len(free):
        why = f"it takes {', '.join(map(str, free))}; the env gives {place.observation}"
        raise UsageError(
            f"the inputs of {name} are not what the env observes",
            why,
            "name the env it was trained on with --env, its wrappers with --wrapper",
        )
    return tuple(_fitted(name, names[key], wanted[key], end, listen) for key, end in pairs.items())


def _fitted(name: str, key: str, part: Part, end: End, listen: Listener) -> Seen:
    """How an observation gets the shape of its input."""
    if end.code not in (*FLOATS, *INTEGERS):
        raise RefusedError(f"{name}: the input {end} takes no numbers", "", "")
    dims, size = end.dims[1:], prod(part.shape)
    known = [n for n in dims if n is not None]
    last = len(part.shape) == 3 and _agree(dims, (part.shape[2], *part.shape[:2])) and not _agree(dims, part.shape)
    shape = (part.shape[2], *part.shape[:2]) if last else part.shape if _agree(dims, part.shape) else tuple(known)
    if prod(shape) != size or (len(known) != len(dims) and not _agree(dims, shape)):
        why = f"the input is {end}"
        raise UsageError(
            f"{name} does not take {part}", why, "name the env it was trained on with --env, see --wrapper"
        )
    if isinstance(part, Box) and part.dtype == "uint8" and end.code in FLOATS:
        listen(Note(f"{name} is given images as they are, 0 to 255: if it wants them divided, it will act wrongly"))
    return Seen(key, part, end.name, shape, end.code, last)


def _agree(dims: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(n in (None, m) for n, m in zip(dims, shape, strict=True))


def _output(opened: Opened, carried: Sequence[Carried], config: LoadConfig) -> End:
    """The output that acts."""
    back = {state.target for state in carried}
    free = [end for end in opened.outputs if end.name not in back]
    if config.output_name is not None:
        named = next((end for end in opened.outputs if end.name == config.output_name), None)
        if named is None:
            known = ", ".join(end.name for end in opened.outputs)
            raise UsageError(
                f"{opened.name} has no output {config.output_name!r}",
                f"it has {known}",
                f"--output-name {opened.outputs[0].name}",
            )
        return named
    chosen = [end for end in free if end.name in _ACTS] or free
    if len(chosen) != 1:
        why = f"it puts out {', '.join(map(str, free))}"
        raise UsageError(
            f"{opened.name} does not say which output acts", why, f"name it, e.g. --output-name {free[0].name}"
        )
    return chosen[0]


def _signal(output: End, action: Part, config: LoadConfig, name: str) -> str:
    """What the output is: as the user says, or where it cannot be anything else."""
    if config.signal is not None:
        return config.signal
    if output.code in INTEGERS and not isinstance(action, Box):
        return "action"
    if output.name.lower() in _MEANT:
        return _MEANT[output.name.lower()]
    if output.name in _ACTS and isinstance(action, Box):
        return "action"
    why = f"the output {output} may be actions, logits, Q-values or means"
    raise UsageError(
        f"{name} does not say what it puts out",
        why,
        "--signal action, or mean" if isinstance(action, Box) else "--signal logits, or q, or action",
    )


def _check_output(output: End, signal: str, action: Part, name: str) -> None:
    """Raise UsageError where the output cannot be what it is said to be."""
    width = prod(action.shape) if signal == "action" else n_outputs(action)
    known = [n for n in output.dims[1:] if n is not None]
    fits = prod(known) == width or len(known) < len(output.dims) - 1
    if not fits or ((signal == "mean") != isinstance(action, Box) and signal != "action"):
        why = f"the output is {output}, the env takes {action}"
        raise UsageError(f"{name} gives no {signal} for the env", why, "see --signal, --output-name and --env")


def _working(opened: Opened, plan: Plan, listen: Listener) -> onnx.ModelProto:
    """The grafted model; one that was written for a single row gets its rows one by one where it must."""
    targets = {seen.target for seen in plan.seen}
    rows = {end.dims[0] for end in opened.inputs if end.name in targets and end.dims}
    if not rows <= {1, None}:
        why = "it takes a fixed number of observations at a time"
        raise RefusedError(
            f"{opened.name} acts for {max(n or 1 for n in rows)} envs", why, "export it with an open batch"
        )
    if 1 not in rows:
        return wrap_onnx(opened.model, plan, single=False)
    single = wrap_onnx(opened.model, plan, single=True)
    try_out(single.SerializeToString(), opened.name)
    batched = wrap_onnx(_without_sizes(opened.model), plan, single=False)
    if _same(batched, single, plan):
        return batched
    listen(Note(f"{opened.name} was written for one observation at a time, and is given them so"))
    return single


def _without_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the shapes that were noted when it was written."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.value_info[:]
    return found


def _same(batched: onnx.ModelProto, single: onnx.ModelProto, plan: Plan) -> bool:
    """Whether several rows at once give what they give alone."""
    rng = np.random.default_rng(0)
    given = {seen.name: _drawn(zeros(seen.part, _PROBES), rng) for seen in plan.seen}
    if plan.carried:
        given["state_in"] = rng.standard_normal((_PROBES, plan.state_size)).astype(np.float32)
    try:
        ours, theirs = (start(model.SerializeToString(), "probe").run(None, given) for model in (batched, single))
    except Exception:  # onnxruntime's own kinds have no common base but this
        return False
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def _drawn(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Observations that are not all alike."""
    if array.dtype.kind == "f":
        return array + rng.standard_normal(array.shape).astype(array.dtype)
    return array + rng.integers(0, 2, array.shape).astype(array.dtype)


def _sealed(model: onnx.ModelProto, record: Mapping[str, Any]) -> bytes:
    model.metadata_props.add(key=KEY, value=blank_record(record))
    return seal(model.SerializeToString(deterministic=True))


def _facts(path: Path, kind: str, plan: Plan) -> dict[str, Any]:
    return {"facts": {"format": kind, "algorithm": None, "output": plan.output, **artifact.parent(path)}}


def _record(path: Path, opened: Opened, plan: Plan, place: Place) -> dict[str, Any]:
    """What kdcli knows of the file, in the words of its own exports."""
    logits = plan.signal == "logits"
    return {
        "name": path.stem,
        "observation": space_to_json(place.observation),
        "action": space_to_json(place.action),
        "env": None if place.env is None else place.env.to_json(),
        "network": {"kind": "onnx", "inputs": list(map(str, opened.inputs)), "outputs": list(map(str, opened.outputs))},
        "signal": plan.signal,
        "rule": {"squash": "clip", "limit": 0.0, "masked": False},
        "state": {"size": plan.state_size, "reset": "zeros where an episode begins"} if plan.carried else None,
        "normalizer": None,
        "sampled_by": ["logits"] if logits else [],
        "parity": None,
        "parents": [artifact.parent(path)],
        "versions": artifact.versions("onnx", "onnxruntime"),
    }
