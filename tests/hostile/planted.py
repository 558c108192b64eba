"""Every kind of file that kdcli reads, with a name of code in the place of each of its strings, one after the other.

    python planted.py SEEDS HOME [SHARE]

gives each to the commands that read it, in this process, and watches what the interpreter is asked to import, to run
and to write. It prints one JSON object: how many files were tried of each kind, and what was caught. Without a share it
tries some; 0/6 is the first of six shares that together try every form of name in every kind of file.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.abc
import itertools
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "rooms")]
SAMPLE = HERE.parents[1] / "sample_checkpoints" / "ppo" / "CartPole-v1_1"
CODE, PACKAGE, VICTIM = "planted_code", "planted_package", "victim"
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "ctypes.dlopen", "socket.connect")
WORDS = (CODE, PACKAGE, VICTIM)
ENV = {"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": "no"}, "wrappers": ["flatten"], "max_steps": 9}
# Options with which a step that makes sense takes little time.
QUICK = {"student": "linear", "labels": 100, "rounds": 1, "updates": 2, "episodes": 2, "max_steps": 5, "steps": 4}
Words = list[str]
Tree = Any


def forms(home: Path) -> tuple[str, ...]:
    """How a file may name code: a module's part, with arguments, a game, a class that writes, a path."""
    return (
        f"{PACKAGE}.sub:Part",
        f"{CODE}:Part",
        f"{PACKAGE}.sub:Part:key=1",
        f"{PACKAGE}.sub:Env-v0",
        f"{PACKAGE}.sub:Part@0.5",
        f"pettingzoo:{PACKAGE}.sub",
        f"stable_baselines3.common.monitor:Monitor:filename={home / VICTIM}",
        f"{PACKAGE}.sub.Part",
    )


@dataclass
class Watch(importlib.abc.MetaPathFinder):
    """Notes who looks for a planted module, and what is started or written under a planted name."""

    caught: list[str] = field(default_factory=list)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Find nothing, as a finder; note what was looked for."""
        if fullname.partition(".")[0] in (CODE, PACKAGE):
            self.caught.append(f"import {fullname}")

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event in STARTS and any(word in str(arguments) for word in WORDS):
            self.caught.append(f"{event} {arguments}")
        if event == "open" and VICTIM in str(arguments[0]) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.caught.append(f"write {arguments[0]}")


@dataclass(frozen=True)
class Kind:
    """A kind of file: `tree` is what it says, `write(tree, folder)` writes it and gives the commands that read it.

    The commands of a `slow` one work for seconds where a string means nothing to them. `only` is the key whose strings
    are replaced, where the rest stands in another kind, too.
    """

    name: str
    tree: Tree
    write: Callable[[Tree, Path], list[Words]]
    slow: bool = False
    only: str = ""


def strings(tree: Tree, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the strings in a tree are."""
    if isinstance(tree, str):
        yield at
    inner = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in inner:
        yield from strings(value, (*at, key))


def planted(tree: Tree, at: tuple[Any, ...], text: str) -> Tree:
    """A copy of the tree with `text` at one place."""
    if not at:
        return text
    found = copy.deepcopy(tree)
    place = found
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = text
    return found


def run(words: Words) -> int:
    """The exit code of a command line."""
    from worker import run as told

    return told([*words, "--quiet"])[0]


def kinds(seeds: Path, made: Path, whole: bool) -> Iterator[Kind]:
    """All of them, from valid files made in the folder `made`; the slow ones with `whole`."""
    made.mkdir()
    agent = made / "agent.safetensors"
    assert run(["load", str(SAMPLE), "-o", str(agent)]) == 0
    yield from _cards()
    yield _agent(agent)
    yield _zoo(seeds)
    yield from _checkpoints(seeds)
    yield from _exports(agent, made)
    yield _dataset(agent, made)
    yield from _recipes(agent)
    yield from _studies(agent)
    if whole:
        yield from _folders(agent, made)


def _inspected(path: Path, *options: str) -> list[Words]:
    return [["inspect", str(path), *options], ["load", str(path), "-o", str(path.with_name("loaded.st")), *options]]


def _played(path: Path, *options: str) -> Words:
    words = ["rollout", str(path), "-o", str(path.with_name("data")), "--steps", "4", "--envs", "1"]
    return [*words, *options]


def _cards() -> Iterator[Kind]:
    """A card beside its tensors, with and without spaces of its own."""
    import torch
    from safetensors.torch import save

    shapes = {"net.0.weight": (8, 4), "net.0.bias": (8,), "head.weight": (2, 8), "head.bias": (2,)}
    state = save({name: torch.zeros(shape) for name, shape in shapes.items()})
    card = {
        "trunk": [["linear", {"out": 8}], ["tanh", {}]],
        "heads": {"head": "logits"},
        "tensors": {name: list(shape) for name, shape in shapes.items()},
        "unused": ["x"],
        "env": {**ENV, "kwargs": {}, "how": "x", "observation": "x", "actions": "x"},
        **dict.fromkeys(("what", "source", "state", "measured_return"), "x"),
    }
    spaces = {
        "observation": {"kind": "box", "shape": [4], "dtype": "float32", "low": "-inf", "high": "inf"},
        "action": {"kind": "discrete", "n": 2, "start": 0, "dtype": "int64"},
    }

    def write(tree: Tree, folder: Path) -> list[Words]:
        (folder / "policy.safetensors").write_bytes(state)
        (folder / "policy.json").write_text(json.dumps(tree))
        return [*_inspected(folder / "policy.safetensors"), _played(folder / "policy.safetensors")]

    yield Kind("card", card, write)
    yield Kind("card with spaces", {**card, **spaces}, write)


def _agent(agent: Path) -> Kind:
    from kdcli import artifact

    record, tensors = artifact.read_tensors(agent)

    def write(tree: Tree, folder: Path) -> list[Words]:
        artifact.write_tensors(folder / "agent.safetensors", tree, tensors)
        exported = ["export", str(folder / "agent.safetensors"), "-o", str(folder / "x.onnx")]
        return [["inspect", str(folder / "agent.safetensors")], exported, _played(folder / "agent.safetensors")]

    return Kind("agent", {**record, "env": ENV}, write)


def _zoo(seeds: Path) -> Kind:
    """The YAML files around a checkpoint that does not say its env itself."""
    tree = {
        "args.yml": {"env": "Pendulum-v1", "gym_packages": ["x"], "algo": "x", "conf_file": "x"},
        "config.yml": {
            "env_wrapper": [{"gymnasium.wrappers.FlattenObservation": {}}, "gymnasium.wrappers.ClipAction"],
            "vec_env_wrapper": "x",
            "normalize": "x",
            "policy": "x",
            "callback": ["x"],
        },
        "env_kwargs.yml": {"render_mode": "rgb_array"},
    }

    def write(tree: Tree, folder: Path) -> list[Words]:
        shutil.copy(seeds / "cleanrl" / "model.pt", folder / "model.pt")
        for name, content in tree.items():
            (folder / name).write_text(json.dumps(content))  # JSON is YAML
        options = ("--activation", "relu", "--obs-stats", "none")
        return [*_inspected(folder / "model.pt", *options), _played(folder / "model.pt", *options)]

    return Kind("zoo", tree, write)


def _checkpoints(seeds: Path) -> Iterator[Kind]:
    """The JSON in checkpoints of Stable-Baselines3 and d3rlpy."""
    zipped = seeds / "sb3" / "model.zip"
    saved = pickle.loads((seeds / "d3rlpy" / "model.d3").read_bytes())

    def write_zip(tree: Tree, folder: Path) -> list[Words]:
        _rezipped(zipped, folder / "model.zip", "data", tree)
        return _inspected(folder / "model.zip")

    def write_d3(tree: Tree, folder: Path) -> list[Words]:
        (folder / "model.d3").write_bytes(pickle.dumps({**saved, "config": json.dumps(tree)}))
        return _inspected(folder / "model.d3")

    with zipfile.ZipFile(zipped) as members:
        yield Kind("sb3", json.loads(members.read("data")), write_zip)
    yield Kind("d3rlpy", json.loads(saved["config"]), write_d3)


def _rezipped(source: Path, target: Path, end: str, content: Tree) -> None:
    """A copy of a zip with other JSON in the member whose name ends so."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info, json.dumps(content) if info.filename.endswith(end) else old.read(info))


def _exports(agent: Path, made: Path) -> Iterator[Kind]:
    """What kdcli exported says of itself: the metadata of ONNX, sealed again, and the record in a torch program."""
    import onnx

    from kdcli.agents.onnx.session import KEY, blank_record, seal

    for name in ("policy.onnx", "policy.pt"):
        assert run(["export", str(agent), "-o", str(made / name)]) == 0
    model = onnx.load(made / "policy.onnx")
    entry = next(entry for entry in model.metadata_props if entry.key == KEY)
    record = {**json.loads(entry.value), "env": ENV}

    def write_onnx(tree: Tree, folder: Path) -> list[Words]:
        entry.value = blank_record(tree)
        (folder / "policy.onnx").write_bytes(seal(model.SerializeToString()))
        return [["inspect", str(folder / "policy.onnx")], _played(folder / "policy.onnx")]

    def write_program(tree: Tree, folder: Path) -> list[Words]:
        _rezipped(made / "policy.pt", folder / "policy.pt", "kdcli.json", tree)
        path = folder / "policy.pt"
        return [["inspect", str(path)], ["inspect", str(path), "--trust"], _played(path, "--trust")]

    yield Kind("onnx", record, write_onnx)
    with zipfile.ZipFile(made / "policy.pt") as members:
        inside = next(name for name in members.namelist() if name.endswith("kdcli.json"))
        yield Kind("program", {**json.loads(members.read(inside)), "env": ENV}, write_program, slow=True)


def _dataset(agent: Path, made: Path) -> Kind:
    data = made / "data"
    assert run(["rollout", str(agent), "-o", str(data), "--steps", "128", "--envs", "1"]) == 0
    manifest = json.loads((data / "manifest.json").read_text())
    settings = ["--student", "linear", "--data", "offline", "--rounds", "1", "--updates", "2"]

    def write(tree: Tree, folder: Path) -> list[Words]:
        content = {key: value for key, value in tree.items() if key != "sha256"}
        sealed = {**content, "sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}
        shutil.copytree(data, folder / "data")
        (folder / "data" / "manifest.json").write_text(json.dumps(sealed))
        words = ["distill", str(agent), "-o", str(folder / "s.safetensors"), "--dataset", str(folder / "data")]
        return [[*words, *settings]]

    return Kind("dataset", {**manifest, "made": {**manifest["made"], "env": ENV}}, write)


def texts_of(model: Any) -> dict[str, Any]:
    """A text under the name of every option that may be one, in a list where it may be several."""
    found = {}
    for name, schema in model.model_json_schema()["properties"].items():
        shapes = schema.get("anyOf", [schema])
        if any(shape.get("type") == "array" for shape in shapes):
            found[name] = ["x"]
        elif any(shape.get("type") == "string" for shape in shapes):
            found[name] = "x"
    return found


def in_toml(tables: Mapping[str, Any]) -> str:
    """TOML of nested values, all of it in one line a key."""
    return "\n".join(f"{_inline(key)} = {_inline(value)}" for key, value in tables.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def _checked(tree: Tree, folder: Path) -> list[Words]:
    """A recipe, checked and run."""
    (folder / "recipe.toml").write_text(in_toml(tree))
    recipe = str(folder / "recipe.toml")
    return [["recipes", "check", recipe], ["run", recipe, "-o", str(folder / "run")]]


def _recipes(agent: Path) -> Iterator[Kind]:
    """For each option of each kind of step a recipe that sets it; and one that makes sense, with all its words."""
    from kdcli.recipes import STEPS

    for do in STEPS.names():
        kind = STEPS.load(do)
        inputs = {name: [str(agent)] for name, take in kind.takes.items() if "dataset" not in take.of}
        quick = {key: value for key, value in QUICK.items() if key in kind.config.model_fields}
        for name, value in texts_of(kind.config).items():
            step = {"do": do, **inputs, **quick, name: value}
            yield Kind(f"recipe {do} {name}", {"about": "x", "step": [step]}, _checked, only=name)
    step = {"do": "load", "name": "agent", "path": "{teacher}", "wrapper": ["flatten"]}
    given = {"teacher": {"help": "x", "default": str(agent)}}
    yield Kind("recipe", {"about": "x", "given": given, "step": [step]}, _checked)


def _studied(tree: Tree, folder: Path) -> list[Words]:
    (folder / "study.toml").write_text(in_toml(tree))
    return [["study", str(folder / "study.toml"), "-o", str(folder / "study")]]


def _study(agent: Path, options: Mapping[str, Any], load: Mapping[str, Any]) -> Tree:
    """A study of one student that hardly learns."""
    base = {key: QUICK[key] for key in ("student", "labels", "rounds", "updates", "episodes")}
    teacher = {"name": "t", "path": str(agent), "load": load, "max_steps": 60, "options": {}}
    axis = {"name": "a", "variants": {"v": options}}
    return {"seeds": 1, "episodes": 2, "states": 4, "base": base, "teacher": [teacher], "axis": [axis]}


def _studies(agent: Path) -> Iterator[Kind]:
    """For each option of a distillation a study that varies it, for each of reading one that reads so."""
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.distillation.config import DistillConfig

    for name, value in texts_of(DistillConfig).items():
        yield Kind(f"study {name}", {"axis": {name: value}}, _varied(agent), only=name)
    for name, value in texts_of(LoadConfig).items():
        yield Kind(f"study load {name}", {"load": {name: value}}, _varied(agent), only=name)
    yield Kind("study", _study(agent, {"student": "linear"}, {}), _studied, slow=True)


def _varied(agent: Path) -> Callable[[Tree, Path], list[Words]]:
    return lambda tree, folder: _studied(_study(agent, tree.get("axis", {}), tree.get("load", {})), folder)


def _folders(agent: Path, made: Path) -> Iterator[Kind]:
    """The records of a finished run and of a finished study, found by the command that goes on there."""
    bench = {"do": "bench", "agents": ["@agent"], "episodes": 2, "max_steps": 5}
    recipe = {"about": "x", "step": [{"do": "load", "name": "agent", "path": str(agent)}, bench]}
    works = (
        ("run", recipe, _checked, ("recipe.json", "bench.json")),
        ("study", _study(agent, {"student": "linear"}, {}), _studied, ("study.json", "cells/t.base.0.json")),
        ("study", _study(agent, {"student": "linear"}, {}), _studied, ("teachers/t.json",)),
    )
    for work, tree, write, files in works:
        for file in files:
            yield _finished(f"{work} {file}", tree, write, made / file.replace("/", "-"), f"{work}/{file}")


def _finished(name: str, tree: Tree, write: Callable[[Tree, Path], list[Words]], home: Path, file: str) -> Kind:
    home.mkdir()
    assert run(write(tree, home)[-1]) in (0, 3)

    def changed(record: Tree, folder: Path) -> list[Words]:
        shutil.copytree(home, folder, dirs_exist_ok=True)
        (folder / file).write_text(json.dumps(record))
        return write(tree, folder)

    return Kind(name, json.loads((home / file).read_text()), changed, slow=True)


def trials(kind: Kind, texts: Sequence[str], thin: bool) -> Iterator[tuple[str, Tree, bool]]:
    """Every string of a kind with each of the texts, and whether all commands are to read it even in a short run.

    `thin`, and of a slow kind: one text a string; all of them where the string is a wrapper of an env. Of one option's
    kind, of which there are many, two.
    """
    first, *others = texts
    if kind.only:
        texts = [first, others[sum(map(ord, kind.name)) % len(others)]]
    places = [at for at in strings(kind.tree) if not kind.only or kind.only in at]
    for index, at in enumerate(places):
        deep = not (thin or kind.slow) or at[-2:-1] == ("wrappers",)
        for text in texts if deep else [texts[0 if kind.only else index % len(texts)]]:
            yield f"{kind.name}: {'/'.join(map(str, at))} = {text}", planted(kind.tree, at, text), deep


def _refused(kind: Kind, folder: Path) -> list[str]:
    """The commands that do not take the kind's file as it is: what they did with others would say little."""
    folder.mkdir()
    codes = [(words, run(words)) for words in kind.write(kind.tree, folder)]
    shutil.rmtree(folder)
    return [f"{kind.name}: exit code {code} unharmed: {' '.join(words)}" for words, code in codes if code not in (0, 3)]


def main() -> None:
    """Try them, and tell."""
    seeds, home, whole = Path(sys.argv[1]), Path(sys.argv[2]), len(sys.argv) > 3
    share, n_shares = map(int, sys.argv[3].split("/")) if whole else (0, 1)
    turns = itertools.cycle(range(n_shares))
    modules = home / "modules"
    (modules / PACKAGE).mkdir(parents=True)
    for file in (modules / f"{CODE}.py", modules / PACKAGE / "__init__.py", modules / PACKAGE / "sub.py"):
        file.write_text("import gymnasium\nclass Part(gymnasium.Wrapper): ...\n")
    sys.path.insert(0, str(modules))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    watch = Watch()
    sys.meta_path.insert(0, watch)
    sys.addaudithook(watch.hear)
    tried: dict[str, int] = {}
    caught: list[str] = []
    for kind in kinds(seeds, home / "made", whole):
        if kind.slow and not whole:
            continue
        if not kind.only:
            caught += _refused(kind, home / "case")
            watch.caught.clear()
        for title, tree, deep in trials(kind, forms(home), thin=not whole):
            if next(turns) != share:
                continue
            folder = home / "case"
            folder.mkdir()
            for words in kind.write(tree, folder)[: None if deep or whole else 1]:
                run(words)
                caught += [f"{words[0]}: {title}: {what}" for what in watch.caught]
                watch.caught.clear()
                for name in [name for name in sys.modules if name.partition(".")[0] in (CODE, PACKAGE)]:
                    del sys.modules[name]
            tried[kind.name] = tried.get(kind.name, 0) + 1
            shutil.rmtree(folder)
    print(json.dumps({"tried": tried, "caught": caught}), file=answers, flush=True)


if __name__ == "__main__":
    main()
