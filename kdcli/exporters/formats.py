"""What a format of export promises: to be written, to say what it is, and to be run for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdcli.exporters.config import ExportConfig
from kdcli.graph.operations import Graph

# Suffix -> content; the first is the one a user names.
Files = Mapping[str, bytes]
# Inputs and the outputs that belong to them, by name, each (N, ...).
Examples = Mapping[str, np.ndarray]
# Inputs by name, each (B, ...) -> outputs by name.
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        write: graph, options, the stem of the files' names, and examples of what the policy does, for a format that
            ships a test -> the files. Raises UsageError for an option it cannot follow. Equal graphs and examples give
            equal bytes.
        stamp: the files with the record of what they are; nothing that acts changes.
        runner: the files of a graph as a function. Raises UsageError where what is needed to run them is not installed.
        memory: bytes of flash and RAM that the files take where they run, by what takes them; nothing where that is the
            business of a runtime.
    """

    write: Callable[[Graph, ExportConfig, str, Examples], Files]
    stamp: Callable[[Files, Mapping[str, Any]], Files]
    runner: Callable[[Files, Graph], Run]
    memory: Callable[[Files], Mapping[str, Any]] = lambda _: {}
