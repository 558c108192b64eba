"""What a file may ask of this machine: of envs and wrappers, of memory; and what is said where memory runs out."""

from __future__ import annotations

import io
import resource
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_teachers import choose_teacher

from kdcli.agents import store
from kdcli.checkpoints.read import whatever_it_says
from kdcli.checkpoints.safe.zips import open_zip
from kdcli.cli import commands
from kdcli.cli.console import Console
from kdcli.cli.main import main
from kdcli.envs.make import make
from kdcli.errors import RefusedError, UsageError, out_of_memory
from kdcli.guard import within_memory
from kdcli.spec import EnvSpec

SEE = "kdcli/See-v0"
SAMPLE = Path(__file__).parents[2] / "sample_checkpoints/ppo/CartPole-v1_1/CartPole-v1.zip"
EXCESSES = {
    "5,000 wrappers": EnvSpec(SEE, {}, ("channels-first",) * 5000),
    "a skip": EnvSpec(SEE, {}, ("frame-skip:999999999",)),
    "skips of skips": EnvSpec(SEE, {}, ("frame-skip:100",) * 3),
    "atari's skip": EnvSpec(SEE, {}, ("atari:84,skip=99999",)),
    "a wrapper of a book": EnvSpec(SEE, {}, ("pad:" + "1" * 10_000,)),
    "a large image": EnvSpec(SEE, {"size": 60_000}),
    "an image of 25 million": EnvSpec(SEE, {"size": 5_000}),
    "a larger one": EnvSpec(SEE, {"size": 10**30}),
    "a number inside": EnvSpec(SEE, {"config": {"shape": [1, 10**7]}}),
    "arguments": EnvSpec(SEE, {"seeds": list(range(2000))}),
    "frames of frames": EnvSpec(SEE, {}, ("frame-stack:64",) * 5),
    "an endless episode": EnvSpec(SEE, {}, (), 10**9),
}


def _run(*words: str) -> tuple[int, list[str]]:
    err = io.StringIO()
    code = main([*words, "--quiet"], Console(io.StringIO(), err))
    return int(code), err.getvalue().splitlines()


@pytest.mark.parametrize("name", EXCESSES)
def test_a_file_asks_for_little(name: str) -> None:
    """Law: an env from a file that asks for too much is refused before it takes time or memory, with the way to ask."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError) as refused:
        make(replace(EXCESSES[name], quoted=True))
    assert "a file may not ask" in refused.value.why
    assert f"--env {SEE}" in refused.value.fix
    assert time.monotonic() - began < 20.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**21  # kilobytes
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_what_the_user_asks_for_is_made() -> None:
    """Law: the ceilings are for files: what is said on the command line is made, and so is a usual env in a file."""
    make(EnvSpec(SEE, {"size": 40}, ("frame-skip:2000",), 10**9)).close()
    make(EnvSpec(SEE, {"size": 40}, ("frame-skip:4", "frame-stack:4"), 5000, quoted=True)).close()


def test_the_advice_works(tmp_path: Path) -> None:
    """Law: the words that the refusal names make the env."""
    agent = replace(choose_teacher(8), env=EnvSpec("kdcli/Choose-v0", {}, ("frame-skip:2000",)))
    file = store.save(tmp_path / "a.safetensors", agent, {})
    code, told = _run("bench", str(file), "--episodes", "2", "--latency-budget", "0s", "--no-baselines")
    assert (code, len(told)) == (2, 3)
    words = shlex.split(told[2].partition("yourself: ")[2])
    code, told = _run("bench", str(file), "--episodes", "2", "--latency-budget", "0s", "--no-baselines", *words)
    assert code == 0, told


@pytest.mark.parametrize(
    "data",
    [
        {"id": ["CartPole-v1"]},
        {"id": None},
        {},
        [],
        "CartPole-v1",
        {"id": "x", "wrappers": "flatten"},
        {"id": "x", "wrappers": [1]},
        {"id": "x", "kwargs": []},
        {"id": "x", "max_steps": "many"},
        {"id": "x", "max_steps": True},
        {"id": "x", "max_steps": -1},
    ],
    ids=str,
)
def test_an_env_is_text_and_numbers(data: object) -> None:
    """Law: an env in a file whose values are of another kind is refused where it is read."""
    with pytest.raises(RefusedError, match="describes an env that cannot be read"):
        EnvSpec.from_json(data)  # type: ignore[arg-type]


def _wide_zip(path: Path, arch: dict[str, list[int]]) -> Path:
    """The sample of CartPole, its policy said to be of other layers than it has."""
    import base64
    import json
    import pickle
    import zipfile

    with zipfile.ZipFile(SAMPLE) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                data = json.loads(content)
                entry = base64.b64encode(pickle.dumps({"net_arch": arch})).decode()
                content = json.dumps({**data, "policy_kwargs": {":type:": "dict", ":serialized:": entry}}).encode()
            target.writestr(name, content)
    return path


def test_no_runtime_builds_more_than_there_is(tmp_path: Path) -> None:
    """Law: a policy that is said to be thousands of times its weights is not built for a benchmark."""
    file = _wide_zip(tmp_path / "a.zip", {"pi": [64, 64], "vf": [30_000, 30_000]})
    began = time.monotonic()
    words = "--runtimes sb3 --episodes 2 --latency-budget 0.01s --no-baselines --env CartPole-v1"
    err = io.StringIO()
    code = main(["bench", str(file), *words.split()], Console(io.StringIO(), err))
    assert code == 2  # the only runtime asked for times nobody
    assert "larger than the weights" in err.getvalue(), err.getvalue()
    assert time.monotonic() - began < 60.0


def _python() -> None:
    raise MemoryError("Unable to allocate 13.4 GiB for an array with shape (60000, 60000)")


def _torch() -> None:
    torch.empty(2**60)


def _zip() -> None:
    with open_zip(SAMPLE):
        _python()


def _reader() -> None:
    with whatever_it_says(Path("policy.zip")):
        _torch()


def _chained() -> None:
    try:
        _torch()
    except RuntimeError as error:
        raise RefusedError("policy.zip cannot be read", str(error), "copy it again") from None


@pytest.mark.parametrize("starved", [_python, _torch, _zip, _reader, _chained])
def test_memory_is_not_the_file_s_fault(starved: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: where memory runs out, however deep and whoever explained it, that is said, with exit code 2."""

    def run(words: object, console: Console) -> int:
        starved()
        return 0

    monkeypatch.setattr(commands, "run", run)
    code, told = _run("inspect", "policy.zip")
    assert code == 2
    assert told[0] == "kdcli: out of memory"
    assert "copy it again" not in "".join(told)
    assert len(told) == 3


def test_a_bound_on_memory() -> None:
    """Law: work within a bound is refused in the given words where it asks for more, and other errors pass."""
    refusal = RefusedError("too much")
    with pytest.raises(RefusedError, match="too much") as refused, within_memory(2**28, refusal):
        torch.empty(2**32)
    assert out_of_memory(refused.value) is None
    with pytest.raises(ValueError, match="other"), within_memory(2**28, refusal):
        raise ValueError("other")
    with within_memory(2**28, refusal):
        assert len(bytearray(2**20)) == 2**20
