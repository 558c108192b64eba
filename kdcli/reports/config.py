"""What is asked of a report, defined once: the command line and recipes read this."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kdcli.reports.gates import Gate


class ReportConfig(BaseModel):
    """What must hold, and how much is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: tuple[str, ...] = Field((), description="score>=0.95, latency_us<=20, NAME:params<=2000; repeatable")
    per_episode: bool = Field(False, description="keep the return of every episode in the JSON")

    def gates(self) -> list[Gate]:
        """The gates, read.

        Raises:
            UsageError: one is not a gate, or its metric is not known.
        """
        return [Gate.parse(text) for text in self.gate]
