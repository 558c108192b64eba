"""The steps of a recipe with their options read and their inputs found, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, TypeAdapter, ValidationError

from kdcli.checkpoints.read import find_file
from kdcli.errors import KdcliError, RefusedError, UsageError, option, unknown
from kdcli.outputs import checked
from kdcli.recipes import STEPS
from kdcli.recipes.recipe import ResolvedRecipe
from kdcli.recipes.step_kind import Kind, Take
from kdcli.toml_config import Name, built, path_of


class TaskRecord(BaseModel):
    """The student of a task, in the folder beside the record."""

    file: Annotated[str, StringConstraints(pattern=r"^[^/\\]*\.safetensors$", max_length=255)]


class TasksRecord(BaseModel):
    """What tasks.json holds, as far as it is read again."""

    tasks: list[TaskRecord]


# What a run keeps in its folder beside what the steps make.
OWN = ("recipe.json", "recipe.toml")


@dataclass(frozen=True)
class Source:
    """Where an input comes from: an earlier step, or the student that it made of task `part`; or a file."""

    step: str = ""
    part: int = 0
    file: Path | None = None

    @property
    def known(self) -> Path | None:
        """The file, where it is there before anything runs."""
        return self.file if self.file is not None and "{" not in str(self.file) else None

    def path(self, outputs: Mapping[str, Path]) -> Path:
        """The file, `outputs` being those of the steps that are done."""
        if self.file is not None:
            return self.file
        output = outputs[self.step]
        if not self.part:
            return output
        tasks = checked(output / "tasks.json", TasksRecord, f"make the step again, with {option('force')}")["tasks"]
        if self.part > len(tasks):
            raise RefusedError(f"{output / 'tasks.json'} is damaged", f"it names {len(tasks)} students", "")
        return output / tasks[self.part - 1]["file"]


@dataclass(frozen=True)
class Step:
    """One step, ready: what it does, with which options, from what."""

    name: str
    do: str
    kind: Kind
    options: BaseModel
    inputs: Mapping[str, tuple[Source, ...]]

    @property
    def file(self) -> str:
        """The name of its output in the run folder."""
        return f"{self.name}{self.kind.suffix(self.options)}"


def plan(resolved: ResolvedRecipe) -> list[Step]:
    """Every step, in order.

    Raises:
        UsageError: a step is of no kind, has a key it does not take or an option that cannot be read, lacks an input,
            or takes what is not there or is not made before it.
    """
    steps: dict[str, Step] = {}
    taken = dict.fromkeys(OWN, "the run itself")
    for table in resolved.steps:
        step = steps[table["name"]] = _step(table, steps)
        # Some systems do not tell capitals apart.
        if other := taken.get(step.file.lower()):
            why = f"it would write {step.file}, which belongs to {other}"
            raise UsageError(f"step {step.name} cannot have this name", why, 'give it another: name = "..."')
        taken[step.file.lower()] = f"step {step.name}"
    return list(steps.values())


def _step(table: Mapping[str, Any], before: Mapping[str, Step]) -> Step:
    name, where = table["name"], f"step {table['name']}"
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UsageError(f"{where} has a name that cannot be a file's", "letters, digits, . _ + = @ , -", "") from None
    if "do" not in table:
        raise UsageError(f"{where} does not say what to do", f"known: {', '.join(STEPS.names())}", 'add do = "..."')
    if not isinstance(table["do"], str):
        raise unknown(f"kind of step in {where}:", str(table["do"])[:80], STEPS.names())
    kind: Kind = STEPS.load(table["do"])
    given = {key: value for key, value in table.items() if key not in ("name", "do")}
    for key in given:
        if key not in kind.takes and key not in kind.config.model_fields:
            raise unknown(f"key in {where}:", key, [*kind.takes, *kind.config.model_fields])
    options = built(kind.config, {k: v for k, v in given.items() if k not in kind.takes}, where)
    try:
        inputs = {key: _sources(key, take, given.get(key), before) for key, take in kind.takes.items()}
        kind.check(options, {key: tuple(source.known for source in found) for key, found in inputs.items()})
    except KdcliError as error:
        raise error.within(where) from None
    return Step(name, table["do"], kind, options, {key: found for key, found in inputs.items() if found})


def _sources(key: str, take: Take, value: Any, before: Mapping[str, Step]) -> tuple[Source, ...]:
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{key} cannot be {value!r}", "it is a file, or @ and the name of a step", "correct it")
    if take.required and not texts:
        raise UsageError(f"{key} is missing", f"it is {' or '.join(take.of)}", f'add {key} = "@..."')
    if len(texts) > 1 and not take.many:
        raise UsageError(f"{key} are {len(texts)}", "it takes one", "leave the others out")
    return tuple(_source(key, take, text, before) for text in texts)


def _source(key: str, take: Take, text: str, before: Mapping[str, Step]) -> Source:
    if not text.startswith("@"):
        return Source(file=Path(text) if "{" in text else _file(take, text))
    name, _, part = text[1:].partition("/")
    if name not in before:
        raise unknown(f"step before it for {key}:", name, before)
    gives = before[name].kind.gives
    if gives == "students":
        n = len(before[name].inputs["teachers"])
        if part not in map(str, range(1, n + 1)):
            why = f"{name} makes the students of {n} tasks"
            raise UsageError(f"{key} cannot be {text}", why, f"write @{name}/1 for that of the first")
        gives = "agent"
    elif part:
        raise UsageError(f"{key} cannot be {text}", f"{name} makes a single {gives}", f"write @{name}")
    if gives not in take.of:
        raise UsageError(f"{key} cannot be {text}", f"{name} makes a {gives}, it takes {' or '.join(take.of)}", "")
    return Source(name, int(part or 0))


def _file(take: Take, text: str) -> Path:
    path = path_of(text)
    if "dataset" not in take.of:
        return find_file(path)
    if not (path / "manifest.json").is_file():
        raise UsageError(f"{text} is no dataset", "there is no manifest.json", "make it with kdcli rollout")
    return path
