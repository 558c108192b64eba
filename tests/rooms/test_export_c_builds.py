"""A policy's C files drop into any build: C and C++ of every age, beside other policies, with a `main` elsewhere."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from on_grids import on_grids
from sample_graphs import CASES
from sample_policies import POLICIES, agent
from test_export_c import FEW, agent_of, assert_alike, build, checking, files_of, said_by, save
from test_export_c_integers import PLAIN, image_agent, real_play

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.states import States
from kdcli.errors import UsageError
from kdcli.exporters import SUFFIXES
from kdcli.exporters.c import write
from kdcli.exporters.c.files import HEADER, SOURCE
from kdcli.exporters.c.names import symbol
from kdcli.exporters.c.run import FLAGS, bind, compiled
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export, resolved
from kdcli.graph.trace import trace
from kdcli.spec import Discrete, box

pytestmark = needs.c_compiler
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow")
STANDARDS = [(compiler, age) for compiler in ("gcc", "clang") for age in ("c99", "c11", "c17")]
STANDARDS += [(compiler, age) for compiler in ("g++", "clang++") for age in ("c++11", "c++14", "c++17", "c++20")]


def with_compilers(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    """The cases, each for those who have its compiler."""
    return [pytest.param(compiler, age, marks=needs.compiler(compiler)) for compiler, age in pairs]


@cache
def integers() -> Mapping[str, Mapping[str, bytes]]:
    """Policies that compute in whole numbers, by name."""
    made = on_grids(*real_play("CartPole-v1_1"), 3, each=True), image_agent(ActionRule(Discrete(4)), raw=False)
    return {f"whole_{k}": write(trace(one), PLAIN, f"whole_{k}") for k, one in enumerate(made)}


def together(folder: Path, names: Iterable[str]) -> Path:
    """These policies, and those of whole numbers, in one translation unit."""
    files = {name: files_of(name) for name in names} | dict(integers())
    for name, each in files.items():
        save(folder, name, each)
    whole = folder / "together.c"
    whole.write_text("".join(f'#include "{name}.c"\n' for name in files))
    return whole


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Policies with all kinds of operations between them, in one file."""
    return together(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All policies there are, in one file."""
    return together(tmp_path_factory.mktemp("every"), (*POLICIES, *CASES))


def compiles(compiler: str, age: str, source: Path) -> None:
    """It does, without a warning."""
    language = "c++" if age.startswith("c++") else "c"
    command = [compiler, "-x", language, f"-std={age}", *STRICT, "-fsyntax-only", source.name]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]


YOUNGEST_AND_OLDEST = [("gcc", "c11"), ("g++", "c++11"), ("g++", "c++20"), ("clang++", "c++17")]


@pytest.mark.parametrize(("compiler", "age"), with_compilers(YOUNGEST_AND_OLDEST))
def test_policies_are_one_translation_unit(compiler: str, age: str, few: Path) -> None:
    """Law: policies stand together in one file of C or C++ of any age, without a warning."""
    compiles(compiler, age, few)


@pytest.mark.slow
@pytest.mark.parametrize(("compiler", "age"), with_compilers(STANDARDS))
def test_all_policies_are_one_translation_unit(compiler: str, age: str, every: Path) -> None:
    """Law: the same of every policy there is, for every age."""
    compiles(compiler, age, every)


@needs.compiler("g++")
def test_as_cpp_it_acts_like_the_agent(few: Path) -> None:
    """Law: what a C++ compiler makes of several in one file does what the agents do, called as C."""
    command = ["g++", "-x", "c++", "-std=c++11", "-O1", "-shared", "-fPIC", few.name, "-o", "together.so"]
    subprocess.run(command, cwd=few.parent, check=True)
    library = ctypes.CDLL(str(few.with_suffix(".so")))
    for name in FEW:
        given, wanted = said_by(agent_of(name), 7)
        assert_alike(bind(library, files_of(name))(given), wanted)


def test_what_is_not_the_interface_has_the_name_in_front() -> None:
    """Law: every function, type, table and macro that a source defines begins with the policy's name."""
    for name, files in {**{name: files_of(name) for name in FEW}, **integers()}.items():
        text = re.sub(r"/\*.*?\*/", "", (files[HEADER] + files[SOURCE]).decode(), flags=re.DOTALL)
        defined = re.findall(r"^(?:static |const |void |extern )+.*?(\w+)(?=\(|\[| = )", text, re.MULTILINE)
        defined += re.findall(r"^(?:} |typedef char )(\w+)", text, re.MULTILINE)
        defined += re.findall(r"^#define (\w+)", text, re.MULTILINE)
        assert len(defined) > 5
        assert [one for one in defined if not one.lower().startswith(f"{name.lower()}_")] == []


def with_doubles(whole: bool) -> tuple[Agent, np.ndarray]:
    """An agent that observes float64 and normalizes it, and 200 observations that float32 has, too."""
    obs = np.random.default_rng(0).normal(3.0, 2.0, (200, 5)).astype(np.float32).astype(np.float64)
    sees = Preprocess(box((5,), dtype="float64"), Normalizer(np.full(5, 3.0), np.arange(1.0, 6.0), 10.0))
    made = agent(ActionRule(Discrete(4)), sees)
    return (on_grids(made, obs) if whole else made), obs


@pytest.mark.parametrize("whole", [False, True])
def test_a_double_may_be_four_bytes(whole: bool) -> None:
    """Law: where `double` is what `float` is, as on AVR, XC16 and RX, a policy that observes doubles acts the same."""
    made, obs = with_doubles(whole)
    files = write(trace(made), PLAIN, "policy")
    library = compiled(files, (*FLAGS, "-Ddouble=float"))
    narrow = np.ascontiguousarray(obs, np.float32)
    work, found = np.zeros(4096), np.zeros(1, np.int64)
    chosen = []
    for row in narrow:
        library.policy_run(*(ctypes.c_void_p(array.ctypes.data) for array in (np.ascontiguousarray(row), found, work)))
        chosen.append(int(found[0]))
    assert len(set(chosen)) > 1
    assert np.mean(np.array(chosen) != made.act(obs)) <= 0.01  # but for ties


def test_what_is_too_narrow_is_not_compiled(tmp_path: Path) -> None:
    """Law: on a machine whose numbers are not as wide as the policy needs, it does not compile."""
    made, _ = with_doubles(whole=True)
    save(tmp_path, "policy", write(trace(made), PLAIN, "policy"))
    narrow = ["-D", "double=long double"], ["-D", "float=double"]
    for flags in narrow:
        command = ["cc", "-std=c99", *flags, "-fsyntax-only", "policy.c"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode
        assert "negative" in done.stderr


def test_a_folder_is_compiled_whole(tmp_path: Path) -> None:
    """Law: the program beside a policy brings no `main` into a build that compiles every file, unless it is asked."""
    save(tmp_path, "lstm", files_of("lstm"))
    (tmp_path / "start.c").write_text("int main(void) { return 7; }\n")
    build(tmp_path, "lstm.c", "lstm_test.c", "start.c", "-o", "firmware")
    assert subprocess.run([tmp_path / "firmware"], check=False).returncode == 7
    build(tmp_path, checking("lstm"), "lstm.c", "lstm_test.c", "-o", "check")
    subprocess.run([tmp_path / "check"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("stem", ["__a", "_", "a__b", "9__9", "a.-b", "für"])
def test_no_symbol_is_the_compilers_own(stem: str) -> None:
    """Law: names with two underscores in a row, or one in front, belong to C++'s implementation."""
    name = symbol(stem)
    assert name[0].isalpha()
    assert "__" not in f"{name}_run"
    assert name.isascii()


VERSIONS = ("policy.v1", "policy.v2", "a 0.95")


@pytest.mark.parametrize("suffix", [".c", ".npz", ".onnx", ".pt"])
def test_companions_keep_the_whole_name(suffix: str, tmp_path: Path) -> None:
    """Law: files that go together differ in the suffix alone, so that versions stand side by side."""
    made, obs = with_doubles(whole=False)
    for stem in VERSIONS:
        exported = export(made, tmp_path / f"{stem}{suffix}", States(obs[:40]), ExportConfig())
        assert {file.name for file in tmp_path.iterdir()} >= {f"{stem}{end}" for end in exported.files}
    n_files = len(exported.files)
    assert len(list(tmp_path.iterdir())) == n_files * len(VERSIONS)
    if suffix == ".c":
        build(tmp_path, "-c", *(f"{stem}.c" for stem in VERSIONS))
        build(tmp_path, checking("policy.v2"), "policy.v2.c", "policy.v2_test.c", "-o", "check")
        subprocess.run([tmp_path / "check"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["policy.tflite", "policy.cpp", "policy.h", "policy.C", "policy.pth", "policy", ".c"])
def test_a_suffix_of_no_format_is_refused(name: str) -> None:
    """Law: no file is written under the name of another kind; the formats and their suffixes are listed."""
    with pytest.raises(UsageError, match="does not say what to write") as caught:
        resolved(ExportConfig(), Path(name))
    assert all(suffix in caught.value.why for suffix in SUFFIXES)
    assert resolved(ExportConfig(format="c"), Path(name)).format == "c"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_and_a_format_agree(suffix: str) -> None:
    """Law: a suffix is its format, and another format under it is refused."""
    output = Path(f"policy.v1{suffix}")
    assert resolved(ExportConfig(), output).format == SUFFIXES[suffix]
    for form in SUFFIXES.values():
        if form == SUFFIXES[suffix]:
            assert resolved(ExportConfig(format=form), output).format == form
        else:
            with pytest.raises(UsageError, match="is no name for a file of the format"):
                resolved(ExportConfig(format=form), output)
