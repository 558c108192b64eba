"""kdcli load and kdcli inspect: files in, files and answers out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_oracle import ACTIONS, OBSERVATIONS, Teacher, fresh

from kdcli import artifact
from kdcli.api.load import load as api_load
from kdcli.checkpoints import files as step
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read, read_any
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec

torch.set_num_threads(1)


def written(source: Path, output: Path, **options: Any) -> Path:
    """The agent file that `kdcli load` writes."""
    api_load(source, output, **options)
    return output


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A small SAC with statistics."""
    small = {"policy_kwargs": {"net_arch": [4]}}
    return fresh(tmp_path_factory.mktemp("t"), "SAC", OBSERVATIONS["box"], ACTIONS["box"], normalized=True, **small)


def run(*words: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    code = main([str(word) for word in words], Console(out, err))
    return code, out.getvalue(), err.getvalue()


def test_a_loaded_agent_is_the_same_agent(teacher: Teacher, tmp_path: Path) -> None:
    """Law: the agent file acts, and describes itself, as the checkpoint read directly; loading it again is exact."""
    path = written(teacher.path, tmp_path / "agent.safetensors", env="Some-v0")
    agent, obs = read(path), teacher.observations()
    np.testing.assert_array_equal(agent.act(obs), teacher.actions(obs))
    assert dict(agent.facts) == dict(read(teacher.path).facts)
    assert agent.env == EnvSpec("Some-v0")
    again = written(path, tmp_path / "again.safetensors", env="Other-v0")
    assert read(again).env == EnvSpec("Other-v0")
    np.testing.assert_array_equal(read(again).act(obs), teacher.actions(obs))


def test_the_same_load_gives_the_same_bytes(teacher: Teacher, tmp_path: Path) -> None:
    """Law: loading twice gives identical files, whatever torch's random state; no path of this machine is in them."""
    first = written(teacher.path, tmp_path / "a.safetensors").read_bytes()
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    assert written(teacher.path, tmp_path / "b.safetensors").read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_record_says_how(teacher: Teacher, tmp_path: Path) -> None:
    """Law: an agent file records command, options, versions and the digest of what it was made from."""
    made = artifact.read_tensors(written(teacher.path, tmp_path / "a.safetensors"))[0]["made"]
    assert made["command"] == "load"
    assert made["config"] == LoadConfig().recorded()
    assert made["parents"] == [artifact.parent(teacher.path)]
    assert {"kdcli", "torch", "python"} <= set(made["versions"])


def test_an_output_is_not_overwritten(teacher: Teacher, tmp_path: Path) -> None:
    """Law: an existing output stays, unless forced."""
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UsageError):
        written(teacher.path, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    written(teacher.path, tmp_path / "a", force=True)
    assert artifact.is_ours(tmp_path / "a")


def test_load_prints_the_path(teacher: Teacher, tmp_path: Path) -> None:
    """Law: stdout is the path alone; what was chosen is told on stderr; a second run without --force exits 2."""
    output = tmp_path / "agent.safetensors"
    code, out, err = run("load", teacher.path, "-o", output, "--env", "Some-v0")
    assert (code, out) == (0, f"{output}\n")
    assert "vecnormalize.pkl" in err
    assert run("load", teacher.path, "-o", output)[0] == 2
    assert run("load", teacher.path, "-o", output, "--force", "--no-vecnormalize", "--quiet")[::2] == (0, "")
    assert read(output).preprocess.normalizer is None
    code, _, err = run("load", teacher.path, "-o", output, "--no-vecnormalize", "--vecnormalize", "x", "--force")
    assert code == 2
    assert "contradict" in err


def test_a_refused_file_exits_4(tmp_path: Path) -> None:
    """Law: a file that is refused exits 4 and leaves no output."""
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and no more")
    code, out, err = run("load", tmp_path / "x.zip", "-o", tmp_path / "agent.safetensors")
    assert (code, out) == (4, "")
    assert err.startswith("kdcli: x.zip cannot be read")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert run("load", tmp_path / "nowhere.zip", "-o", tmp_path / "y")[0] == 2


def test_inspect_shows_all_there_is(teacher: Teacher, tmp_path: Path) -> None:
    """Law: inspect tells format, algorithm, spaces, layers, parameters, normalizer, env, signals and digest."""
    code, out, _ = run("inspect", teacher.path, "--env", "Some-v0")
    assert code == 0
    for text in ("sb3", "SAC", "Box(3,) float32", "3-4-2 relu", "26 parameters", "clipped to 4", "Some-v0", "log_std"):
        assert text in out
    assert artifact.sha256(teacher.path) in out


def test_an_export_is_shown_but_not_loaded(teacher: Teacher, tmp_path: Path) -> None:
    """Law: an exported policy can be inspected and run, but is refused where an agent is needed."""
    from kdcli.exporters.config import ExportConfig
    from kdcli.exporters.step import export

    agent, path = read(teacher.path), tmp_path / "policy.onnx"
    export(agent, path, None, ExportConfig())
    found, of_zip = step.inspect(path), step.inspect(teacher.path)
    assert (found["format"], found["made"]) == ("onnx", None)
    for key in ("algorithm", "observation", "action", "network", "activation", "rule", "actor_params", "total_params"):
        assert found[key] == of_zip[key]
    obs = teacher.observations(20)
    np.testing.assert_allclose(read_any(path).act(obs), teacher.actions(obs), atol=1e-5)
    code, _, err = run("load", path, "-o", tmp_path / "agent.safetensors")
    assert code == 4
    assert "is an export" in err


def test_inspect_as_json(teacher: Teacher, tmp_path: Path) -> None:
    """Law: with --json the answer is one object with a schema; checkpoint and agent file tell the same of the agent."""
    path = written(teacher.path, tmp_path / "agent.safetensors")
    of_zip, of_file = (json.loads(run("inspect", file, "--json", "-q")[1]) for file in (teacher.path, path))
    assert of_zip["schema"] == "kdcli.inspect/1"
    assert (of_zip["format"], of_file["format"]) == ("sb3", "native")
    assert (of_zip["made"], of_file["made"]["command"]) == (None, "load")
    assert of_file["facts"]["sha256"] == of_zip["sha256"] != of_file["sha256"]
    same = set(of_zip) - {"file", "format", "sha256", "made", "storage"}
    assert {key: of_zip[key] for key in same} == {key: of_file[key] for key in same}


def test_reading_needs_no_sb3(teacher: Teacher) -> None:
    """Law: a checkpoint is read without SB3, gym, gymnasium, cloudpickle or pandas being imported."""
    source = (
        f"import sys; from kdcli.checkpoints.read import read; read({str(teacher.path)!r})\n"
        "names = 'stable_baselines3 sb3_contrib gymnasium gym shimmy cloudpickle pandas onnxruntime'.split()\n"
        "sys.exit(' '.join(n for n in names if n in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_of_formats_needs_no_torch() -> None:
    """Law: config and table of formats are there for --help, without torch."""
    source = "import sys; import kdcli.checkpoints.config, kdcli.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
