"""The walls of the house: who may import whom, who may print. Read from the source, so nothing is executed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import needs
import pytest

REPO = Path(__file__).parents[2]
README = REPO / "README.md"
STAGES = "checkpoints distillation exporters benchmarks reports pruning quantization improvement"
# Lowest first; a room imports itself and what is below it. `door` is kdcli/__init__.py, the public verbs.
FLOORS = ["words", "networks", "agents", "graph envs datasets", "rollouts", STAGES, "runtimes", "compression"]
FLOORS += ["studies", "api", "recipes", "door", "cli"]
RANKS = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms.split()}
ONLY_IN = {"gymnasium": "envs", "typer": "cli", "rich": "cli"}
NOWHERE = {"pickle", "_pickle", "cloudpickle", "dill", "click"}
TARGET = re.compile(r"(kdcli(?:\.\w+)+):\w+")


@dataclass(frozen=True)
class House:
    """The modules of a package called kdcli in `repo`, by dotted name."""

    repo: Path

    def modules(self) -> dict[str, Path]:
        paths = sorted((self.repo / "kdcli").rglob("*.py"))
        return {_dotted(path.relative_to(self.repo)): path for path in paths}

    def room(self, module: str) -> str:
        """The room a dotted name is in; unknown names are rooms nobody planned."""
        name = (*module.split("."), "")[1]
        if name in RANKS:
            return name
        if name == "__main__":
            return "cli"
        if (self.repo / "kdcli" / f"{name}.py").exists():
            return "words"
        return f"unplanned room {name!r}" if (self.repo / "kdcli" / name / "__init__.py").exists() and name else "door"


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted target of every import in a file: at the top, in functions, under TYPE_CHECKING, by name."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                up = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*up, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                texts = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
                yield from ((node.lineno, str(text)) for text in texts)


def named(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every literal 'kdcli.module:attribute', which is an import that happens later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (found := TARGET.fullmatch(node.value)):
            yield node.lineno, found[1]


def uphill(house: House) -> list[str]:
    """Imports that do not go down: to a room above, beside, or not planned."""
    found = []
    for name, path in house.modules().items():
        own = house.room(name)
        for line, target in [*imports(name, path), *named(path)]:
            other = house.room(target) if target.partition(".")[0] == "kdcli" else own
            if other != own and RANKS.get(other, 99) >= RANKS.get(own, -1):
                found.append(f"{name}:{line} ({own}) imports {target} ({other})")
    return found


def strangers(house: House) -> list[str]:
    """Imports of packages that belong to one room, or to none."""
    found = []
    for name, path in house.modules().items():
        for line, target in imports(name, path):
            top = target.partition(".")[0]
            if top in NOWHERE or (top in ONLY_IN and house.room(name) != ONLY_IN[top]):
                found.append(f"{name}:{line} imports {top}")
    return found


def voices(house: House) -> list[str]:
    """Uses of print, sys.stdout and sys.stderr outside the console."""
    found = []
    for name, path in house.modules().items():
        if name == "kdcli.cli.console":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="print")) | ast.Attribute(ast.Name("sys"), "stdout" | "stderr"):
                    found.append(f"{name}:{node.lineno} speaks")
    return found


def cycle(house: House) -> list[str]:
    """The modules of one import cycle, counting imports in functions and for types only."""
    modules = house.modules()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = {target if target in modules else target.rpartition(".")[0] for _, target in imports(name, path)}
        graph[name] = {target for target in targets if target in modules} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


# Rooms whose messages name options by `kdcli.errors.option`, which each caller spells its own way.
SPELLED = {"api", "distillation", "rollouts", "pruning", "quantization", "recipes"}
FLAG = re.compile(r"(?:^|[\s'\"(`])--[a-z]")


def flags(house: House) -> list[str]:
    """Texts outside the shell's room, docstrings apart, that spell an option as the shell does."""
    found = []
    for name, path in house.modules().items():
        if house.room(name) not in SPELLED:
            continue
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                found += [f"{name}:{node.lineno} {node.value!r}"] if FLAG.search(node.value) else []
    return found


HERE = House(REPO)


def test_imports_run_one_way() -> None:
    """Law: imports run down the floors, and stages never import each other.

    It follows that only what joins stages may import checkpoints.
    """
    assert uphill(HERE) == []


def test_a_package_belongs_to_one_room() -> None:
    """Law: only envs imports gymnasium, only cli imports typer and rich, nobody imports pickle or click."""
    assert strangers(HERE) == []


def test_only_the_shell_speaks_of_flags() -> None:
    """Law: no text of these rooms that reaches a user spells an option as the shell does."""
    assert flags(HERE) == []


def test_only_the_console_speaks() -> None:
    """Law: work is silent; stdout and stderr belong to the console."""
    assert voices(HERE) == []


def test_no_import_cycles() -> None:
    """Law: the modules can be read in an order in which each needs only what came before."""
    assert cycle(HERE) == []


def skips() -> list[str]:
    """Uses of pytest's ways to skip, outside the module that names what is needed."""
    ways = {"skip", "skipif", "importorskip", "xfail"}
    return [
        f"{path.relative_to(REPO)}:{node.lineno} skips"
        for path in sorted((REPO / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ways and path != Path(needs.__file__)
    ]


def test_a_skip_says_what_would_run_it() -> None:
    """Law: a test is skipped in one place only, for want of something that its message says how to get."""
    assert skips() == []
    marks = {name: mark for name, mark in vars(needs).items() if isinstance(mark, pytest.MarkDecorator)}
    ways = re.compile(r"needs .+: (pip install|apt install|set KDCLI_\w+ to|run it on) .+")
    assert len(marks) > 5
    assert [name for name, mark in marks.items() if not ways.fullmatch(mark.kwargs["reason"])] == []


def test_readme_has_two_ways_to_set_up() -> None:
    """Law: CI finds the commands that it runs to the letter: one compresses a sample, one runs the tests."""
    script = [sys.executable, str(REPO / ".ci" / "readme.py")]
    first, second = (subprocess.check_output([*script, n], text=True).strip() for n in "12")
    assert first in README.read_text()
    assert "kdcli compress sample_checkpoints/" in first
    assert second.endswith("pytest -n 2")
    assert "minatar" not in first + second


BREACHES = [
    (uphill, "errors.py", "from kdcli.networks import mlp"),
    (uphill, "errors.py", "from .networks import mlp"),
    (
        uphill,
        "networks/mlp.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kdcli.agents import agent",
    ),
    (uphill, "agents/agent.py", "def f():\n    import kdcli.graph.build"),
    (uphill, "envs/make.py", "from ..datasets import writer"),
    (uphill, "exporters/onnx.py", "from kdcli.checkpoints import load"),
    (uphill, "distillation/loop.py", "T = {'x': ('kdcli.exporters:export', 'help')}"),
    (uphill, "benchmarks/run.py", "import importlib\nimportlib.import_module('kdcli.reports')"),
    (uphill, "recipes/run.py", "from kdcli.cli.console import Console"),
    (uphill, "agents/agent.py", "from kdcli import distill"),
    (uphill, "attic/__init__.py", "from kdcli.errors import UsageError"),
    (uphill, "cli/x.py", "from kdcli.attic import a"),
    (strangers, "rollouts/run.py", "def f():\n    import gymnasium as gym"),
    (strangers, "reports/html.py", "from rich.table import Table"),
    (strangers, "datasets/x.py", "import typer"),
    (strangers, "checkpoints/sb3.py", "from pickle import loads"),
    (strangers, "cli/x.py", "from click import echo"),
    (strangers, "checkpoints/x.py", "m = __import__('cloudpickle')"),
    (voices, "rollouts/run.py", "print('hello')"),
    (flags, "pruning/x.py", "FIX = f'{1}: give --recover'"),
    (voices, "cli/bench.py", "import sys\nsys.stdout.write('x')"),
    (cycle, "agents/agent.py", "def f():\n    from kdcli.agents.heads import Heads"),
    (cycle, "agents/agent.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .heads import Heads"),
]


@pytest.mark.parametrize(("law", "file", "source"), BREACHES)
def test_a_breach_is_seen(law: Callable[[House], list[str]], file: str, source: str, tmp_path: Path) -> None:
    """Law: the walls above are not painted on: each kind of breach is found, however the import is written."""
    files = {
        "__init__.py": "",
        "errors.py": "",
        "agents/__init__.py": "",
        "agents/heads.py": "from kdcli.agents import agent",
    }
    files |= {f"{folder}/__init__.py": "" for folder in (*RANKS, "attic") if folder not in ("words", "door", "agents")}
    house = House(tmp_path)
    for name, text in ({**files, "agents/agent.py": ""} | {file: source}).items():
        path = tmp_path / "kdcli" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert law(house)
    (tmp_path / "kdcli" / file).write_text("")
    assert not law(house)
