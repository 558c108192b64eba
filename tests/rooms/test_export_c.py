"""A policy in C acts as the agent does, compiles cleanly anywhere, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import needs
import numpy as np
import pytest
import torch
from sample_graphs import CASES
from sample_policies import POLICIES, observations

from kdcli.agents.agent import Agent
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.c import FORMAT, runner, stamp, write
from kdcli.exporters.c.files import HEADER, NO_RECORD, PROGRAM, SOURCE
from kdcli.exporters.c.lower import lower
from kdcli.exporters.c.memory import plan
from kdcli.exporters.c.names import symbol
from kdcli.exporters.c.run import FLAGS, bind
from kdcli.exporters.c.source_builder import number
from kdcli.exporters.c.stamp import contract
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.graph.graph_builder import GraphBuilder
from kdcli.graph.operations import KINDS, Graph, Op, Port
from kdcli.graph.trace import output_names, trace
from kdcli.networks.activations import ACTIVATIONS
from kdcli.spec import STATE_IN, STATE_OUT, Box, feed

pytestmark = needs.c_compiler
PLAIN = ExportConfig()
STRICT = tuple(flag for flag in FLAGS if flag != "-O3")
every_policy = pytest.mark.parametrize("name", POLICIES)
every_case = pytest.mark.parametrize("name", CASES)
# Between them all kinds of operations, all dtypes, both products and both convolutions.
FEW = ("stack_image", "gru_dict", "gsde_spread", "net_gelu", "sees_normalized", "masked_multi_binary")


@cache
def graph_of(name: str) -> Graph:
    """The graph of a sample policy with every output, or of a case written by hand."""
    if name in CASES:
        return CASES[name]().graph
    return trace(agent_of(name), output_names(agent_of(name)))


@cache
def agent_of(name: str) -> Agent:
    """A sample policy, always the same one."""
    return POLICIES[name]()


@cache
def files_of(name: str) -> Mapping[str, bytes]:
    """Its files, under its name."""
    return write(graph_of(name), PLAIN, name)


def save(folder: Path, name: str, files: Mapping[str, bytes]) -> list[Path]:
    """Put files in a folder; returns their paths."""
    paths = [folder / f"{name}{suffix}" for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    return paths


def build(folder: Path, *words: object) -> None:
    """Run the compiler in a folder, with every warning an error."""
    command = ["cc", *STRICT, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]


def checking(stem: str) -> str:
    """The flag that makes a program of the test beside a policy."""
    return f"-D{symbol(stem).upper()}_TEST"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All sample policies and hand-made graphs in one library: their names do not clash."""
    return built(tmp_path_factory.mktemp("policies"), "-O1")


def built(folder: Path, *flags: str) -> ctypes.CDLL:
    """All of them, compiled with `flags`."""
    names = [*POLICIES, *CASES]
    for name in names:
        save(folder, name, files_of(name))
    build(folder, *flags, "-shared", "-fPIC", *(f"{name}.c" for name in names), "-o", "all.so")
    return ctypes.CDLL(str(folder / "all.so"))


def said_by(made: Agent, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`n` inputs by name, in the middle of an episode, and every output that the agent gives for them."""
    obs = observations(made, n, seed=n)
    given = feed(made.observation, obs)
    state = np.random.default_rng(n).normal(size=(n, made.state_size)).astype(np.float32)
    heads = made.heads(obs, state) if made.state_size else made.heads(obs)
    found = {name: tensor.numpy() for name, tensor in heads.present().items()}
    wanted = {name: found[name] for name in output_names(made)[1:]} | {"action": made.decode(heads)}
    if made.state_size:
        given[STATE_IN], wanted[STATE_OUT] = state, found["state"]
    return given, wanted


def assert_alike(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    """The same names, shapes and dtypes; integers equal, real numbers to 1e-5."""
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert (found[key].shape, found[key].dtype) == (array.shape, array.dtype)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if array.dtype.kind == "f" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(found[key], array, **tolerance, err_msg=key)


def test_every_kind_is_written() -> None:
    """What a graph may say, some sample here says, so that the tests below compare it."""
    kinds = {op.kind for name in (*POLICIES, *CASES) for op in graph_of(name).ops}
    assert kinds == KINDS.keys()


@every_policy
def test_it_acts_like_the_agent(name: str, library: ctypes.CDLL) -> None:
    """At batches of 1 and 40 every output is the agent's: choices equal, real numbers to 1e-5."""
    made, run = agent_of(name), bind(library, files_of(name))
    for n in (1, 40):
        given, wanted = said_by(made, n)
        if not isinstance(made.action, Box):
            assert np.array_equal(run(given)["action"], wanted["action"])
        assert_alike(run(given), wanted)


@every_case
def test_layers_are_torchs(name: str, library: ctypes.CDLL) -> None:
    """Convolutions, pools, cells and pieces in odd shapes and orders are what torch makes of them."""
    case = CASES[name]()
    assert_alike(bind(library, files_of(name))(case.given), case.wanted)


def test_functions_are_right_everywhere() -> None:
    """Without the C library: each function to 1e-6 of its size from 0 to the largest numbers, and nan stays nan."""
    sizes = np.concatenate([np.linspace(0, 30, 3001), np.logspace(-30, 38, 500)])
    x = np.concatenate([sizes, -sizes]).astype(np.float32)
    port, builder = Port("x", (x.size,)), GraphBuilder()
    outputs = {"action": port} | {name: builder.add(name, port) for name in ACTIVATIONS}
    run = runner(write(builder.graph((port,), outputs), PLAIN, "functions"))
    found, nothing = run({"x": x[None]}), run({"x": np.full((1, x.size), np.nan, np.float32)})
    exact = torch.from_numpy(x).double()
    for name, function in ACTIVATIONS.items():
        wanted = function(exact).clamp(-3.4e38, 3.4e38).numpy()
        gap = np.abs(found[name][0].astype(np.float64) - wanted) / np.maximum(1.0, np.abs(wanted))
        assert gap.max() < 1e-6, (name, x[gap.argmax()], gap.max())
        assert np.isnan(nothing[name]).all()


def test_a_half_is_torchs_half() -> None:
    """The bit is set from the same float32 on as in torch, whose sigmoid rounds to a half around 0."""
    near = np.arange(0x33C00000 - 20, 0x33C00000 + 20, dtype=np.uint32)
    x = np.concatenate([near, np.arange(0x33000000, 0x35000000, 1 << 16, dtype=np.uint32)]).view(np.float32)
    port, builder = Port("x", (x.size,)), GraphBuilder()
    run = runner(write(builder.graph((port,), {"action": builder.add("threshold", port)}), PLAIN, "half"))
    wanted = torch.from_numpy(x).sigmoid().round().numpy()
    assert set(wanted) == {0.0, 1.0}
    assert np.array_equal(run({"x": x[None]})["action"][0], wanted)


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(level: str, tmp_path: Path) -> None:
    """C99 and nothing else, whatever the optimizer sees; and the program beside it says that all is well."""
    for name in FEW:
        save(tmp_path, name, files_of(name))
        build(tmp_path, level, "-Wshadow", checking(name), f"{name}.c", f"{name}_test.c", "-o", name)
        subprocess.run([tmp_path / name], check=True, stdout=subprocess.DEVNULL)


LEVELS = ["-O0", "-O2", "-Os", "-O3", "-O3 -march=native -ffp-contract=fast"]


@pytest.mark.slow
@pytest.mark.parametrize("flags", LEVELS)
def test_it_is_the_same_at_every_level(flags: str, tmp_path: Path) -> None:
    """Every policy compiles without a warning at every level of optimization, and acts alike."""
    every = built(tmp_path, *flags.split())
    for name in CASES:
        case = CASES[name]()
        assert_alike(bind(every, files_of(name))(case.given), case.wanted)
    for name in POLICIES:
        given, wanted = said_by(agent_of(name), 7)
        assert_alike(bind(every, files_of(name))(given), wanted)


@pytest.mark.parametrize(
    "name", ["deep_convolutions", "bytes_in_both_orders", "pooling", "pieces", "cells", "groups", "rows"]
)
def test_it_stays_inside_its_memory(name: str, tmp_path: Path) -> None:
    """No read or write beyond an array, no overflow of integers, nothing that C leaves undefined."""
    stays_inside(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FEW, *CASES])
def test_all_stay_inside_their_memory(name: str, tmp_path: Path) -> None:
    """The same of every policy."""
    stays_inside(name, tmp_path)


def stays_inside(name: str, folder: Path) -> None:
    """Run the test program of a policy where every access is watched."""
    save(folder, name, files_of(name))
    careful = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    build(folder, *careful, checking(name), f"{name}.c", f"{name}_test.c", "-o", name)
    subprocess.run([folder / name], check=True, stdout=subprocess.DEVNULL)


def test_it_needs_no_library_and_keeps_nothing(tmp_path: Path) -> None:
    """All that is not in the file is what compilers themselves put for copies; nothing in it can be written."""
    for name in FEW:
        save(tmp_path, name, stamp(files_of(name), {"a": 1}))
        build(tmp_path, "-O3", "-c", f"{name}.c", "-o", f"{name}.o")
        symbols = subprocess.check_output(["nm", tmp_path / f"{name}.o"], text=True)
        kinds = re.findall(r"^\S* +(\w) (\S+)$", symbols, re.MULTILINE)
        assert {symbol for kind, symbol in kinds if kind == "U"} <= {"memcpy", "memset", "memmove"}
        assert not [symbol for kind, symbol in kinds if kind in "bBdDcC" and not symbol.endswith("_record")]
        public = {symbol for kind, symbol in kinds if kind.isupper() and kind != "U"}
        assert public <= {f"{name}_run", f"{name}_reset", f"{name}_record"}


@every_policy
def test_bytes_are_the_same_twice(name: str) -> None:
    """Equal agents give equal bytes, under one name."""
    made = agent_of(name)
    assert write(trace(made, output_names(made)), PLAIN, name) == files_of(name)


WRITE_ALONE = """
import sys, hashlib
sys.path[:0] = sys.argv[1:3]
from test_export_c import FEW, files_of
print(hashlib.sha256(b"".join(data for name in FEW for data in files_of(name).values())).hexdigest())
"""


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the process, its hash seed and its folder; and no path of this machine is in them."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", WRITE_ALONE, str(here), str(here.parent)]
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    found = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).strip()
    whole = b"".join(data for name in FEW for data in files_of(name).values())
    assert found == hashlib.sha256(whole).hexdigest()
    assert not [place for place in (Path.home(), here.parents[1], Path(sys.prefix)) if str(place).encode() in whole]


STRANGE = [
    "for",
    "höhe",
    "a b",
    "a/b",
    "A B",
    "INT8_MAX",
    "work",
    "*/",
    "dense",
    "2x",
    "size_t",
    "i",
    "float32",
    "unix",
]


def strange_graph() -> Graph:
    """The sum of many inputs with names that are none in C, under such a name."""
    ports = tuple(Port(name, (2,)) for name in STRANGE)
    both, out = Port("int", (2 * len(ports),)), Port("class??/", (1,))
    weight = np.ones((1, both.size), np.float32)
    return Graph(ports, (Op("concat", ports, (both,)), Op("gemm", (both,), (out,), {}, {"weight": weight})), (out,))


@pytest.mark.parametrize("stem", ["my-policy 2", "2048", "int", "høyde", "a.b"])
def test_any_name_is_taken(stem: str, tmp_path: Path) -> None:
    """Names of inputs, outputs and files that C does not know still make a program."""
    given = {name: np.full((3, 2), k, np.float32) for k, name in enumerate(STRANGE)}
    files = stamp(write(strange_graph(), PLAIN, stem), {"note": '??/ */ /* \\ " ü'})
    assert runner(files)(given)["class??/"].tolist() == [[2.0 * sum(range(len(STRANGE)))]] * 3
    save(tmp_path, stem, files)
    build(tmp_path, checking(stem), f"{stem}.c", f"{stem}_test.c", "-o", "check")
    subprocess.run([tmp_path / "check"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("stem", ['a"b', "a\\b", "a\nb", "a??/b", ""])
def test_a_name_that_cannot_be_included_is_refused(stem: str) -> None:
    """C includes a header by its name, so that some are impossible."""
    with pytest.raises(UsageError, match="no C file can be called"):
        write(strange_graph(), PLAIN, stem)


SHOW = """
#include <stdio.h>
#include "lstm.h"
int main(void) { for (int i = 0; lstm_record[i]; i++) fputs(lstm_record[i], stdout); return 0; }
"""


def test_the_record_comes_back(tmp_path: Path) -> None:
    """What the file says of itself is there for programs and for people, however long and whatever is in it."""
    record = {"note": '??/ */ /* \\ " ü \n end', "many": list(range(2000)), "none": None}
    files = stamp(files_of("lstm"), record)
    assert files == stamp(files_of("lstm"), record)
    save(tmp_path, "lstm", files)
    (tmp_path / "show.c").write_text(SHOW)
    build(tmp_path, "lstm.c", "show.c", "-o", "show")
    assert json.loads(subprocess.check_output([tmp_path / "show"])) == record
    comment = files[HEADER].decode().split("how alike it acts:\n")[1].split(" */")[0]
    assert json.loads("".join(line.removeprefix(" * ") for line in comment.splitlines())) == record
    build(tmp_path, "-DLSTM_NO_RECORD", "-c", "lstm.c")


def test_a_stamp_changes_nothing_that_acts() -> None:
    """The record is beside the policy: its code, its numbers and its test stay as they are."""
    plain, stamped = files_of("lstm"), stamp(files_of("lstm"), {"a": 1})
    assert stamped[SOURCE].startswith(plain[SOURCE])
    assert stamped[PROGRAM] == plain[PROGRAM]
    before, after = plain[HEADER].decode().split(NO_RECORD)
    assert stamped[HEADER].decode().startswith(before)
    assert stamped[HEADER].decode().endswith(after)


def test_the_program_tells_good_from_bad(tmp_path: Path) -> None:
    """With real observations and actions the test program exits with 0, with other actions with 1."""
    made = agent_of("gru_dict")
    given, wanted = said_by(made, 5)
    for shift, code in ((0, 0), (1, 1)):
        examples = {**given, **wanted, "action": wanted["action"] + shift}
        files = write(graph_of("gru_dict"), PLAIN, "policy", examples)
        save(tmp_path, "policy", files)
        build(tmp_path, checking("policy"), "policy.c", "policy_test.c", "-o", "check")
        done = subprocess.run([tmp_path / "check"], check=False, stdout=subprocess.DEVNULL)
        assert done.returncode == code


def test_state_may_stay_where_it_is(library: ctypes.CDLL) -> None:
    """`state_out` may be the array that `state_in` is; `reset` makes it an episode's first."""
    made, name = agent_of("gru_dict"), "gru_dict"
    terms, run = contract(files_of(name)), bind(library, files_of(name))
    given, _ = said_by(made, 1)
    step, reset = library.gru_dict_run, library.gru_dict_reset
    state, work = given[STATE_IN].copy(), np.zeros(terms["work_bytes"] // 8 + 1)
    outputs = {port["name"]: np.zeros(port["shape"], port["dtype"]) for port in terms["outputs"]} | {STATE_OUT: state}
    inputs = [given[port["name"]] for port in terms["inputs"][:-1]]
    step(*(array.ctypes.data for array in (*inputs, state, *outputs.values(), work)))
    assert np.array_equal(state, run(given)[STATE_OUT])
    reset.argtypes = [ctypes.c_void_p]
    reset(state.ctypes.data)
    assert not state.any()


def test_values_do_not_lie_on_each_other() -> None:
    """What is needed at one time lies apart; what is not needed any more makes room."""
    for name in (*POLICIES, *CASES):
        steps = lower(graph_of(name))
        memory = plan(steps)
        blocks = list({id(block): block for block in memory.blocks.values()}.values())
        for k, a in enumerate(blocks):
            for b in blocks[:k]:
                apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
                assert apart or a.dtype != b.dtype or not a.meets(b)
        assert all(block.offset + block.size <= memory.sizes[block.dtype] for block in blocks)
    builder, x = GraphBuilder(), Port("x", (64,))
    y = x
    for _ in range(9):
        y = builder.add("tanh", builder.add("gemm", y, (64,), weight=np.zeros((64, 64), np.float32)))
    assert plan(lower(builder.graph((x,), {"action": y}))).sizes == {"float32": 128}


def test_what_only_renames_costs_nothing() -> None:
    """Reshaping, cutting, turning images and joining parts that are cut again is done here, not in the policy."""
    kinds = [step.kind for step in lower(graph_of("stack_image"))]
    assert kinds[:3] == ["conv2d", "relu", "max_pool2d"]
    assert not {"take", "pixels", "concat"} & set(kinds)
    assert [step.kind for step in lower(graph_of("through"))] == ["repeat", "give", "give", "give"]


def test_numbers_are_written_exactly() -> None:
    """What C reads is the very number: of both sizes, the smallest and the largest included."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 4000, np.uint32)
    for kind in (np.float32, np.float64):
        drawn = bits.view(np.float32) if kind is np.float32 else np.random.default_rng(1).normal(size=4000)
        edges = [np.finfo(kind).max, np.finfo(kind).min, np.finfo(kind).smallest_subnormal, 3.0, 1e22, -0.0]
        for value in [*drawn[np.isfinite(drawn)].tolist(), *map(float, edges)]:
            text = number(value, np.dtype(kind).name)
            assert re.fullmatch(r"-?\d+(\.\d+)?(e[-+]\d+)?", text.removesuffix("f"))
            assert kind(text.removesuffix("f")).tobytes() == kind(value).tobytes()
    assert number(np.inf, "float32") == number(float(np.finfo(np.float32).max), "float32")


def test_what_is_no_number_is_refused() -> None:
    """A policy with nan in it is not written; infinite bounds are the largest numbers."""
    port, builder = Port("x", (2,)), GraphBuilder()
    bad = builder.graph(
        (port,), {"action": builder.add("gemm", port, (1,), weight=np.full((1, 2), np.nan, np.float32))}
    )
    with pytest.raises(RefusedError, match="cannot be written as C"):
        write(bad, PLAIN, "policy")


def test_what_c_cannot_do_is_said() -> None:
    """Half precision, and numbers of a type that C99 has not, are mistakes of the caller."""
    with pytest.raises(UsageError, match="fp16"):
        write(graph_of("tanh"), ExportConfig(precision="fp16"), "policy")
    half = Port("x", (2,), "float16")
    with pytest.raises(UsageError, match="float16"):
        write(Graph((half,), (), (half,)), PLAIN, "policy")


def test_a_compiler_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, the error says how to get it; if it does not take the file, what it says."""
    monkeypatch.setenv("CC", "no-such-compiler -x")
    with pytest.raises(UsageError) as raised:
        runner(files_of("tanh"))
    assert "apt install gcc" in raised.value.fix
    monkeypatch.setenv("CC", "cc -DINT32_MAX")
    with pytest.raises(UsageError, match="does not compile"):
        runner({**files_of("tanh"), SOURCE: b"#error no\n"})


def test_inputs_of_another_shape_are_refused() -> None:
    """The compiled function reads as many numbers as it was made for."""
    with pytest.raises(UsageError, match="shape"):
        FORMAT.runner(files_of("tanh"), graph_of("tanh"))({"obs": np.zeros((3, 4), np.float32)})


def test_an_image_needs_no_copy_of_itself() -> None:
    """A convolution reads bytes where they are: no room is needed for the image as real numbers."""
    sizes = plan(lower(graph_of("stack_image"))).sizes
    assert sizes["float32"] < 2 * 9 * 8 * 2


@needs.zoo
@pytest.mark.parametrize("form", ["kdcli.exporters.c:FORMAT", "kdcli.exporters.numpy.writer:FORMAT"])
@pytest.mark.parametrize("path", sorted(needs.ZOO.glob("*/*/*.zip")), ids=lambda path: path.parent.name)
def test_real_agents(path: Path, form: str) -> None:
    """Agents that people trained act in C and in NumPy as they did, on a thousand states of their own play."""
    made = read(path)
    found = convert(made, None, ExportConfig(outputs=output_names(made), format=form))
    assert found.parity.n_states == 1000
    assert found.parity.max_abs_difference <= found.parity.tolerance <= 1e-4
    assert found.parity.ties == 0
