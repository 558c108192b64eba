"""Every option of a rollout, defined once: the command line, recipes and the dataset's record read this."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Behaviour = Literal["teacher", "student", "mixed", "random"]


class RolloutConfig(BaseModel):
    """How experience is recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100_000, ge=1, description="steps to record in all")
    policy: Behaviour = Field("teacher", description="who acts; AGENT, the teacher, labels every step")
    beta: float = Field(0.5, ge=0.0, le=1.0, description="mixed: share of the steps in which the teacher acts")
    noise: float = Field(
        0.0, ge=0.0, description="noise on actions: deviation in half-ranges; discrete: share of random ones"
    )
    sampled: bool = Field(False, description="draw the teacher's actions from its distribution")
    envs: int = Field(8, ge=1, description="environments stepped side by side")
    seed: int = Field(0, ge=0, description="source of every random choice")
    shard_rows: int = Field(65_536, ge=1, description="steps a file, at most; fewer where they are large")

    @property
    def teacher_share(self) -> float:
        """The share of the steps in which the teacher acts."""
        return {"teacher": 1.0, "mixed": self.beta}.get(self.policy, 0.0)
