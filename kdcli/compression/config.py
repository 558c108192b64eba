"""Every option of `compress`, defined once: the command line, recipe.json and keyword arguments read this."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kdcli.durations import Duration


class CompressConfig(BaseModel):
    """How hard to look for the smallest student, and what it must be worth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: Duration = Field(300.0, description="time for everything, measured from the start")
    min_score: float = Field(0.95, gt=0.0, description="score the student must hold; 0 is random play, 1 the teacher")
    min_success: float = Field(
        0.0, ge=0.0, le=1.0, description="share of episodes it must end with is_success in info, by its interval"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="confidence of that verdict")
    target: tuple[str, ...] = Field(
        (), description="what it may take: onnxruntime:latency_us<=8, c:bytes<=8192; the best that fits; repeatable"
    )
    progressive: bool = Field(
        False, description="take the teacher itself apart: fewer layers, channels, bits, each step gated"
    )
    episodes: int = Field(100, ge=20, description="paired episodes of the verdict")
    loss: tuple[str, ...] = Field((), description="loss terms, as in distill; default: by what the teacher gives")
    max_steps: int | None = Field(None, ge=1, description="cap on the steps of an episode; default: the env's own")
    envs: int = Field(8, ge=1, description="environments stepped side by side")
    seed: int = Field(0, ge=0, description="source of every random choice")
    baselines: bool = Field(True, description="show random play and a linear student beside the result")
