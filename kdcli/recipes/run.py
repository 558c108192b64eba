"""A recipe's run: one folder with everything in it; what is there as asked for is kept, what is missing is made.

recipe.toml     the recipe
recipe.json     every step: what it does, its options, what it was made from, the digest of what it made
NAME...         what the steps made
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kdcli import artifact
from kdcli.api.result import Result
from kdcli.errors import RefusedError, UsageError, option
from kdcli.files import MAX_TOML, read_bytes
from kdcli.locks import claim
from kdcli.outputs import checked, options_changed
from kdcli.progress import Listener, Note, silent
from kdcli.recipes.plan import Step, plan
from kdcli.recipes.recipe import ResolvedRecipe, find_recipe, read_recipe, resolve
from kdcli.recipes.step_kind import Job
from kdcli.spec import Json

SCHEMA = "kdcli.run/1"


class Facts(BaseModel):
    """What is worth knowing of a step, by its kind."""

    verdicts: list[str] = []


class StepRecord(BaseModel):
    """A step that is done."""

    name: str
    do: str
    options: dict[str, Any]
    parents: dict[str, list[str]]
    output: str
    sha256: str
    seconds: float
    facts: Facts


class RunRecord(BaseModel):
    """What recipe.json holds, as far as it is read again."""

    steps: list[StepRecord]


@dataclass
class Run:
    """A run folder: the records of steps that are done, by name, and where their outputs are."""

    path: Path
    records: dict[str, Json]
    outputs: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Begin, or go on.

        Raises:
            UsageError: there is something else at this path.
            RefusedError: its record is damaged.
        """
        mark = path / "recipe.json"
        if not mark.exists():
            if path.is_file() or (path.is_dir() and any(file.name != ".lock" for file in path.iterdir())):
                raise UsageError(f"{path} exists", "it is not the folder of a recipe's run", "name another output")
            return cls(path, {})
        steps = checked(mark, RunRecord, "name another output")["steps"]
        return cls(path, {step["name"]: step for step in steps})

    def keep(self, name: str, steps: Sequence[Step]) -> None:
        """Write down what is done."""
        done = [self.records[step.name] for step in steps if step.name in self.records]
        found = artifact.versions("torch", "numpy", "gymnasium", "mujoco", "onnxruntime")
        record = {"schema": SCHEMA, "recipe": name, "steps": done, "versions": found}
        artifact.write_json(self.path / "recipe.json", record, force=True)

    def changed(self, step: Step, parents: Mapping[str, Sequence[str]]) -> list[str]:
        """How a recorded step differs from what is asked for; `parents` are digests by input, as far as known."""
        then = self.records[step.name]
        if then["do"] != step.do:
            return [f"do {then['do']} -> {step.do}"]
        other = [f"another {key}" for key, found in parents.items() if then["parents"].get(key) != found]
        return options_changed(step.options, then["options"]) + other

    def is_whole(self, step: Step) -> bool:
        """Whether what a step made is there, as it was."""
        then, file = self.records.get(step.name), self.path / step.file
        return then is not None and file.exists() and artifact.digest(file) == then["sha256"] and _intact(file)


def run(
    recipe: Path | str,
    output: Path | str | None = None,
    *,
    values: Mapping[str, Any] | Sequence[str] = (),
    force: bool = False,
    progress: Listener = silent,
) -> RunResult:
    """Run a recipe's steps; what an earlier run made in the same way is kept.

    Args:
        recipe: A TOML file, or the name of a built-in recipe.
        output: Folder of the run; None: `runs/` and the recipe's name.
        values: What the recipe is given, and options of steps: `{"teacher": "agent.zip", "student.labels": 1000}`, or
            the same as texts, `teacher=agent.zip`.
        force: Make again what was made with other options.
        progress: Called with `kdcli.progress.Event` and `Note`.

    Raises:
        UsageError: a value is not given, the recipe cannot run as written, or the folder holds what was made with
            other options or from other files (without `force`); whatever a step raises.
    """
    from kdcli.agents.threads import one_thread

    file = find_recipe(str(recipe))
    given = [f"{key}={_toml(value)}" for key, value in values.items()] if isinstance(values, Mapping) else values
    resolved = resolve(file.stem, read_recipe(file), given)
    folder = Path(output) if output is not None else Path("runs") / file.stem
    with one_thread():
        return RunResult(run_steps(resolved, read_bytes(file, MAX_TOML), folder, force, progress), folder)


def _toml(value: Any) -> str:
    """A value as TOML has it: JSON's texts, numbers, booleans and lists are TOML's, too."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


@dataclass(frozen=True, eq=False, repr=False)
class RunResult(Result):
    """Every step with its output, seconds and facts, schema `kdcli.run/1`, and the folder of the run."""

    record: Json
    path: Path

    @property
    def outputs(self) -> dict[str, Path]:
        """Step -> what it made."""
        return {step["name"]: self.path / step["output"] for step in self.record["steps"]}

    @property
    def verdicts(self) -> list[str]:
        """Of every gate: passed, failed or undecided."""
        return [verdict for step in self.record["steps"] for verdict in step["facts"].get("verdicts", ())]

    def facts(self) -> Mapping[str, Any]:
        """Each step's output."""
        return {step["name"]: f"{step['output']}{' (kept)' if step['kept'] else ''}" for step in self.record["steps"]}


def run_steps(
    resolved: ResolvedRecipe, text: bytes, output: Path, force: bool = False, listener: Listener = silent
) -> Json:
    """Do what is missing; the answer has each step with its output, seconds, and what is worth knowing.

    Raises:
        UsageError: a value is not given, the recipe does not make sense, or the folder holds what was made with other
            options or from other files, without `force`; whatever a step raises.
    """
    if resolved.open:
        first = resolved.open[0]
        fix = f"give {option('set', f'{first}=...')}"
        raise UsageError(f"{resolved.name} needs {first}", resolved.recipe.given[first].help, fix)
    steps, folder = plan(resolved), Run.open(output)
    with claim(output / ".lock") as mine:
        if not mine:
            raise UsageError(f"{output} is in use", "another kdcli is writing there", "wait, or name another output")
        if not force:
            _refuse_changed(steps, folder)
        artifact.write_bytes(output / "recipe.toml", text, force=True)
        done = []
        for step in steps:
            done.append(_do(step, folder, force, listener))
            folder.keep(resolved.name, steps)
    return {"schema": SCHEMA, "recipe": resolved.name, "path": str(output), "steps": done}


def _refuse_changed(steps: Sequence[Step], folder: Run) -> None:
    """Before anything runs: options, and files that come from outside."""
    for step in steps:
        if folder.is_whole(step):
            files = {key: [source.file for source in found if source.file] for key, found in step.inputs.items()}
            outside = {key: list(map(artifact.digest, found)) for key, found in files.items() if found}
            known = {key: found for key, found in outside.items() if len(found) == len(step.inputs[key])}
            _refuse(step, folder.changed(step, known))


def _refuse(step: Step, changes: Sequence[str]) -> None:
    if changes:
        what = f"{step.file} was made otherwise"
        raise UsageError(what, ", ".join(changes), f"{option('force')} makes it again, or name another output")


def _do(step: Step, folder: Run, force: bool, listener: Listener) -> Json:
    """Keep what is there, or make it."""
    inputs = {key: tuple(source.path(folder.outputs) for source in found) for key, found in step.inputs.items()}
    parents = {key: [artifact.digest(path) for path in paths] for key, paths in inputs.items()}
    file = folder.outputs[step.name] = folder.path / step.file
    whole = folder.is_whole(step)
    if whole and not (changes := folder.changed(step, parents)):
        return _said(step, folder.records[step.name], kept=True)
    if whole and not force:
        _refuse(step, changes)
    if not _is_unfinished(file):
        _remove(file)
    listener(Note(f"{step.name}: {step.do}"))
    begin = time.perf_counter()
    try:
        facts = step.kind.make(Job(inputs, step.options, file, listener))
    except (UsageError, RefusedError) as error:
        raise error.within(f"step {step.name}") from error
    folder.records[step.name] = {
        "name": step.name,
        "do": step.do,
        "options": step.options.model_dump(mode="json"),
        "parents": parents,
        "output": step.file,
        "sha256": artifact.digest(file),
        "seconds": round(time.perf_counter() - begin, 3),
        "facts": facts,
    }
    return _said(step, folder.records[step.name], kept=False)


def _said(step: Step, record: Json, kept: bool) -> Json:
    return {key: record[key] for key in ("name", "do", "output", "seconds", "facts")} | {"kept": kept}


def _remove(file: Path) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    file.unlink(missing_ok=True)


def _is_unfinished(path: Path) -> bool:
    """Whether it is a dataset that a rollout can continue."""
    from kdcli.datasets import manifest

    try:
        return (path / "manifest.json").exists() and not manifest.read(path).complete
    except RefusedError:
        return False


def _intact(path: Path) -> bool:
    """Whether the shards of a dataset are as its manifest, which is all that `artifact.digest` reads, says."""
    from kdcli.datasets import Dataset

    if not (path / "manifest.json").exists():
        return True
    try:
        Dataset.open(path).verify()
    except (RefusedError, UsageError):
        return False
    return True
