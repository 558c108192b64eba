"""`kdcli inspect`: what a file holds."""

from __future__ import annotations

from typing import Any

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console, aligned
from kdcli.cli.load import Checkpoint, NoVecNormalize
from kdcli.cli.options import AsJson, command


@command
def inspect(
    checkpoint: Checkpoint,
    config: LoadConfig,
    *,
    no_vecnormalize: NoVecNormalize = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Show what a file holds: algorithm, spaces, layers, parameters, normalizer, env, signals to teach with."""
    from kdcli.checkpoints import step

    chosen = config.without_vecnormalize() if no_vecnormalize else config
    found = step.inspect(checkpoint, chosen, console.listener)
    if as_json:
        console.answer_json("kdcli.inspect/1", found)
    else:
        console.answer(aligned(_rows(found)))


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the answer; what the file does not tell is left out."""
    from kdcli.spec import EnvSpec

    env, norm, activation = found["env"], found["normalizer"], found["activation"]
    version = found["facts"].get("sb3_version")
    rows = {
        "file": found["file"],
        "format": f"{found['format']}, Stable-Baselines3 {version}" if version else found["format"],
        "algorithm": found["algorithm"],
        "env": None if env is None else str(EnvSpec.from_json(env)),
        "observation": found["observation"],
        "normalizer": "none" if norm is None else _normalizer(norm),
        "action": found["action"],
        "rule": found["rule"],
        "layers": f"{found['network']} {activation}" if activation else found["network"],
        "actor": _count(found["actor_params"]),
        "checkpoint": _total(found),
        "signals": ", ".join(found["signals"]),
        "sha256": found["sha256"],
    }
    return [(name, str(value)) for name, value in rows.items() if value]


def _normalizer(norm: dict[str, Any]) -> str:
    if not norm:
        return "in the file"
    clip = "not clipped" if norm["clip"] is None else f"clipped to {norm['clip']:g}"
    return f"{norm['values']} means and scales, {clip}"


def _count(number: int) -> str:
    return f"{number:,} parameters"


def _total(found: dict[str, Any]) -> str | None:
    """What the checkpoint held besides the actor; not told by every file."""
    total, critic = found["total_params"], found["critic_params"]
    return None if total is None else f"{_count(total)} in all, {critic or 0:,} of them the critic's"
