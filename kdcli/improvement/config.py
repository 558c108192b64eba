"""Every option of improving an agent by its return, defined once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ImproveConfig(BaseModel):
    """How an agent becomes better by its return."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: int = Field(100, ge=1, description="how often the search moves")
    population: int = Field(16, ge=4, description="sets of weights tried in a generation")
    rollouts: int = Field(1, ge=1, description="episodes that each set plays, on the same seeds")
    sigma: float = Field(0.1, gt=0, description="first step size, in units of the root mean square of the weights")
    episodes: int = Field(24, ge=2, description="episodes, on seeds of their own, by which the best weights are kept")
    judge_every: int = Field(10, ge=1, description="generations between two judgments")
    bench_episodes: int = Field(50, ge=2, description="paired episodes that measure the gain in the end")
    max_steps: int | None = Field(None, ge=1, description="end an episode after so many steps")
    seed: int = Field(0, ge=0, description="source of every random choice")
