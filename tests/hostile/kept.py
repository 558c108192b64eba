"""What kdcli keeps on disk beside agents (recipes, runs, studies, datasets, states), and every harm to their values.

Each kind of record is read, changed at one place, sealed anew where it is sealed, and given to a command that reads it.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from texts import places
from toy_teachers import choose_teacher

from kdcli import artifact
from kdcli.agents import store
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.datasets import manifest

TINY = "student = 'mlp:4'\nlabels = 200\nrounds = 2\nupdates = 20\nepisodes = 2\n"
RECIPE = f"""
about = "all that is small"
[given]
labels = {{ help = "how many", default = 200 }}
[[step]]
name = "data"
do = "rollout"
agent = "teacher.safetensors"
steps = 60
shard_rows = 40
[[step]]
name = "student"
do = "distill"
teacher = "teacher.safetensors"
{TINY.replace("labels = 200", "labels = '{labels}'")}
[[step]]
name = "versus"
do = "bench"
agents = ["teacher.safetensors", "@student"]
episodes = 4
latency_budget = "0s"
baselines = false
"""
STUDY = f"""
name = "small"
seeds = 1
episodes = 4
states = 50
[base]
{TINY}
[[teacher]]
name = "choose"
path = "teacher.safetensors"
[[variant]]
name = "barely"
options = {{ updates = 2 }}
"""
SHORT = "--student mlp:4 --labels 200 --rounds 2 --updates 20 --episodes 2"
DISTILL = f"distill teacher.safetensors {SHORT} -o stopped.safetensors"
OFFLINE = f"{DISTILL} --data offline --dataset run/data --force".replace("stopped", "offline")
ROLLOUT = "rollout teacher.safetensors --steps 60 --shard-rows 40 -o run/data"

LEAF = {
    "null": None,
    "a word": "x",
    "an empty word": "",
    "zero": 0,
    "-1": -1,
    "a fraction": 0.5,
    "1e308": 1e308,
    "10**30": 10**30,
    "NaN": math.nan,
    "true": True,
    "an empty list": [],
    "a list": ["x", 1],
    "an empty object": {},
    "an object": {"x": {"y": [None]}},
    "lists in lists": json.loads("[" * 90 + "]" * 90),
    "escapes": "\x1b[2J\u202e|<b>",
}
WHOLE = {
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "a word": b'"x"',
    "lists in lists": b"[" * 10_000,
    "closed lists in lists": b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "a number of 10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "a long dotted key": b".".join([b"a"] * 100_000) + b" = 1",
    "tables in tables": b"a = " + b"{a = " * 10_000 + b"1" + b"}" * 10_000,
}
Read = Callable[[Path], Any]
Write = Callable[[Path, Any], object]


@dataclass(frozen=True)
class SavedState:
    """A kind of record: where it is in the folder, how it is read and written, and the command that reads it."""

    file: str
    command: str
    read: Read
    write: Write


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def _seal_manifest(path: Path, data: Any) -> None:
    content = {key: value for key, value in data.items() if key != "sha256"}
    _write_json(path, {**content, "sha256": manifest._digest(content)})


def _seal_run(path: Path, data: Any) -> None:
    """The record of a bench, and its digest in the record of the run."""
    _write_json(path, data)
    run = _json(path.with_name("recipe.json"))
    for step in run["steps"]:
        if step["output"] == path.name:
            step["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    _write_json(path.with_name("recipe.json"), run)


def _record(path: Path) -> Any:
    return artifact.read_tensors(path)[0]


def _write_record(path: Path, data: Any) -> None:
    tensors = artifact.read_tensors(path)[1]
    text = json.dumps(data, sort_keys=True)
    from safetensors.numpy import save

    sealed = json.dumps({"sha256": artifact._digest(text, tensors), "record": text})
    path.write_bytes(save(tensors, {"kdcli": sealed}))


def _toml(path: Path) -> Any:
    import tomllib

    return tomllib.loads(path.read_text())


def _write_toml(path: Path, data: Any) -> None:
    path.write_text("".join(f"{_key(key)} = {_value(value)}\n" for key, value in data.items()))


def _key(text: str) -> str:
    return json.dumps(text)


def _value(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return "nan" if isinstance(value, float) and math.isnan(value) else json.dumps(value)


RUN, STUDIED = "run recipe.toml -o run", "study study.toml -o study"
KINDS = {
    "recipe": SavedState("recipe.toml", "recipes check recipe.toml", _toml, _write_toml),
    "recipe of a run": SavedState("recipe.toml", RUN, _toml, _write_toml),
    "study": SavedState("study.toml", STUDIED, _toml, _write_toml),
    "run": SavedState("run/recipe.json", RUN, _json, _write_json),
    "bench of a run": SavedState("run/versus.json", RUN, _json, _seal_run),
    "cell": SavedState("study/cells/choose.barely.0.json", STUDIED, _json, _write_json),
    "teacher": SavedState("study/teachers/choose.json", STUDIED, _json, _write_json),
    "manifest to learn from": SavedState("run/data/manifest.json", OFFLINE, _json, _seal_manifest),
    "manifest to go on": SavedState("run/data/manifest.json", ROLLOUT, _json, _seal_manifest),
    "state": SavedState("stopped.safetensors.unfinished/state.safetensors", DISTILL, _record, _write_record),
    "agent": SavedState("teacher.safetensors", "inspect teacher.safetensors", _record, _write_record),
    "agent to compare": SavedState(
        "teacher.safetensors",
        "bench teacher.safetensors --episodes 2 --latency-budget 0s --no-baselines",
        _record,
        _write_record,
    ),
}


@dataclass(frozen=True)
class Harm:
    """One change to one record."""

    kind: str
    title: str
    do: Callable[[Path], object]


def make_all(folder: Path) -> None:
    """Everything that is kept, unharmed, in `folder`, which is the current one."""
    from kdcli.distillation.resume_file import ResumeFile

    store.save(folder / "teacher.safetensors", choose_teacher(8), {})
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "study.toml").write_text(STUDY)
    drop = ResumeFile.drop
    for words in (RUN, STUDIED, DISTILL):
        if words == DISTILL:  # as one that was killed leaves it
            ResumeFile.drop = lambda self: None  # type: ignore[method-assign]
        try:
            code, told = run(words)
        finally:
            ResumeFile.drop = drop  # type: ignore[method-assign]
        if code not in (0, 1, 3):
            raise RuntimeError(f"{words}: {told}")
    (folder / "stopped.safetensors").unlink()


def harms(folder: Path) -> Iterator[Harm]:
    """Every harm to every kind of record in `folder`."""
    for name, kind in KINDS.items():
        for title, text in WHOLE.items():
            yield Harm(name, title, lambda path, t=text: path.write_bytes(t))
        content = kind.read(folder / kind.file)
        for place in places(content):
            where = "/".join(map(str, place))
            if isinstance(place[-1], str):
                yield Harm(name, f"without {where}", _at(kind, place, None, drop=True))
            for title, value in LEAF.items():
                yield Harm(name, f"{where} is {title}", _at(kind, place, value))


def _at(kind: SavedState, place: tuple[str | int, ...], value: Any, drop: bool = False) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        content = inner = copy.deepcopy(kind.read(path))
        for key in place[:-1]:
            inner = inner[key]
        if drop:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        kind.write(path, content)

    return change


def run(words: str) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    code = main([*words.split(), "--quiet"], Console(out, err))
    return int(code), err.getvalue().splitlines()


def outcome(harm: Harm, folder: Path, place: Path) -> tuple[int, list[str]]:
    """What its command says of a copy of `folder` at `place`, the current folder, with the harm done."""
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(folder, place, dirs_exist_ok=True)
    kind = KINDS[harm.kind]
    harm.do(place / kind.file)
    return run(kind.command)
