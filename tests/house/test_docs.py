"""What the docs tell to run: every command and study is read as the program reads it, and studies are run small."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from pydantic import BaseModel
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy
from kdcli.benchmarks.target import Target
from kdcli.choice import Choice
from kdcli.cli import options
from kdcli.cli.commands import run
from kdcli.cli.console import Console
from kdcli.cli.list import ROOMS
from kdcli.compression.config import CompressConfig
from kdcli.recipes import STEPS
from kdcli.recipes.recipe import find_recipe, read_recipe, resolve
from kdcli.registry import load_target
from kdcli.studies.config import Study
from kdcli.studies.plan import cells, variants
from kdcli.studies.run import run as run_study
from kdcli.toml_config import built

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
STUDIES = sorted((REPO / "docs").rglob("*.toml"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)\)")
SPAN = re.compile(r"`(kdcli [^`]+)`")
SETTING = re.compile(r"\w+=\S+")


@dataclass(frozen=True)
class Told:
    """A command that a file tells; one in a sentence (`whole` is False) may leave out what it is not about."""

    file: Path
    text: str
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.file.name}:{self.text[:60]}"

    def words(self) -> list[str]:
        """Without comment, redirection and the settings before it."""
        words = shlex.split(self.text, comments=True)
        words = words[: words.index(">")] if ">" in words else words
        return words[next(i for i, word in enumerate(words) if not SETTING.fullmatch(word)) :]


def told() -> Iterator[Told]:
    """Every command of README, of the pages in docs, and of the studies there."""
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
            for line in re.findall(r"^\$ (.*)$", block.replace("\\\n", " "), re.MULTILINE):
                yield from (Told(page, part.strip()) for part in line.split("&&"))
        sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        yield from (Told(page, " ".join(span.split()), whole=False) for span in SPAN.findall(sentences))
    for file in STUDIES:
        yield from (Told(file, line) for line in re.findall(r"^#   (kdcli .*)$", file.read_text(), re.MULTILINE))


class ReadError(Exception):
    """A command was read to its end, and is not done."""


class Reads(Console):
    """A console of commands that are read, not done."""

    def keep_stdout(self) -> Any:
        raise ReadError


ALL = list(told())
KDCLI = [one for one in ALL if one.words()[0] == "kdcli" and one.words()[1] != "COMMAND"]
PYTHON = [one for one in ALL if one.words()[0] == "python" and one.words()[1] != "-m"]
OTHER = {"python3", ".", "pip", "pytest", "python"}


def test_nothing_that_is_told_goes_unread() -> None:
    """Law: each command in the docs is one that a test here reads, or prepares a machine."""
    assert len(KDCLI) > 60
    assert len(PYTHON) > 8
    assert {one.words()[0] for one in ALL} <= OTHER | {"kdcli"}


@pytest.mark.parametrize("one", KDCLI, ids=str)
def test_kdcli_takes_what_the_docs_tell(one: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: commands, options, and the names and numbers in them are ones that kdcli takes."""
    configs: list[BaseModel] = []
    build = options._build
    monkeypatch.setattr(options, "_build", lambda *given: configs.append(build(*given)) or configs[-1])  # type: ignore[func-returns-value]
    words = one.words()[1:]
    try:
        run(words, Reads())
    except ReadError:
        pass
    except typer.TyperException as error:
        if one.whole or type(error).__name__ != "MissingParameter":
            pytest.fail(error.format_message())
    for config in configs:
        _check(words, config)
    if words[0] == "run" and one.whole:
        recipe = find_recipe(words[1])
        said = [value for option, value in itertools.pairwise(words) if option == "--set"]
        assert resolve(recipe.stem, read_recipe(recipe), said).open == ()


def _check(words: Sequence[str], config: BaseModel) -> None:
    """All that can be said of options before any file is opened."""
    command = words[0]
    if isinstance(config, CompressConfig):
        for target in config.target:
            Target.parse(target)
    if command in STEPS.table and command != "load":
        kind = STEPS.load(command)
        own = config.model_dump(exclude_unset=True, include=set(kind.config.model_fields))
        if own:
            counts = {"teachers": 3, "agents": 2} | {
                f"{name}": words.count(f"--{name}") for name in ("dataset", "student")
            }
            counts["teacher"] = words.count("--teacher") if command == "quantize" else 1 + words.count("--also")
            inputs = {name: (None,) * counts.get(name, 1) for name in kind.takes}
            kind.check(kind.config(**own), {name: files for name, files in inputs.items() if files})
    for name in config.model_fields_set:
        if listed := re.search(r"kdcli list (\w+)", type(config).model_fields[name].description or ""):
            _find(listed[1], getattr(config, name))


def _find(kind: str, value: object) -> None:
    """Names in the value of an option whose help names a list are on that list; a temperature may be a schedule."""
    registry = load_target(ROOMS[kind])
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and kind != "temperatures":
            registry.load(Choice.parse(text.partition("@")[0]).name)


@pytest.mark.parametrize("one", PYTHON, ids=str)
def test_the_scripts_take_what_the_docs_tell(one: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a script that the docs tell to run is there, and reads its words without complaint."""
    _, script, *words = one.words()
    file = REPO / script
    assert file.exists()
    if "argparse" not in file.read_text():
        return
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.syspath_prepend(file.parent)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, file.stem, module)
    parse = argparse.ArgumentParser.parse_args

    def read(self: argparse.ArgumentParser, *given: Any) -> None:
        parse(self, *given)
        raise ReadError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read)
    monkeypatch.setattr("sys.argv", [script, *words])
    spec.loader.exec_module(module)
    with pytest.raises(ReadError):
        module.main()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Law: a file that a page links to is there."""
    assert [name for name in LINK.findall(page.read_text()) if not (page.parent / name).exists()] == []


def test_setting_up_names_what_is_there() -> None:
    """Law: the files and extras of README's set-up commands exist."""
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for one in ALL:
        if one.words()[0] == "pip":
            words = one.words()
            assert set(re.findall(r"\[(.*)\]", one.text)[0].split(",")) <= set(extras)
            assert all((REPO / words[i + 1]).exists() for i, word in enumerate(words) if word == "-c")


def read_study(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_is_the_one_its_table_shows(file: Path) -> None:
    """Law: a study in docs is read without complaint, names the command that runs it, and has its table's rows."""
    study = built(Study, read_study(file), file.name)
    assert cells(study)
    assert f"kdcli study {file.relative_to(REPO)} " in file.read_text()
    page = file.with_suffix(".md").read_text()
    assert page.startswith(f"# {study.name}\n")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)
    for teacher in study.teacher:
        [section] = [text for text in sections if text.startswith(f"{teacher.name}\n")]
        rows = re.findall(r"^\| (\S+) \| -?\d|^- (\S+): not applicable", section, re.MULTILINE)
        assert {(row or other).replace("\\", "") for row, other in rows} == set(variants(study))


TINY = {"labels": 100, "updates": 2, "rounds": 2, "episodes": 1, "envs": 2, "batch": 8}


def choose_by_values() -> Agent:
    """A teacher of choices that gives Q-values, so that every loss has what it reads."""
    teacher = choose_teacher()
    policy = Policy(teacher.policy.network, teacher.rule, "q", value=torch.nn.Linear(64, 1))
    return replace(teacher, policy=policy.eval().requires_grad_(False))


def _of_a_size(file: Path) -> Any:
    """Studies of many variants take their time."""
    return pytest.param(file, marks=[pytest.mark.slow] if file.read_text().count("\n") > 40 else [], id=file.stem)


@pytest.mark.parametrize("file", [_of_a_size(file) for file in STUDIES])
def test_a_study_runs(file: Path, tmp_path: Path) -> None:
    """Law: every variant of a study in docs makes a student: of toys here, with next to no work."""
    told = read_study(file)
    discrete = file.stem in ("discrete", "small")
    store.save(tmp_path / "toy.safetensors", choose_by_values() if discrete else reach_teacher(), {})
    told["teacher"] = [{"name": "toy", "path": str(tmp_path / "toy.safetensors")}]
    told |= {"base": {**told["base"], **TINY}, "seeds": 1, "episodes": 2, "states": 16}
    study = built(Study, told, file.name)
    answer = run_study(study, tmp_path / "run", False, lambda _: None)
    [toy] = answer["teachers"]
    assert answer["cells"] == {"there": len(variants(study)), "total": len(variants(study))}, toy
