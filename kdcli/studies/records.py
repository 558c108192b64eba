"""What the records of a study hold, as far as they are read again; see `cell` for what each key means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class Of(_Record):
    """What the numbers of a cell depend on."""

    config: dict[str, Any]
    teacher: dict[str, Any]


class CellRecord(_Record):
    """One student, or why there is none."""

    asked: Of
    status: Literal["done", "not applicable", "failed"]
    reason: list[str] = []
    score: FiniteFloat = 0.0
    agreement: FiniteFloat | None = None
    seconds: FiniteFloat | None = None
    params: Count | None = None
    labels: Count | None = None
    updates: Count | None = None
    student_sha256: str | None = None

    @model_validator(mode="after")
    def _is_measured(self) -> CellRecord:
        needed = ("score", "agreement", "seconds", "params", "labels", "updates") if self.status == "done" else ()
        if missing := [key for key in needed if key not in self.model_fields_set or getattr(self, key) is None]:
            raise ValueError(f"it is done, and lacks {missing[0]}")
        if self.status == "not applicable" and not self.reason:
            raise ValueError("it is not applicable, and lacks a reason")
        return self


class Env(BaseModel):
    """As `EnvSpec.to_json` writes it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str
    kwargs: dict[str, Any] = {}
    wrappers: list[str] = []
    max_steps: int | None = None


class Measured(_Record):
    """Returns of one who plays."""

    mean: FiniteFloat
    returns: list[FiniteFloat] = Field(min_length=1)


class TeacherRecord(_Record):
    """A teacher and random play, measured."""

    name: str
    files: list[str]
    env: Env
    first_seed: int
    episodes: int
    params: Count | None
    teacher: Measured
    random: Measured
