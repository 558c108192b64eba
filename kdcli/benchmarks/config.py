"""Every option of a benchmark, defined once: the command line, recipes and the record read this."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kdcli.durations import Duration
from kdcli.names import Names


class BenchConfig(BaseModel):
    """How agents are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    episodes: int | None = Field(
        None, ge=2, description="exactly so many paired episodes of every agent; default: until all is decided"
    )
    max_episodes: int = Field(500, ge=2, description="the most of them, where --episodes is not given")
    seed: int = Field(0, ge=0, description="which initial states, and where chance starts")
    sampled: bool = Field(False, description="actions are drawn from the policy; default: its most likely one")
    max_steps: int | None = Field(None, ge=1, description="longest episode; default: the env's own limit, or 10,000")
    min_score: float = Field(
        0.95, description="an agent holds from this score on; 0 is random play, 1 the reference agent"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="level of every interval")
    floor: float | None = Field(
        None, allow_inf_nan=False, description="lowest return an episode can have; default: the lowest of random play"
    )
    states: int = Field(2048, ge=1, description="states of the reference's play on which actions are compared")
    runtimes: Names = Field(
        ("torch", "onnxruntime"), description="where calls are timed, joined by commas; see kdcli list runtimes"
    )
    latency_budget: Duration = Field(3.0, description="time for all timing; 0s leaves it out")
    baselines: bool = Field(True, description="show random play and a linear student beside the agents")
    linear_budget: Duration = Field(20.0, description="time to train the linear student; 0s leaves it out")
