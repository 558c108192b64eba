"""Every option of pruning, defined once."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kdcli.errors import UsageError, option


def _thousands(value: Any) -> Any:
    """`20k` as 20000."""
    return int(float(value[:-1]) * 1000) if isinstance(value, str) and value[-1:] == "k" else value


Count = Annotated[int, BeforeValidator(_thousands)]


N_OF_M = re.compile(r"(\d+):(\d+)")


class PruneConfig(BaseModel):
    """What an agent loses, and how it recovers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lossless: bool = Field(False, description="only what changes no action, by all of: kdcli list lossless")
    to: str | None = Field(None, description="the size: params<=2000, macs<=10k, latency_us<=8, nonzeros<=5k")
    pattern: str = Field("units", description="what goes: whole units, single weights, or all but N of M weights: 2:4")
    importance: str = Field("disagreement", description="what goes last, one of: kdcli list importances")
    allocation: Literal["uniform", "global"] = Field(
        "uniform", description="of every layer the same share, or by score"
    )
    rounds: int = Field(3, ge=1, description="rounds of cutting and recovering; 1: all at once")
    pace: str = Field("geometric", description="sizes of the rounds, one of: kdcli list paces")
    recover: Count = Field(20_000, ge=0, description="gradient steps of distillation after every round")
    labels: Count = Field(20_000, ge=100, description="states that the agent as it was labels for every round")
    lr: str = Field("cosine:0.001->0.00003", description="learning rate schedule of every recovery")
    min_score: float = Field(0.9, description="stop where the score falls below; the agent before that is kept")
    episodes: int = Field(50, ge=2, description="paired episodes that measure the score after a round")
    states: Count = Field(20_000, ge=100, description="real states in which what never varies is idle")
    importance_states: Count = Field(20_000, ge=16, description="real states on which importance is measured")
    seed: int = Field(0, ge=0, description="source of every random choice")

    @property
    def block(self) -> tuple[int, int] | None:
        """N and M of a pattern N:M."""
        found = N_OF_M.fullmatch(self.pattern)
        return (int(found[1]), int(found[2])) if found else None

    def check(self) -> None:
        """Raise UsageError where nothing is asked for, or the pattern is none."""
        if self.pattern not in ("units", "weights") and not (self.block and 0 < self.block[0] < self.block[1]):
            why = "known: units, weights, or N:M with N below M"
            raise UsageError(f"unknown pattern {self.pattern!r}", why, f"e.g. {option('pattern', '2:4')}")
        if not (self.lossless or self.to or self.block):
            fix = f"give {option('to', 'params<=2000')}, or {option('lossless')}"
            raise UsageError("nothing is asked for", "prune needs to know how far to go", fix)
