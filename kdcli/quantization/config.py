"""Every option of quantization, defined once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kdcli.durations import Duration


class QuantizeConfig(BaseModel):
    """What an agent is put on, and what it must still be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str = Field("int8", description="levels of the weights, one of: kdcli list schemes")
    mixed: float = Field(
        0.0,
        ge=0.0,
        le=16.0,
        description="int8 to int2 by matrix, of so many bits a weight in the mean; 0: the scheme",
    )
    activations: int = Field(0, ge=0, le=16, description="bits of activations; 0: floats")
    inputs: int = Field(16, ge=0, le=16, description="bits of observations where activations have some; 0: floats")
    calibration: str = Field("minmax", description="ranges of activations, one of: kdcli list calibrations")
    states: int = Field(4096, ge=100, description="states of its own play that activations are calibrated on")
    updates: int = Field(0, ge=0, description="gradient steps of training as it will be quantized; 0: rounded only")
    auto: bool = Field(False, description="measure several ways and keep the best that holds")
    target: Literal["bytes", "latency"] = Field("bytes", description="what auto is after, in the ONNX file")
    batch: Literal[1, 256] = Field(1, description="observations a call, where auto is after latency")
    episodes: int = Field(300, ge=2, description="at most so many paired episodes of every agent, or as many as decide")
    min_score: float = Field(0.95, description="it holds from this score on; 0 is random play, 1 the floats")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="level of every interval")
    latency_budget: Duration = Field(3.0, description="time for all timing")
    seed: int = Field(0, ge=0, description="source of every random choice")
