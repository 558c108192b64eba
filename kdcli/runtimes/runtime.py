"""What a runtime promises, and who enters it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.program import Program
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import Exported, convert
from kdcli.files import read_bytes


@dataclass(frozen=True, eq=False)
class RuntimeEntry:
    """A contender, and the states of play on which its exports are compared."""

    entry: BenchEntry
    states: States

    @property
    def agent(self) -> Agent:
        """The agent run by torch.

        Raises:
            UsageError: the contender is a file that nothing but its own runtime can take.
        """
        found = self.entry.agent
        if found is None:
            why = "an exported file cannot be turned into another format"
            raise UsageError(f"{self.entry.name} is an ONNX file", why, "give the agent it was made from")
        return found

    def exported(self, form: str) -> Exported:
        """The agent as files of a format, compared with it.

        Raises:
            UsageError: see `agent`; what compares them is not here.
            RefusedError: the files do not act like the agent.
        """
        return convert(self.agent, self.states, ExportConfig(format=form))

    @cached_property
    def onnx(self) -> bytes:
        """The ONNX file that is deployed.

        Raises:
            UsageError: it is not known where the file lies.
        """
        if self.entry.agent is not None:
            return self.exported("onnx").data
        if self.entry.path is None:
            raise UsageError(f"{self.entry.name} has no file", "it was made in memory", "write it first")
        return read_bytes(self.entry.path)


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        program: an entrant -> its program there, floor included. Raises UsageError or RefusedError where it cannot be.
        modules: what must be importable.
        install: the line that brings them.
        form: the format of export it runs; empty for none.
    """

    program: Callable[[RuntimeEntry], Program]
    modules: tuple[str, ...] = ()
    install: str = ""
    form: str = ""
