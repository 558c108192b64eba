"""Every option of pruning, defined once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PruneConfig(BaseModel):
    """What an agent loses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lossless: bool = Field(False, description="only what changes no action: kdcli list lossless")
    states: int = Field(20_000, ge=100, description="real states in which what never varies is idle")
    seed: int = Field(0, ge=0, description="source of every random choice")
