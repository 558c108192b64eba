"""Files made to harm, and files harmed on the way: refused or read right, nothing run, nothing else raised."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_oracle import ACTIONS, OBSERVATIONS, Teacher, fresh

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import Exit, RefusedError, UsageError

torch.set_num_threads(1)


class Attack:
    """Runs a command when unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch hacked",)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A small PPO with statistics, used by all tests here as the file to be harmed."""
    small = {"policy_kwargs": {"net_arch": [4], "activation_fn": torch.nn.ReLU}}
    folder = tmp_path_factory.mktemp("teacher")
    return fresh(folder, "PPO", OBSERVATIONS["box"], ACTIONS["box"], normalized=True, **small)


@pytest.fixture
def copy(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the teacher's zip, its statistics beside it, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vecnormalize.pkl").write_bytes((teacher.path.parent / "vecnormalize.pkl").read_bytes())
    (tmp_path / "model.zip").write_bytes(teacher.path.read_bytes())
    return tmp_path / "model.zip"


def members(path: Path) -> dict[str, bytes]:
    """Every member of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: dict[str, bytes]) -> Path:
    """A zip of these members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def with_entry(path: Path, key: str, value: bytes) -> Path:
    """The zip with one pickled entry of its data replaced."""
    content = members(path)
    data = json.loads(content["data"])
    data[key] = {":type:": "x", ":serialized:": base64.b64encode(value).decode()}
    return write(path, {**content, "data": json.dumps(data).encode()})


def bent(path: Path, change: Callable[[Any], None]) -> None:
    """Change the VecNormalize saved beside the zip."""
    file = path.with_name("vecnormalize.pkl")
    statistics = pickle.loads(file.read_bytes())
    change(statistics)
    statistics.class_attributes = statistics.returns = None
    file.write_bytes(pickle.dumps(statistics))


def refused_because(path: Path, why: str, config: LoadConfig | None = None) -> None:
    """Assert that the file is refused with exit code 4, and that nothing ran."""
    with pytest.raises(RefusedError, match=why) as caught:
        read(path, config)
    assert caught.value.exit_code == Exit.REFUSED
    assert not (path.parent / "hacked").exists()


@pytest.mark.parametrize("key", ["policy_class", "policy_kwargs", "observation_space", "action_space"])
def test_a_command_in_a_needed_entry(key: str, copy: Path) -> None:
    """Law: code in an entry that is needed is refused by name, and does not run."""
    refused_because(with_entry(copy, key, pickle.dumps(Attack())), r"asks for posix\.system")


@pytest.mark.parametrize("key", ["learning_rate", "lr_schedule", "clip_range", "_last_obs", "something"])
def test_a_command_in_another_entry(key: str, copy: Path, teacher: Teacher) -> None:
    """Law: an entry that is not needed is never decoded: the file loads, and nothing runs."""
    agent, obs = read(with_entry(copy, key, pickle.dumps(Attack()))), teacher.observations(20)
    np.testing.assert_array_equal(agent.act(obs), teacher.actions(obs))
    assert not (copy.parent / "hacked").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_command_in_the_weights(legacy: bool, copy: Path) -> None:
    """Law: code in policy.pth is refused by name, in the new format and in the old one."""
    buffer = io.BytesIO()
    torch.save({"action_net.weight": Attack()}, buffer, _use_new_zipfile_serialization=not legacy)
    refused_because(write(copy, {**members(copy), "policy.pth": buffer.getvalue()}), r"asks for posix\.system")


def test_old_weights_are_read(copy: Path, teacher: Teacher) -> None:
    """Law: weights in torch's format before 1.6 are read like others."""
    buffer = io.BytesIO()
    torch.save(teacher.model.policy.state_dict(), buffer, _use_new_zipfile_serialization=False)
    agent, obs = read(write(copy, {**members(copy), "policy.pth": buffer.getvalue()})), teacher.observations(20)
    np.testing.assert_array_equal(agent.act(obs), teacher.actions(obs))


def test_a_command_in_the_statistics(copy: Path) -> None:
    """Law: code in vecnormalize.pkl is refused by name, and does not run."""
    copy.with_name("vecnormalize.pkl").write_bytes(pickle.dumps({"obs_rms": Attack()}))
    refused_because(copy, r"vecnormalize\.pkl asks for posix\.system")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("args.yml", "!!python/object/apply:os.system ['touch hacked']"),
        ("args.yml", "env: !!python/name:os.system"),
        (
            "config.yml",
            "!!python/object/apply:collections.OrderedDict\n- - - a\n    - !!python/object/apply:os.system [x]",
        ),
        ("config.yml", "normalize: !!python/object/new:os.system ['touch hacked']"),
        ("args.yml", "a: &a [x]\n" + "\n".join(f"k{n}: *a" for n in range(20))),
        ("args.yml", "[" * 30000),
        ("args.yml", "a: b\n" * 20000),
        ("args.yml", "!!python/object/apply:collections.OrderedDict\n- 3\n"),
        ("args.yml", "a: {b: c"),
        ("args.yml", "\x00\x01"),
        ("args.yml", "env: CartPole-v1\nenv_kwargs: [1, 2]"),
        ("args.yml", "env: CartPole-v1\nenv_kwargs: {1: 2}"),
        ("args.yml", "env: CartPole-v1\nenv_kwargs: {a: 2020-01-01}"),
        ("args.yml", "env: CartPole-v1\nenv_kwargs: {a: .nan}"),
    ],
)
def test_yaml_that_is_more_than_data(file: str, text: str, copy: Path) -> None:
    """Law: YAML with any other tag, too many aliases, or too much of anything is refused."""
    copy.with_name(file).write_text(text)
    refused_because(copy, "cannot be read")


def test_yaml_merges_are_refused(copy: Path) -> None:
    """Law: merge keys, which nested in each other grow without end, are refused."""
    copy.with_name("args.yml").write_text("a: &a {x: 1}\nenv: CartPole-v1\nb: {<<: [*a, *a]}")
    refused_because(copy, "cannot be read")


def test_a_module_in_the_env_id_is_dropped(copy: Path) -> None:
    """Law: `module:Env-v0` in a file names the env only; nothing will import the module."""
    copy.with_name("args.yml").write_text("env: 'os.path:CartPole-v1'")
    agent = read(copy)
    assert agent.env is not None
    assert agent.env.id == "CartPole-v1"


@pytest.mark.parametrize("member", ["data", "policy.pth"])
def test_a_zip_bomb(member: str, copy: Path) -> None:
    """Law: a member that unpacks to far more than it weighs is refused before it is unpacked."""
    content = members(copy)
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, bytes(2**26) if name == member else data)
    assert copy.stat().st_size < 2**18
    refused_because(copy, rf"{member} is too large")


def test_a_bomb_inside_the_weights(copy: Path) -> None:
    """Law: weights are not compressed; a policy.pth that unpacks to much more than it weighs is refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**25))
    refused_because(write(copy, {**members(copy), "policy.pth": buffer.getvalue()}), "policy.pth is too large")


def test_another_packing(copy: Path) -> None:
    """Law: LZMA, which asks for gigabytes before the first byte, and other packings no checkpoint has are refused."""
    content = members(copy)
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_LZMA) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    refused_because(copy, "packed in a way")


def test_members_inside_others(copy: Path) -> None:
    """Law: members that share bytes, of which a small zip can have any number, are refused."""
    with zipfile.ZipFile(copy, "a") as archive:
        first = archive.infolist()[0]
        archive.writestr("copy", b"x")
        archive.getinfo("copy").header_offset = first.header_offset
    refused_because(copy, "is not a checkpoint")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["../data", "/data", "a\\b", "policy.pth"])
def test_names_no_checkpoint_has(name: str, copy: Path) -> None:
    """Law: members that lead out of the zip, or come twice, are refused."""
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr(name, b"x")
    refused_because(copy, "is not a checkpoint")


@pytest.mark.parametrize("key", ["mean", "var"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_statistics_that_cannot_be(key: str, value: float, copy: Path) -> None:
    """Law: NaN, infinity and a negative variance are refused, naming the statistic."""
    bent(copy, lambda statistics: getattr(statistics.obs_rms, key).__setitem__(1, value))
    if (key, value) == ("mean", -1.0):
        read(copy)
    else:
        refused_because(copy, f"obs_rms.{key}")


@pytest.mark.parametrize(
    ("name", "value"), [("epsilon", "x"), ("epsilon", -1.0), ("clip_obs", np.nan), ("clip_obs", None)]
)
def test_settings_that_cannot_be(name: str, value: Any, copy: Path) -> None:
    """Law: epsilon and clip_obs are positive numbers, or the statistics are refused."""
    bent(copy, lambda statistics: setattr(statistics, name, value))
    refused_because(copy, name)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x03\x04", b"\x80\x04N.", b"\x89PNG\r\n", b"\x08\x07", b"{}", bytes(100)]
)
def test_other_files(content: bytes, tmp_path: Path) -> None:
    """Law: a file of another kind is refused, whatever its name."""
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    refused_because(path, ".")


def test_a_torch_file_is_refused_by_name(tmp_path: Path) -> None:
    """Law: bare weights say that they are not enough."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.pt")
    refused_because(tmp_path / "model.pt", "is a PyTorch file")


@pytest.mark.parametrize("kind", [f"{a}{b}" for a in ("", "no ") for b in ("file", "folder")])
def test_paths_that_lead_nowhere(kind: str, tmp_path: Path) -> None:
    """Law: a missing path, an empty folder and a missing file of statistics are the user's errors: exit code 2."""
    path = {"file": tmp_path / "x.zip", "folder": tmp_path, "no file": tmp_path / "a" / "b", "no folder": Path("/")}[
        kind
    ]
    if kind == "file":
        path.write_bytes(b"x")
        with pytest.raises(RefusedError):
            read(path)
    else:
        with pytest.raises(UsageError):
            read(path)


# --- files harmed on the way ---


def outcome(path: Path, obs: np.ndarray) -> np.ndarray | None:
    """The actions of the agent in the file, or None where it is refused; any other exception fails the test."""
    try:
        return read(path).act(obs)
    except (RefusedError, UsageError):
        return None


def flips(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """`n` copies of `data`, each with one to three bytes changed."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        harmed = bytearray(data)
        for position in rng.integers(0, len(harmed), rng.integers(1, 4)):
            harmed[position] ^= rng.integers(1, 256)
        yield bytes(harmed)


def cuts(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """`n` beginnings of `data`."""
    rng = np.random.default_rng(seed)
    yield from (data[:length] for length in rng.integers(0, len(data), n))


@pytest.mark.parametrize(("harm", "n"), [(flips, 300), (cuts, 60)])
def test_a_damaged_zip(harm: Callable[..., Iterator[bytes]], n: int, copy: Path, teacher: Teacher) -> None:
    """Law: a zip with changed or missing bytes is refused, or (where they do not matter) read right: bit for bit."""
    obs = teacher.observations(20)
    expected, read_anyway = teacher.actions(obs), 0
    for data in harm(teacher.path.read_bytes(), n, 1):
        copy.write_bytes(data)
        actions = outcome(copy, obs)
        if actions is not None:
            read_anyway += 1
            np.testing.assert_array_equal(actions, expected)
    assert read_anyway < 0.9 * n


@pytest.mark.parametrize(("harm", "n"), [(flips, 300), (cuts, 60)])
def test_damaged_statistics(harm: Callable[..., Iterator[bytes]], n: int, copy: Path, teacher: Teacher) -> None:
    """Law: a damaged vecnormalize.pkl (it has no checksum) is refused, or read as finite numbers."""
    obs, path = teacher.observations(20), copy.with_name("vecnormalize.pkl")
    results = []
    for data in harm(path.read_bytes(), n, 2):
        path.write_bytes(data)
        results.append(outcome(copy, obs))
    assert all(np.isfinite(actions).all() for actions in results if actions is not None)
    assert sum(actions is None for actions in results) > n / 20


@pytest.mark.parametrize("member", ["data", "policy.pth"])
def test_a_zip_of_damaged_members(member: str, copy: Path, teacher: Teacher) -> None:
    """Law: with the checksums made right again, damage inside a member is still refused, or read as finite numbers."""
    obs, content = teacher.observations(20), members(teacher.path)
    for data in flips(content[member], 300, 3):
        actions = outcome(write(copy, {**content, member: data}), obs)
        assert actions is None or np.isfinite(actions).all()


@pytest.mark.parametrize("key", ["policy_class", "policy_kwargs", "observation_space", "action_space"])
def test_damaged_entries(key: str, copy: Path, teacher: Teacher) -> None:
    """Law: damage inside a pickled entry is refused, or read as a policy that acts."""
    obs, content = teacher.observations(20), members(teacher.path)
    pickled = base64.b64decode(json.loads(content["data"])[key][":serialized:"])
    for data in flips(pickled, 100, 4):
        write(copy, content)
        outcome(with_entry(copy, key, data), obs)


@pytest.mark.parametrize("harm", [flips, cuts])
def test_damaged_yaml(harm: Callable[..., Iterator[bytes]], copy: Path, teacher: Teacher) -> None:
    """Law: a damaged args.yml is refused, or read as other words; never another exception."""
    obs = teacher.observations(20)
    pairs = "- - - env\n    - Hopper-v3\n  - - env_kwargs\n    - {a: [1, 2]}\n"
    text = f"!!python/object/apply:collections.OrderedDict\n{pairs}"
    for data in harm(text.encode(), 150, 5):
        copy.with_name("args.yml").write_bytes(data)
        outcome(copy, obs)
