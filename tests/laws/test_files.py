"""Files that are opened: regular ones only, of a size looked at first, whichever option names them."""

from __future__ import annotations

import ast
import io
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_teachers import choose_teacher

from kdcli import artifact, files
from kdcli.agents import store
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.datasets import Dataset
from kdcli.errors import KdcliError, RefusedError, UsageError
from kdcli.toml_config import read_toml

REPO = Path(__file__).parents[2]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _huge(path: Path) -> None:
    with path.open("wb") as handle:
        handle.write(b'{"trunk": [')
        handle.truncate(6 * 2**30)


ODD: dict[str, Callable[[Path], None]] = {"pipe": _pipe, "device": _device, "socket": _socket, "huge": _huge}
# Every option and place that names a file: the words of a command, and the file they name or look for.
PLACES = {
    "checkpoint": ("inspect X", "X"),
    "checkpoint to distill": ("distill X -o out.safetensors", "X"),
    "further teacher": ("distill t.safetensors --also X -o out.safetensors", "X"),
    "teachers of tasks": ("distill-many t.safetensors X -o out", "X"),
    "agent to export": ("export X -o out.onnx", "X"),
    "agents to bench": ("bench t.safetensors X", "X"),
    "reference": ("bench t.safetensors --reference X", "X"),
    "agent to prune": ("prune X -o out.safetensors --lossless", "X"),
    "agent to quantize": ("quantize X -o out.safetensors", "X"),
    "agent to compress": ("compress X -o out", "X"),
    "agent to record": ("rollout X -o out", "X"),
    "recipe": ("run X -o out", "X"),
    "recipe to check": ("recipes check X", "X"),
    "recipe to show": ("recipes show X", "X"),
    "recipe to copy": ("recipes copy X -o out.toml", "X"),
    "study": ("study X -o out", "X"),
    "statistics": ("inspect w.pt --obs-stats X --activation tanh --env CartPole-v1", "X"),
    "statistics of a zip": ("inspect sb3.zip --vecnormalize X", "X"),
    "card": ("inspect w.pt", "w.json"),
    "manifest": ("distill t.safetensors --dataset data -o out.safetensors", "data/manifest.json"),
    "manifest to go on": ("rollout t.safetensors -o data --steps 10", "data/manifest.json"),
    "run to go on": ("run r.toml -o ran", "ran/recipe.json"),
}
RECIPE = 'about = "x"\n[[step]]\ndo = "load"\npath = "t.safetensors"\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an agent, weights without a card, and the folders of a dataset and a run."""
    import torch

    monkeypatch.chdir(tmp_path)
    store.save(tmp_path / "t.safetensors", choose_teacher(8), {})
    sizes = {"0": (8, 4), "2": (8, 8), "4": (2, 8)}
    layers = {f"{head}.{n}": torch.zeros(size) for head in ("actor", "critic") for n, size in sizes.items()}
    state = {f"{name}.weight": weight for name, weight in layers.items()}
    torch.save({**state, **{f"{name}.bias": torch.zeros(len(w)) for name, w in layers.items()}}, tmp_path / "w.pt")
    sample = REPO / "sample_checkpoints/ppo/CartPole-v1_1/CartPole-v1.zip"
    (tmp_path / "sb3.zip").write_bytes(sample.read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "ran").mkdir()
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("named", PLACES)
def test_only_regular_files_are_read(named: str, odd: str, place: Path) -> None:
    """Law: a pipe, a device, a socket or a file of gigabytes is refused at once, whichever option names it."""
    words, file = PLACES[named]
    ODD[odd](place / file)
    err, began = io.StringIO(), time.monotonic()
    code = main([*words.split(), "--quiet"], Console(io.StringIO(), err))
    told = err.getvalue().splitlines()
    assert (code, len(told)) in {(4, 2), (4, 3), (2, 3)}, told
    assert time.monotonic() - began < 60.0  # imports included; a pipe or a device would take for ever
    assert Path(file).name in told[0]


def test_what_is_read_is_what_was_looked_at(tmp_path: Path) -> None:
    """Law: a file has at most the bytes asked for, also where it tells another size; a folder is no file."""
    (tmp_path / "x").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(RefusedError, match="too large"):
        files.read_bytes(tmp_path / "x", 4)
    with pytest.raises(RefusedError, match="too large"):
        files.read_bytes(Path("/proc/self/maps"), 100)  # tells 0 bytes
    with pytest.raises(UsageError, match="is a folder"):
        files.read_bytes(tmp_path)
    for missing in (tmp_path / "y", Path("a\0b"), tmp_path / "x" / "z"):
        with pytest.raises(UsageError, match="cannot read"):
            files.read_bytes(missing)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65])
def test_json_is_as_deep_as_the_product_writes_it(text: str) -> None:
    """Law: JSON nested deeper than any record is refused, however Python's own reader ends."""
    with pytest.raises(RefusedError, match="nested too deeply"):
        files.parse_json(text, "x")
    assert files.parse_json("[" * 64 + "]" * 64, "x")


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 100_000) + " = 1",
        f"x = {{{'.'.join(['a'] * 100_000)} = 1}}",
        "\n".join(f"a{n}.b.c = 1" for n in range(100_000)),
        "a = " + "{a = " * 30_000 + "1" + "}" * 30_000,
        "a = " + "[" * 30_000 + "]" * 30_000,
    ],
    ids=["one long key", "a long key inside", "many keys", "tables", "lists"],
)
def test_toml_takes_no_time(text: str, tmp_path: Path) -> None:
    """Law: TOML made to take the square of its length, or to be nested without end, is refused at once."""
    (tmp_path / "x.toml").write_text(text)
    began = time.monotonic()
    with pytest.raises(KdcliError) as refused:
        read_toml(tmp_path / "x.toml")
    assert "x.toml" in refused.value.what
    assert time.monotonic() - began < 2.0


def test_a_dataset_of_a_huge_manifest(tmp_path: Path) -> None:
    """Law: a manifest that is sparse gigabytes is refused before it is read."""
    _huge(tmp_path / "manifest.json")
    with pytest.raises(RefusedError, match="too large"):
        Dataset.open(tmp_path)


# Ways to open a file, and where they are not of a file that is given: what for.
_WAYS = {"read_bytes", "read_text", "memmap", "ZipFile", "safe_open", "load_file", "fromfile", "genfromtxt"}
_ELSEWHERE = {
    "kdcli.artifact": "flushes what was written",
    "kdcli.locks": "locks",
    "kdcli.cli.console": "the null device",
    "kdcli.agents.onnx.sandbox": "figures of this process",
    "kdcli.guard": "figures of this process",
    "kdcli.benchmarks.machine": "figures of this machine",
    "kdcli.exporters.numpy.template": "a page for other machines",
    "kdcli.exporters.numpy.writer": "its own page, and zips in memory",
    "kdcli.exporters.torch.programs": "zips in memory",
    "kdcli.checkpoints.safe.zips": "of an open file",
    "kdcli.datasets.shards": "of an open file",
}
_OURS = {"read_bytes", "read_text"}  # also the names of the functions of `kdcli.files`


def openings(path: Path) -> list[int]:
    """Lines that open a file for reading otherwise than through `kdcli.files`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id="open")):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="open", value=ast.Name(id="os"))):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="open"), args=[ast.Constant(value=str())]):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr="load", value=ast.Name(id="np"))):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr=way)) if way in _WAYS:
                found.append(node.lineno)
            case ast.Call(func=ast.Name(id=way)) if way in _WAYS - _OURS:
                found.append(node.lineno)
    return found


def test_files_are_opened_in_one_place() -> None:
    """Law: no module opens a file that it is given but through `kdcli.files`; the others say why they open one."""
    found = {}
    for path in sorted((REPO / "kdcli").rglob("*.py")):
        name = ".".join(path.relative_to(REPO).with_suffix("").parts)
        if name != "kdcli.files" and (lines := openings(path)):
            found[name] = lines
    assert found.keys() - _ELSEWHERE.keys() == set(), found
    assert _ELSEWHERE.keys() - found.keys() == set()


def test_digests_are_of_regular_files(tmp_path: Path) -> None:
    """Law: the digest of a pipe is refused, too, and does not wait."""
    _pipe(tmp_path / "x")
    with pytest.raises(RefusedError, match="named pipe"):
        artifact.sha256(tmp_path / "x")
    (tmp_path / "y").write_text(json.dumps({}))
    assert len(artifact.sha256(tmp_path / "y")) == 64
