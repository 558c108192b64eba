"""Which reader a file gets, what folders hold, what users are asked, and what inspect shows of each kind."""

from __future__ import annotations

import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from foreign import mlp, observations, out, saved, stirred
from sample_policies import POLICIES
from torch import nn

from kdcli.checkpoints import FORMATS
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.files import inspect
from kdcli.checkpoints.read import find_file, read, read_any, sniff
from kdcli.checkpoints.user_hints import statistics
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.errors import KdcliError, RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import export
from kdcli.spec import box


def run(*words: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    said, heard = io.StringIO(), io.StringIO()
    code = main([str(word) for word in words], Console(said, heard))
    return code, said.getvalue(), heard.getvalue()


def dqn() -> nn.Module:
    """CleanRL's dqn.py on CartPole."""
    torch.manual_seed(1)
    return stirred(mlp(4, 120, 84, 2, activation=nn.ReLU))


def dqn_file(folder: Path, name: str = "dqn.cleanrl_model") -> Path:
    return saved({f"network.{k}": v for k, v in dqn().state_dict().items()}, folder, name)


FILES: dict[str, Any] = {
    "cleanrl": lambda: {f"network.{k}": v for k, v in dqn().state_dict().items()},
    "rsl_rl": lambda: {"model_state_dict": {f"actor.{k}": v for k, v in mlp(4, 8, 2).state_dict().items()}, "iter": 1},
    "skrl": lambda: {"policy": {f"net_container.{k}": v for k, v in mlp(4, 8, 2).state_dict().items()}},
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.pt", "best_model.zip", "policy.onnx", "agent", "x.d3"])
@pytest.mark.parametrize("legacy", [False, True])
def test_content_counts_and_not_the_name(kind: str, name: str, legacy: bool, tmp_path: Path) -> None:
    """Law: a file is known by what is in it, under any name, in either of torch's formats."""
    torch.save(FILES[kind](), tmp_path / name, _use_new_zipfile_serialization=not legacy)
    assert sniff(tmp_path / name) == kind
    assert kind in FORMATS.rows


REFUSED: dict[str, Any] = {
    "nothing": b"",
    "text": b"hello",
    "a bare pickle": pickle.dumps({"a": 1}),
    "a pickle that is none": b"\x80\x04 and no more",
    "a zip of something": None,
    "an unknown layout": {"state": {"weight": torch.ones(2)}},
    "a tensor": torch.ones(3),
    "a whole module": nn.Linear(2, 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_of_no_kind(name: str, tmp_path: Path) -> None:
    """Law: whatever is no checkpoint is refused, never guessed at."""
    content, path = REFUSED[name], tmp_path / "x.pt"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(RefusedError):
        read(path, LoadConfig(env="CartPole-v1"))


def test_tensors_alone_ask_for_a_card(tmp_path: Path) -> None:
    """Law: safetensors, and state dicts of an unknown layout, are refused with the way out: a card."""
    from safetensors.torch import save_file

    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.safetensors", saved({"a.weight": torch.ones(2, 2)}, tmp_path)):
        with pytest.raises(RefusedError) as raised:
            read(path)
        assert "card" in raised.value.fix


FOLDERS: dict[str, tuple[list[str], str | None]] = {
    "a Hub repository": (
        ["ppo-CartPole-v1.zip", "ppo-CartPole-v1/data", "config.json", "replay.mp4"],
        "ppo-CartPole-v1.zip",
    ),
    "pushed by RL Zoo": (
        ["ppo-CartPole-v1.zip", "args.yml", "config.yml", "vec_normalize.pkl", "train_eval_metrics.zip"],
        "ppo-CartPole-v1.zip",
    ),
    "a run of RL Zoo": (
        ["CartPole-v1.zip", "best_model.zip", "CartPole-v1/args.yml", "evaluations.npz"],
        "CartPole-v1.zip",
    ),
    "one file": (["model.zip", "notes.txt"], "model.zip"),
    "a run of CleanRL": (["dqn.cleanrl_model", "events.out.tfevents.1"], "dqn.cleanrl_model"),
    "a card and its tensors": (["policy.safetensors", "policy.json"], "policy.safetensors"),
    "several": (["model_0.pt", "model_100.pt"], None),
    "none": (["notes.txt"], None),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    """Law: a folder is the one checkpoint in it; which, if there are several, is asked with their names."""
    files, wanted = FOLDERS[name]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    if wanted is None:
        with pytest.raises(UsageError, match="is a folder"):
            find_file(tmp_path)
    else:
        assert find_file(tmp_path) == tmp_path / wanted


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


BAD_STATS = {
    "no npz": b"hello",
    "no mean": npz(var=np.ones(3)),
    "neither var nor std": npz(mean=np.ones(3)),
    "both": npz(mean=np.ones(3), var=np.ones(3), std=np.ones(3)),
    "other shapes": npz(mean=np.ones(3), var=np.ones(4)),
    "negative": npz(mean=np.ones(3), var=-np.ones(3)),
    "not a number": npz(mean=np.full(3, np.nan), var=np.ones(3)),
    "objects": npz(mean=np.array([None, {}], dtype=object), var=np.ones(2)),
    "text": npz(mean=np.array(["a"]), var=np.ones(1)),
    "no clip": npz(mean=np.ones(3), var=np.ones(3), clip=np.array(0.0)),
    "many clips": npz(mean=np.ones(3), var=np.ones(3), clip=np.ones(2)),
}


@pytest.mark.parametrize("name", BAD_STATS)
def test_statistics_that_are_none(name: str, tmp_path: Path) -> None:
    """Law: a file of statistics holds numbers that can be used, or is refused; nothing pickled is read."""
    (tmp_path / "s.npz").write_bytes(BAD_STATS[name])
    with pytest.raises(RefusedError):
        statistics(LoadConfig(obs_stats=str(tmp_path / "s.npz")))
    with pytest.raises(UsageError, match="cannot read"):
        statistics(LoadConfig(obs_stats=str(tmp_path / "none.npz")))


@pytest.mark.parametrize("name", ["var", "std"])
def test_statistics(name: str, tmp_path: Path) -> None:
    """Law: var has epsilon added inside the root, std outside; without a clip there is none."""
    (tmp_path / "s.npz").write_bytes(npz(mean=np.arange(3), epsilon=0.5, **{name: np.full(3, 4.0)}))
    found = statistics(LoadConfig(obs_stats=str(tmp_path / "s.npz")))
    assert found.normalizer is not None
    np.testing.assert_allclose(found.normalizer.scale, np.sqrt(4.5) if name == "var" else 4.5)
    assert np.isinf(found.normalizer.clip)
    assert found.sha256 is not None


def test_an_option_for_another_kind(tmp_path: Path) -> None:
    """Law: an option that says nothing about a kind of file is an error, not ignored."""
    path = dqn_file(tmp_path)
    for said in ({"squash": "clip"}, {"signal": "q"}, {"output_name": "q"}):
        with pytest.raises(UsageError, match="says nothing about"):
            read(path, LoadConfig(env="CartPole-v1", **said))


def test_recorded_without_paths(tmp_path: Path) -> None:
    """Law: the record holds what was said, of paths the names alone."""
    said = LoadConfig(obs_stats="/home/me/stats.npz", activation="tanh", trust=True).recorded()
    assert said["obs_stats"] == "stats.npz"
    assert said["activation"] == "tanh"
    assert "/home" not in str(said)


def test_load_export_and_inspect_a_foreign_file(tmp_path: Path) -> None:
    """Law: a foreign checkpoint goes the whole way: load, inspect, export; and acts the same at the end of it."""
    path = dqn_file(tmp_path)
    agent_file, onnx_file = tmp_path / "a.safetensors", tmp_path / "p.onnx"
    assert run("load", path, "--env", "CartPole-v1", "-o", agent_file)[0] == 0
    assert run("export", agent_file, "-o", onnx_file, "--states", "100")[0] == 0
    code, told, _ = run("inspect", path, "--env", "CartPole-v1")
    assert code == 0
    for text in ("cleanrl", "DQN", "4-120-84-2 relu", "CartPole-v1", "q"):
        assert text in told
    obs = observations(box((4,)), 200)
    np.testing.assert_array_equal(read_any(onnx_file).act(obs), out(dqn(), obs).argmax(1))


def test_a_missing_answer_exits_2(tmp_path: Path) -> None:
    """Law: what a file does not tell is asked for with exit code 2 and the option's name."""
    code, _, said = run("load", dqn_file(tmp_path), "-o", tmp_path / "a.safetensors")
    assert code == 2
    assert "--env" in said


@pytest.mark.parametrize("name", ["sees_normalized", "tanh", "discrete_start", "gru"])
def test_the_contract_of_an_export(name: str, tmp_path: Path) -> None:
    """Law: inspect prints an export's contract: its ends, range, state and reset, parity, parents."""
    if name not in POLICIES:
        name = next(key for key, make in POLICIES.items() if make().state_size)
    agent, path = POLICIES[name](), tmp_path / "policy.onnx"
    export(agent, path, None, ExportConfig(states=40))
    found = inspect(path)
    contract = found["contract"]
    assert [port["name"] for port in contract["inputs"]] == [i.name for i in onnx.load(path).graph.input]
    assert contract["parity"]["n_states"] >= 40
    assert (contract["state"] is not None) == bool(agent.state_size)
    code, told, _ = run("inspect", path)
    assert code == 0
    wanted = ["input obs", "output action", "parity"] + (["action range"] if name == "tanh" else [])
    for text in wanted + (["input state_in", "zeros where an episode begins"] if agent.state_size else []):
        assert text in told


def test_any_bytes_end_in_three_lines(tmp_path: Path) -> None:
    """Law: damaged files of every kind end in an error of kdcli's own, whatever byte is wrong."""
    rng = np.random.default_rng(0)
    torch.save(FILES["rsl_rl"](), tmp_path / "a.pt")
    saved({"torch": b"", "config": "{}", "version": "2"}, tmp_path, "b.pt")
    (tmp_path / "c.d3").write_bytes(
        pickle.dumps({"torch": (tmp_path / "a.pt").read_bytes(), "config": "{}", "version": "2"})
    )
    for path in (dqn_file(tmp_path), tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.d3"):
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 3):
                data[place] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data))
            with suppress(KdcliError):
                read(path, LoadConfig(env="CartPole-v1", activation="elu"))
