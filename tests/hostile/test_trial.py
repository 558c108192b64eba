"""ONNX files in a process of their own: what loads and decides passes, what starves, hangs or breaks it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_bombs import BOMBS

from kdcli.agents.onnx import sandbox as trial
from kdcli.agents.onnx.sandbox import try_out
from kdcli.errors import RefusedError


def policy(scale: float = 2.0) -> onnx.ModelProto:
    """Observations (n, 3) times a number."""
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])] for name in ("obs", "action")]
    node = helper.make_node("Mul", ["obs", "scale"], ["action"])
    numbers = [numpy_helper.from_array(np.float32(scale), "scale")]
    graph = helper.make_graph([node], "policy", ends[0], ends[1], numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ConstantOfShape of 4 gigabytes", "bytes for one decision"),
        ("Concat, doubling to gigabytes", "bytes for one decision"),
        ("a function of itself", "INVALID_GRAPH"),
        ("a loop without end", "one decision takes more than"),
    ],
)
def test_bombs_are_refused(name: str, why: str) -> None:
    """Law: a file that wants gigabytes, runs without end, or is no graph is refused, and says which."""
    model = policy()
    BOMBS[name](model)
    with pytest.raises(RefusedError, match=r"cannot run x\.onnx") as caught:
        try_out(model.SerializeToString(), "x.onnx")
    assert why in caught.value.why


def test_a_file_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a policy passes; the same bytes are not tried again in one process, others are."""
    started: list[Any] = []
    run = subprocess.run
    monkeypatch.setattr(trial.subprocess, "run", lambda *a, **k: started.append(a) or run(*a, **k))
    for scale in (2.5, 2.5, 3.5):
        try_out(policy(scale).SerializeToString(), "x.onnx")
    assert len(started) == 2


def test_a_crash_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a file that brings the runtime down takes only its own process with it."""
    dead = subprocess.CompletedProcess([], -11, b"", b"")
    monkeypatch.setattr(trial.subprocess, "run", lambda *_, **__: dead)
    with pytest.raises(RefusedError) as caught:
        try_out(policy(4.5).SerializeToString(), "x.onnx")
    assert "code -11" in caught.value.why


def test_nothing_beside_the_file_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: modules in the working folder, where the file may have come with some, are not found."""
    for name in ("numpy", "onnxruntime", "json", "re"):
        (tmp_path / f"{name}.py").write_text("open('hacked', 'w').close()\n")
    (tmp_path / "kdcli").mkdir()
    (tmp_path / "kdcli" / "__init__.py").write_text("open('hacked', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    try_out(policy(5.5).SerializeToString(), "x.onnx")
    assert not (tmp_path / "hacked").exists()
