"""A policy for NumPy alone acts as the agent does, from one file and a page that anyone can read."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import torch
from sample_graphs import CASES
from sample_policies import POLICIES, observations

from kdcli.agents.agent import Agent
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.numpy import template as numpy_page
from kdcli.exporters.numpy.template import OPERATIONS, Policy
from kdcli.exporters.numpy.writer import PAGE, RECORD, SUFFIX, runner, stamp, write
from kdcli.graph.graph_builder import GraphBuilder
from kdcli.graph.operations import KINDS, Graph, Port
from kdcli.graph.trace import output_names, trace
from kdcli.networks.activations import ACTIVATIONS
from kdcli.spec import STATE_IN, STATE_OUT, Dict, feed, join_rows, split_rows

PLAIN = ExportConfig()
every_policy = pytest.mark.parametrize("name", POLICIES)
every_case = pytest.mark.parametrize("name", CASES)


@cache
def agent_of(name: str) -> Agent:
    """A sample policy, always the same one."""
    return POLICIES[name]()


@cache
def files_of(name: str) -> Mapping[str, bytes]:
    """The files of a sample policy with every output."""
    return write(trace(agent_of(name), output_names(agent_of(name))), PLAIN, "policy")


def policy_of(name: str) -> Any:
    """A sample policy as a user loads it."""
    return Policy(io.BytesIO(files_of(name)[SUFFIX]))


def assert_alike(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    """The same names, shapes and dtypes; integers equal, real numbers to 1e-5."""
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert (found[key].shape, found[key].dtype) == (array.shape, array.dtype)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if array.dtype.kind == "f" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(found[key], array, **tolerance, err_msg=key)


def test_every_kind_is_on_the_page() -> None:
    """What a graph may say, the page can run, and nothing else."""
    assert OPERATIONS.keys() == KINDS.keys()


@every_policy
def test_it_acts_like_the_agent(name: str) -> None:
    """At batches of 1, 7 and 256 every output is the agent's: choices equal, real numbers to 1e-5."""
    made, run = agent_of(name), runner(files_of(name))
    for n in (1, 7, 256):
        obs = observations(made, n, seed=n)
        given, state = feed(made.observation, obs), np.random.default_rng(n).normal(size=(n, made.state_size))
        heads = made.heads(obs, state.astype(np.float32)) if made.state_size else made.heads(obs)
        said = {key: tensor.numpy() for key, tensor in heads.present().items()}
        wanted = {key: said[key] for key in output_names(made)[1:]} | {"action": made.decode(heads)}
        if made.state_size:
            given[STATE_IN], wanted[STATE_OUT] = state.astype(np.float32), said["state"]
        assert_alike(run(given), wanted)


@every_case
def test_layers_are_torchs(name: str) -> None:
    """Convolutions, pools, cells and pieces in odd shapes and orders are what torch makes of them."""
    case = CASES[name]()
    assert_alike(runner(write(case.graph, PLAIN, "policy"))(case.given), case.wanted)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_are_right_everywhere(name: str) -> None:
    """Each function to 1e-6 of its size, also where float32 does not hold an exponential, without a warning."""
    x = np.concatenate([np.linspace(-300, 300, 3001), np.logspace(-30, 2, 500), [-1e18, 1e18]]).astype(np.float32)
    port, builder = Port("x", (x.size,)), GraphBuilder()
    run = runner(write(builder.graph((port,), {"action": builder.add(name, port)}), PLAIN, "policy"))
    wanted = ACTIVATIONS[name](torch.from_numpy(x).double()).numpy()
    found = run({"x": x[None]})["action"]
    assert found.dtype == np.float32
    gap = np.abs(found[0] - wanted) / np.maximum(1.0, np.abs(wanted))
    assert gap.max() < 1e-6, (x[gap.argmax()], gap.max())


@every_policy
def test_bytes_are_the_same_twice(name: str) -> None:
    """Equal agents give equal bytes."""
    made = agent_of(name)
    assert write(trace(made, output_names(made)), PLAIN, "other name") == files_of(name)


def test_the_file_holds_numbers_and_no_code() -> None:
    """Every entry is an array that needs no pickle; the operations are JSON; no time of day is in it."""
    data = files_of("gru_dict")[SUFFIX]
    with np.load(io.BytesIO(data), allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    assert not [array for array in arrays.values() if array.dtype.hasobject]
    graph = json.loads(arrays["graph"].item())
    used = {name for operation in graph["operations"] for name, _ in operation["numbers"].values()}
    assert used == arrays.keys() - {"graph"}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_page_is_a_page_of_numpy() -> None:
    """Under 220 lines, nothing imported but NumPy and what reads JSON, and it is the page that the tests ran."""
    text = files_of("tanh")[PAGE].decode()
    assert text == Path(numpy_page.__file__).read_text()
    assert len(text.splitlines()) < 220
    nodes = list(ast.walk(ast.parse(text)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "json", "numpy", "typing"}


RUN_ALONE = """
import sys, numpy as np
from policy import Policy
given, policy = np.load("given.npz"), Policy("policy.npz")
assert np.array_equal(policy(given["obs"]), given["action"])
assert not {"kdcli", "torch", "onnx", "onnxruntime", "scipy"} & sys.modules.keys()
"""


def test_it_runs_without_kdcli_and_torch(tmp_path: Path) -> None:
    """Raw observations in, actions out, with nothing but NumPy and the two files."""
    made = agent_of("sees_normalized_matrix")
    for suffix, data in files_of("sees_normalized_matrix").items():
        (tmp_path / f"policy{suffix}").write_bytes(data)
    obs = observations(made, 64)
    np.savez(tmp_path / "given.npz", obs=obs, action=made.act(obs))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", RUN_ALONE], check=True, cwd=tmp_path, env=environment)


def test_one_observation_is_given_as_it_is() -> None:
    """`policy(obs)` gives actions for the env; `policy.run` every output by name; the policy says what they are."""
    made, policy = agent_of("value"), policy_of("value")
    obs = observations(made, 9)
    assert np.array_equal(policy(obs), made.act(obs))
    assert policy(obs.astype(np.float64).tolist()).tolist() == made.act(obs).tolist()
    assert policy.run({"obs": obs}).keys() == {"action", "logits", "value"}
    assert policy.inputs == [{"name": "obs", "shape": [5], "dtype": "float32"}]
    assert [port["name"] for port in policy.outputs] == ["action", "logits", "value"]


@pytest.mark.parametrize("name", ["dict", "masked_discrete"])
def test_several_observations_are_given_by_name(name: str) -> None:
    """As keywords, as one mapping, or as a structured array: all the same."""
    made, policy = agent_of(name), policy_of(name)
    assert isinstance(made.observation, Dict)
    obs = observations(made, 9)
    columns, wanted = split_rows(made.observation, obs), made.act(obs)
    for found in (policy(**columns), policy(columns), policy(join_rows(made.observation, columns))):
        assert np.array_equal(found, wanted)


def test_memory_is_handed_on() -> None:
    """`policy(obs, state)` gives the next state; an episode begins without one, or with zeros."""
    made, policy = agent_of("gru_dict"), policy_of("gru_dict")
    obs = observations(made, 4)
    columns = split_rows(made.observation, obs)
    action, state = policy(columns)
    again = policy(**columns, state=np.zeros_like(state))
    wanted, after = made.step(obs, np.zeros((4, made.state_size), np.float32))
    for found in (state, again[1]):
        np.testing.assert_allclose(found, after, atol=1e-6)
    assert np.array_equal(action, wanted)
    assert np.array_equal(again[0], wanted)
    np.testing.assert_allclose(policy(columns, state)[1], made.step(obs, after)[1], atol=1e-5)


def test_the_record_is_one_more_entry() -> None:
    """What the file says of itself is JSON beside its numbers, which stay as they are."""
    record = {"note": 'ü "\0', "many": list(range(3000)), "none": None}
    plain, stamped = files_of("lstm"), stamp(files_of("lstm"), record)
    assert stamped == stamp(files_of("lstm"), record)
    assert stamped[PAGE] == plain[PAGE]
    before, after = (np.load(io.BytesIO(files[SUFFIX]), allow_pickle=False) for files in (plain, stamped))
    assert json.loads(after[RECORD].item()) == record
    assert after.files == [*before.files, RECORD]
    assert all(np.array_equal(after[name], before[name]) for name in before.files)


def test_half_precision_is_of_weights_alone() -> None:
    """With fp16 learned weights take half the room and arithmetic is as before; bounds and normalizers are exact."""
    made = agent_of("sees_normalized")
    graph = trace(made)
    files = write(graph, ExportConfig(precision="fp16"), "policy")
    assert len(files[SUFFIX]) < len(write(graph, PLAIN, "policy")[SUFFIX])
    policy = Policy(io.BytesIO(files[SUFFIX]))
    kinds = {operation["kind"]: operation["settings"] for operation in policy.operations}
    weight = next(op.weights["weight"] for op in reversed(graph.ops) if op.kind == "gemm")
    assert np.array_equal(kinds["gemm"]["weight"], weight.astype(np.float16).astype(np.float32))
    assert kinds["normalize"]["mean"].dtype == np.float64
    assert np.mean(policy(observations(made, 256)) == made.act(observations(made, 256))) > 0.97


def test_the_shipped_page_is_what_runs() -> None:
    """The comparison with the agent runs the text in the files, not the module of this package."""
    files = {**files_of("tanh"), PAGE: b"class Policy:\n    def __init__(self, file): self.run = len\n"}
    assert runner(files)([1, 2]) == 2  # type: ignore[arg-type, comparison-overlap]


def test_names_of_any_kind_are_taken() -> None:
    """Inputs and outputs may be called anything."""
    ports = tuple(Port(name, (2,)) for name in ("a b", "../x", "höhe", "for", "graph"))
    builder = GraphBuilder()
    both = builder.add("concat", ports, (10,))
    out = builder.add("gemm", both, (1,), weight=np.ones((1, 10), np.float32))
    graph: Graph = builder.graph(ports, {"record/..": out})
    given = {port.name: np.full((3, 2), 1.5, np.float32) for port in ports}
    assert runner(stamp(write(graph, PLAIN, "policy"), {}))(given)["record/.."].tolist() == [[15.0]] * 3


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the process, its hash seed and its folder."""
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:3]\nfrom test_export_numpy import files_of\n"
        "print(hashlib.sha256(files_of('gru_dict')['.npz']).hexdigest())"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(here), str(here.parent)]
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    found = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).strip()
    assert found == hashlib.sha256(files_of("gru_dict")[SUFFIX]).hexdigest()


def test_the_page_is_python_3_8() -> None:
    """Law: nothing in the page is younger than Python 3.8, neither its syntax nor what it calls."""
    text = Path(numpy_page.__file__).read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text, feature_version=(3, 8))))
    assert not [node for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"]  # zip's, of 3.10
    assert not [node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("remove")]
    unions = [node for node in nodes if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.BitOr)]
    assert not unions  # of dictionaries, of 3.9, and of types, of 3.10
    # dict[str, Any] is only written down, never made
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in nodes)
    starred = [node for node in nodes if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Starred)]
    assert not starred


OLD = """
import sys, pathlib
import numpy as np
from policy import Policy
for path in sorted(pathlib.Path(".").glob("*.npz")):
    if path.name.endswith("_given.npz"):
        continue
    with np.load(str(path)[:-4] + "_given.npz") as given:
        found = Policy(path).run({k[3:]: given[k] for k in given.files if k.startswith("in_")})
        for name, array in found.items():
            wanted = given["out_" + name]
            assert array.dtype == wanted.dtype and array.shape == wanted.shape, (path.name, name)
            assert np.allclose(array, wanted, rtol=1e-5, atol=1e-5), (path.name, name)
"""


@needs.python38
def test_it_runs_on_python_3_8(tmp_path: Path) -> None:
    """Law: an interpreter of that age, with the NumPy of its time, does what this one does, whatever the policy."""
    command = [os.environ["KDCLI_PYTHON38"], "-c"]
    for name in POLICIES:
        made, files = agent_of(name), files_of(name)
        obs = observations(made, 7)
        state = np.zeros((7, made.state_size), np.float32)
        given = {**feed(made.observation, obs), **({STATE_IN: state} if made.state_size else {})}
        wanted = runner(files)(given)
        (tmp_path / f"{name}.npz").write_bytes(files[SUFFIX])
        (tmp_path / "policy.py").write_bytes(files[PAGE])
        arrays = {f"in_{k}": array for k, array in given.items()} | {f"out_{k}": array for k, array in wanted.items()}
        np.savez(tmp_path / f"{name}_given.npz", **arrays)  # type: ignore[arg-type]
    done = subprocess.run([*command, OLD], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
