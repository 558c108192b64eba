"""A policy as C99 source: for robots, microcontrollers, games, and whatever can call C.

graph -> `lower` (steps on memory) -> `plan` (which memory) -> `writers` (statements) -> `files` (header, source, test).
"""

from __future__ import annotations

from kdcli.exporters.c.files import write
from kdcli.exporters.c.flash import memory
from kdcli.exporters.c.run import runner
from kdcli.exporters.c.stamp import stamp
from kdcli.exporters.formats import Format

FORMAT = Format(write, stamp, runner, memory)
