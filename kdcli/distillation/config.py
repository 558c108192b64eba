"""Every option of a distillation, defined once: the command line, recipes and the artifact's record read this."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Literal["all", "trunk"]
DataMode = Literal["offline", "teacher", "student", "dagger", "dart"]
Init = Literal["random", "teacher"]


class DistillConfig(BaseModel):
    """How a student learns from a teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: str = Field("mean", description="several teachers as one, one of: kdcli list combinations")
    student: str = Field(
        "",
        description="architecture of the student: mlp:16,activation=relu, linear; default: mlp:32x32, of images "
        "cnn:16x32x32,hidden=128, a gru where the teacher remembers",
    )
    init: Init = Field("random", description="first weights: drawn, or the teacher's own layers as far as they fit")
    loss: tuple[str, ...] = Field(
        (), description="loss terms, each name[@weight schedule]; default: by what the teacher gives"
    )
    tau: str = Field("1", description="temperature: a schedule, or one of: kdcli list temperatures; a|b by choice")
    weigh: str = Field("uniform", description="how much a state matters, one of: kdcli list weighings")
    balance: str = Field("fixed", description="how terms share the gradient, one of: kdcli list balances")
    reinforce: tuple[str, ...] = Field(
        (), description="learning from rewards beside it: ppo[@weight schedule], one of: kdcli list reinforcements"
    )
    reinforce_steps: int = Field(
        0, ge=0, description="env steps that rewards are learned from, in all; 0: as many as labels"
    )
    reinforce_entropy: float = Field(
        0.0, ge=0.0, description="entropy bonus beside the rewards, per nat of the student's policy"
    )
    data: DataMode = Field(
        "dagger", description="who acts: a Dataset (offline), the teacher, the student, or a mixture"
    )
    beta: str = Field(
        "0", description="dagger: share of steps in which the teacher acts, over the rounds after the first, a schedule"
    )
    augment: str = Field("", description="moved states the teacher labels, too, one of: kdcli list augmentations")
    curriculum: str = Field(
        "", description="easier envs first, by an argument of the env: gravity:-4->-10; the next at 0.9 of the teacher"
    )
    replay: str = Field("uniform", description="which states are drawn more often, one of: kdcli list replays")
    labels: int = Field(
        80_000,
        ge=100,
        description="states labeled by the teacher in all; of recorded ones alone: so many of them, default all",
    )
    rounds: int = Field(16, ge=1, description="rounds of collecting and training; the student is measured after each")
    updates: int = Field(32_000, ge=1, description="gradient steps in all")
    batch: int = Field(0, ge=0, description="states a gradient step; 0: 256, with convolutions 64")
    window: int = Field(32, ge=2, description="steps of an episode that a student with memory learns from at once")
    lr: str = Field(
        "", description="learning rate schedule; default: cosine:0.003->0.00003, convolutions cosine:0.001->0.00003"
    )
    noise: float = Field(0.0, ge=0.0, description="standard deviation of Gaussian noise on continuous actions taken")
    episodes: int = Field(16, ge=1, description="episodes that measure the student after a round")
    envs: int = Field(8, ge=1, description="environments stepped side by side")
    capacity: int = Field(1_000_000, ge=100, description="states kept in memory; the oldest go first")
    seed: int = Field(0, ge=0, description="source of every random choice")


class ResolvedConfig(DistillConfig):
    """A `DistillConfig` for one teacher, with nothing left open; made by `distillation.student.resolve`, once.

    `student`, `batch` and `lr` are given, and `losses` are the terms that teach. A record holds what was asked for: the
    fields of `DistillConfig`.
    """

    losses: tuple[str, ...] = Field(exclude=True)


class TasksConfig(BaseModel):
    """How several tasks are learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["together", "in-turn"] = Field("together", description="all tasks at once, or one after the other")
    share: Share = Field("trunk", description="in turn: what tasks share; all, for tasks of the same spaces")
    keep: tuple[str, ...] = Field(
        (), description="in turn: against forgetting, each name[@weight schedule], one of: kdcli list penalties"
    )


class ChainConfig(BaseModel):
    """Teachers and students one after the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teachers: Literal["combined", "best", "in-turn"] = Field(
        "combined",
        description="several: seen as one, the best in the env alone, or one after the other, weak to strong",
    )
    via: tuple[str, ...] = Field((), description="assistants between teacher and student, the largest first")
    generations: int = Field(1, ge=1, description="students of this architecture, each taught by the one before")

    @property
    def plain(self) -> bool:
        """Whether one teacher, or several seen as one, have one student."""
        return self.teachers == "combined" and not self.via and self.generations == 1
