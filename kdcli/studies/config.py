"""What a study's file says."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdcli.checkpoints.config import LoadConfig
from kdcli.toml_config import Name

BASE = "base"
# Options of `kdcli distill`, by the names of its fields.
Options = dict[str, Any]


class StudyTeacher(BaseModel):
    """Whom the students learn from, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="what the table calls it")
    path: str = Field(description="checkpoint or its folder; $NAME is a variable of the environment")
    also: tuple[str, ...] = Field((), description="further teachers of the same env, combined as `combine` says")
    load: LoadConfig = Field(LoadConfig(), description="how the files are read: env, wrapper, ...")
    max_steps: int | None = Field(None, ge=1, description="cap on the steps of an episode; default: the env's own")
    dataset: str | None = Field(None, description="recorded states of it, for variants with data = offline")
    options: Options = Field({}, description="options of this teacher's students, before those of a variant")


class Axis(BaseModel):
    """Options of one kind, of which each variant sets its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="what is varied")
    variants: dict[Name, Options] = Field(description="name -> options of kdcli distill", min_length=1)


class Variant(BaseModel):
    """A variant that stands alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="what the table calls it")
    options: Options = Field(description="options of kdcli distill")


class Study(BaseModel):
    """Teachers, a base, what is varied around it, and how it is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("study", description="title of the table")
    teacher: tuple[StudyTeacher, ...] = Field(min_length=1, description="whom the students learn from")
    base: Options = Field({}, description="options of kdcli distill that all variants start from")
    axis: tuple[Axis, ...] = Field((), description="what is varied, one axis a kind")
    variant: tuple[Variant, ...] = Field((), description="further variants")
    grid: Literal["one", "full"] = Field("one", description="one factor at a time around the base, or all combinations")
    seeds: int = Field(5, ge=1, le=10_000, description="students of each variant, seeds 0, 1, ...")
    episodes: int = Field(100, ge=2, le=1_000_000, description="episodes that measure each student, the same for all")
    seed: int = Field(0, ge=0, description="which initial states these are")
    states: int = Field(2048, ge=1, le=10_000_000, description="states of the teacher's play to compare actions on")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="level of every interval")
