"""`kdcli list`: the parts that options name."""

from __future__ import annotations

from typing import Annotated

import typer

from kdcli.cli.console import Console, aligned
from kdcli.cli.options import AsJson, command
from kdcli.errors import unknown
from kdcli.registry import Registry, load_target

ROOMS = {
    "formats": "kdcli.checkpoints:FORMATS",
    "networks": "kdcli.networks:NETWORKS",
    "losses": "kdcli.distillation:LOSSES",
    "temperatures": "kdcli.distillation:TEMPERATURES",
    "schedules": "kdcli.distillation:SCHEDULES",
    "data": "kdcli.distillation:DATA",
    "augmentations": "kdcli.distillation:AUGMENTATIONS",
    "replays": "kdcli.distillation:REPLAYS",
    "balances": "kdcli.distillation:BALANCES",
    "controls": "kdcli.distillation:CONTROLS",
    "reinforcements": "kdcli.distillation:REINFORCEMENTS",
    "teachers": "kdcli.agents.ensemble:COMBINATIONS",
    "students": "kdcli.networks:NETWORKS",
    "combinations": "kdcli.agents.ensemble:COMBINATIONS",
    "weighings": "kdcli.distillation:WEIGHINGS",
    "penalties": "kdcli.distillation:PENALTIES",
    "wrappers": "kdcli.envs:WRAPPERS",
    "lossless": "kdcli.pruning:LOSSLESS",
    "schemes": "kdcli.quantization:SCHEMES",
    "calibrations": "kdcli.quantization:CALIBRATIONS",
    "importances": "kdcli.pruning:IMPORTANCE",
    "paces": "kdcli.pruning:PACES",
    "budgets": "kdcli.pruning:BUDGETS",
    "exporters": "kdcli.exporters:EXPORTERS",
    "runtimes": "kdcli.runtimes:RUNTIMES",
    "steps": "kdcli.recipes:STEPS",
}


@command
def list_parts(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(ROOMS)}.")] = None,
    *,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """List the parts that options name, with a line of help each."""
    found = {name: _rows(name) for name in ([kind] if kind else ROOMS)}
    if as_json:
        console.answer_json("kdcli.list/1", {name: dict(rows) for name, rows in found.items()})
    elif kind:
        console.answer(aligned(found[kind]))
    else:
        console.table(("kind", "name", "help"), [(name, *row) for name, rows in found.items() for row in rows])


def _rows(kind: str) -> list[tuple[str, str]]:
    """Name and help of each part of one kind."""
    if kind not in ROOMS:
        raise unknown("kind of part", kind, ROOMS)
    registry: Registry = load_target(ROOMS[kind])
    return [(name, registry.help(name)) for name in registry.names()]
