"""`kdcli inspect`: what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console, aligned
from kdcli.cli.load import Checkpoint, NoVecNormalize
from kdcli.cli.options import AsJson, command
from kdcli.options import given


@command
def inspect(
    checkpoint: Checkpoint,
    source: LoadConfig,
    *,
    no_vecnormalize: NoVecNormalize = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Show what a file holds: algorithm, spaces, layers, parameters, normalizer, env, signals to teach with."""
    from kdcli.api.load import inspect as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    found = run(checkpoint, progress=console.listener, **given(chosen)).details
    if as_json:
        console.answer_json("kdcli.inspect/1", found)
    else:
        console.answer(aligned(_rows(found)))


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the answer; what the file does not tell is left out."""
    from kdcli.spec import EnvSpec

    env, norm, activation = found["env"], found["normalizer"], found["activation"]
    state, actor = found["state_size"], found["actor_params"]
    rows = {
        "file": found["file"],
        "format": _format(found),
        "algorithm": found["algorithm"],
        "env": None if env is None else str(EnvSpec.from_json(env)),
        "observation": found["observation"],
        "normalizer": _normalizer(norm) if norm is not None else None if found["program"] else "none",
        "action": found["action"],
        "rule": found["rule"],
        "layers": f"{found['network']} {activation}" if activation else found["network"],
        "memory": f"{state:,} numbers from step to step, zeros where an episode begins" if state else None,
        "actor": None if actor is None else _count(actor),
        "weights": _storage(found["storage"]) if found["storage"] else None,
        "checkpoint": _total(found),
        "signals": ", ".join(found["signals"]),
        "sha256": found["sha256"],
    }
    told = [(name, str(value)) for name, value in rows.items() if value]
    return [*told, *_contract(found["contract"] or {}), *_program(found["program"] or {})]


def _format(found: Mapping[str, Any]) -> str:
    """The format, and the version of the library that wrote it where it tells."""
    versions = {"sb3_version": "Stable-Baselines3", "d3rlpy_version": "d3rlpy"}
    told = [f"{name} {found['facts'][key]}" for key, name in versions.items() if found["facts"].get(key)]
    return ", ".join([found["format"], *told])


def _contract(contract: dict[str, Any]) -> list[tuple[str, str]]:
    """What an export promises: its ends, its range, how alike it acts, what it was made from."""
    rows = [(f"input {port['name']}", _port(port)) for port in contract.get("inputs") or []]
    rows += [(f"output {port['name']}", _port(port)) for port in contract.get("outputs") or []]
    bounds, state, parity = (contract.get(name) for name in ("action_range", "state", "parity"))
    if bounds is not None:
        rows.append(("action range", f"{_bound(bounds[0])} to {_bound(bounds[1])}"))
    if state is not None:
        rows.append(("reset", f"state_in: {state['reset']}"))
    if contract.get("normalizer"):
        rows.append(("normalized", f"{contract['normalizer']}: observations go in as the env gives them"))
    if parity is not None:
        rows.append(("parity", _parity(parity)))
    rows += [("made from", parent["sha256"]) for parent in contract.get("parents") or []]
    versions = contract.get("versions") or {}
    return (
        [*rows, ("versions", ", ".join(f"{name} {number}" for name, number in versions.items()))] if versions else rows
    )


def _port(port: dict[str, Any]) -> str:
    return f"{port['dtype']} ({', '.join(map(str, port['shape']))})"


def _bound(bound: Any) -> str:
    """One bound for all, or each one's."""
    return f"{bound:g}" if isinstance(bound, int | float) else str(bound)


def _parity(parity: dict[str, Any]) -> str:
    largest, ties = parity.get("max_abs_difference"), parity.get("ties")
    alike = f", largest difference {largest:.1e}" if largest is not None else ""
    alike += f", {ties} ties" if ties else ""
    return f"acts as its source on {parity['n_states']:,} states ({parity['source']}){alike}"


def _program(program: dict[str, Any]) -> list[tuple[str, str]]:
    """The ends of a foreign ONNX file."""
    rows = [("takes", end) for end in program.get("inputs", [])] + [
        ("gives", end) for end in program.get("outputs", [])
    ]
    rows += [("carries", pair) for pair in program.get("state", [])]
    told = {"written by": program.get("producer"), "opset": program.get("opset")}
    return rows + [(name, str(value)) for name, value in told.items() if value]


def _normalizer(norm: dict[str, Any]) -> str:
    if not norm:
        return "in the file"
    clip = "not clipped" if norm["clip"] is None else f"clipped to {norm['clip']:g}"
    return f"{norm['values']} means and scales, {clip}"


def _storage(storage: dict[str, Any]) -> str:
    """Bits a weight, and where the bytes of the file are."""
    parts = ", ".join(f"{size:,} {name}" for name, size in storage.items() if name != "bits")
    return f"{storage['bits']:.3g} bits each; bytes: {parts}"


def _count(number: int) -> str:
    return f"{number:,} parameters"


def _total(found: Mapping[str, Any]) -> str | None:
    """What the checkpoint held besides the actor; not told by every file."""
    total, critic = found["total_params"], found["critic_params"]
    if total is None:
        return None
    return f"{_count(total)} in all" + ("" if critic is None else f", {critic:,} of them the critic's")
