"""What a runtime promises, and who enters it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.benchmarks.contender import Contender
from kdcli.benchmarks.program import Program
from kdcli.errors import UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import Exported, convert


@dataclass(frozen=True, eq=False)
class Entrant:
    """A contender, and the states of play on which its exports are compared."""

    contender: Contender
    states: States

    @property
    def agent(self) -> Agent:
        """The agent run by torch.

        Raises:
            UsageError: the contender is a file that nothing but its own runtime can take.
        """
        found = self.contender.agent
        if found is None:
            why = "an exported file cannot be turned into another format"
            raise UsageError(f"{self.contender.name} is an ONNX file", why, "give the agent it was made from")
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
        if self.contender.agent is not None:
            return self.exported("onnx").data
        if self.contender.path is None:
            raise UsageError(f"{self.contender.name} has no file", "it was made in memory", "write it first")
        return self.contender.path.read_bytes()


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        program: an entrant -> its program there, floor included. Raises UsageError or RefusedError where it cannot be.
        modules: what must be importable.
        install: the line that brings them.
        form: the format of export it runs; empty for none.
    """

    program: Callable[[Entrant], Program]
    modules: tuple[str, ...] = ()
    install: str = ""
    form: str = ""
