"""Files of torch.save by kdcli's own reader: what torch reads, read the same; what lies about itself, refused."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcli.checkpoints.safe.torch_files import read_torch
from kdcli.errors import RefusedError

MODEL = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
ADAM = torch.optim.Adam(MODEL.parameters())
MODEL(torch.ones(1, 3)).sum().backward()
ADAM.step()
DTYPES = ["bfloat16", "bool", "uint8", "int8", "float64", "float32", "float16", "int32", "int64", "int16"]
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def saved(value: Any, new: bool) -> bytes:
    """The bytes torch.save writes, in its new or its old format."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def same(found: Any, wanted: Any) -> bool:
    """Whether two nested values are equal, tensors in dtype, shape and every bit."""
    if isinstance(wanted, torch.Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    return type(found) is type(wanted) and found == wanted


@FORMATS
@pytest.mark.parametrize(
    "value",
    [
        MODEL.state_dict(),
        {"model": MODEL.state_dict(), "optimizer": ADAM.state_dict(), "iter": 500, "infos": None},
        (OrderedDict(a=torch.ones(2)), {"b": torch.zeros(0)}, [1, 2.5, "text", True, b"bytes", b""]),
        {"scalar": torch.tensor(3.0), "turned": torch.arange(6.0).reshape(2, 3).t(), "part": torch.arange(9)[3:7:2]},
        {name: torch.tensor([0, 1, 1]).to(getattr(torch, name)) for name in DTYPES},
    ],
)
def test_it_reads_what_torch_reads(value: Any, new: bool) -> None:
    """Law: containers, numbers, texts and tensors of any dtype and stride are those that torch's own reader gives."""
    data = saved(value, new)
    assert same(read_torch(data, "x"), torch.load(io.BytesIO(data), weights_only=False))


@FORMATS
def test_other_things_become_plain(new: bool) -> None:
    """Law: parameters are tensors, numpy scalars numbers, devices and dtypes names, sizes tuples."""
    value = [torch.nn.Parameter(torch.ones(2)), np.float32(0.5), np.int64(-3), np.arange(4.0), {"a", "b"}]
    found = read_torch(saved([*value, torch.device("cuda:1"), torch.float32, torch.Size([2, 3])], new), "x")
    assert type(found[0]) is torch.Tensor
    assert found[1:3] == [0.5, -3]
    np.testing.assert_array_equal(found[3], np.arange(4.0))
    assert found[4:] == [{"a", "b"}, "cuda:1", "torch.float32", (2, 3)]


def test_shared_memory_stays_shared() -> None:
    """Law: tensors that share storage in the file share it afterwards, so that they are counted once."""
    tensor = torch.arange(6.0)
    found = read_torch(saved({"all": tensor, "end": tensor[3:]}, True), "x")
    assert found["end"].data_ptr() == found["all"].data_ptr() + 12


@FORMATS
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (MODEL, r"torch\.nn\.modules\.container\.Sequential"),
        ({"args": argparse.Namespace(a=1)}, r"argparse\.Namespace"),
        ({"path": Path("x")}, r"pathlib\."),
        ({"z": torch.zeros(2, dtype=torch.complex64)}, r"torch\.ComplexFloatStorage"),
        ({"s": torch.eye(2).to_sparse()}, r"torch\._utils\._rebuild_sparse_tensor"),
        ({"m": torch.empty(10**13, device="meta")}, r"torch\._utils\._rebuild_meta_tensor_no_storage"),
        ({"u": torch.zeros(2, dtype=torch.uint16)}, r"torch\._utils\._rebuild_tensor_v3"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_objects_are_refused_by_name(value: Any, name: str, new: bool) -> None:
    """Law: what is not plain data or a plain tensor is refused, naming the class."""
    with pytest.raises(RefusedError, match=f"model.pt asks for {name}") as caught:
        read_torch(saved(value, new), "model.pt")
    assert "state_dict" in caught.value.fix


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@FORMATS
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, "touch hacked"), "posix.system"),
        (Calls(torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
        (Calls(torch.load, "x"), "torch.serialization.load"),
        (Calls(getattr, "a", "b"), "__builtin__.getattr"),
        (Calls(torch._utils._rebuild_device_tensor_from_numpy, 1, 2), "torch._utils._rebuild_device_tensor"),
    ],
)
def test_calls_are_refused(call: Calls, name: str, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: no function is called but those that rebuild tensors and numbers, which are kdcli's own."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match=f"asks for {name}"):
        read_torch(saved({"weight": call}, new), "x")
    assert not list(tmp_path.iterdir())


class Rebuilt:
    """Pickles as a tensor rebuilt over a real storage with an offset, a size and a stride of one's own choice."""

    def __init__(self, offset: Any, size: Any, stride: Any) -> None:
        self.storage = torch.arange(8.0).storage()
        self.args = offset, size, stride, False, OrderedDict()

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, (self.storage, *self.args)


@FORMATS
@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (9,), (1,)),
        (1, (8,), (1,)),
        (8, (1,), (1,)),
        (-1, (2,), (1,)),
        (2**62, (2,), (2**62,)),
        (0, (9,), (0,)),
        (0, (2**40,), (0,)),
        (0, (2, 2**40), (1, 0)),
        (0, (2, 2), (2**62, 2**62)),
        (7, (2,), (-1,)),
        (0, (-1, -8), (1, 1)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, [2], [1]),
        (0, (1,) * 40, (1,) * 40),
        ("0", (1,), (1,)),
    ],
)
def test_views_that_lie(offset: Any, size: Any, stride: Any, new: bool) -> None:
    """Law: a tensor whose elements are not all in its storage, or more than its storage has, is refused."""
    with pytest.raises(RefusedError, match="cannot be read"):
        read_torch(saved(Rebuilt(offset, size, stride), new), "x")
    kept = read_torch(saved(Rebuilt(2, (2, 3), (3, 1)), new), "x")
    assert kept.tolist() == [[2, 3, 4], [5, 6, 7]]


def repacked(value: Any, change: Callable[[dict[str, bytes]], Any]) -> bytes:
    """A torch zip of `value` with its members changed, checksums right again."""
    with zipfile.ZipFile(io.BytesIO(saved(value, True))) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.pop("archive/data/0"), "has no member"),
        (lambda c: c.update({"archive/data/0": b"123"}), "a storage of 3 bytes"),
        (lambda c: c.update({"archive/data/0": bytes(20)}), "too large"),
        (lambda c: c.update({"archive/byteorder": b"big"}), "another byte order"),
        (lambda c: c.pop("archive/data.pkl"), "no data.pkl"),
        (lambda c: c.update({"b/data.pkl": b""}), "or several"),
        (lambda c: c.update({"archive/data.pkl": pickle.dumps(1) + b"x"}), "follows its end"),
    ],
)
def test_members_that_do_not_fit(change: Callable[..., Any], why: str) -> None:
    """Law: every storage has the length that its tensors tell, and there is one object in the file."""
    with pytest.raises(RefusedError) as caught:
        read_torch(repacked(torch.ones(4), change), "x")
    assert why in " ".join(caught.value.lines())


def test_truth_values() -> None:
    """Law: bytes other than 0 and 1 are no truth values, in either format."""
    for data in (
        repacked(torch.tensor([True]), lambda c: c.update({"archive/data/0": b"\x02"})),
        saved(torch.tensor([True]), False)[:-1] + b"\x02",
    ):
        with pytest.raises(RefusedError, match="x"):
            read_torch(data, "x")


def test_the_same_bytes_again_and_again() -> None:
    """Law: a small file cannot be made into gigabytes of tensors, although tensors may share storage."""
    tensor = torch.zeros(2**18)
    with pytest.raises(RefusedError) as caught:
        read_torch(saved([tensor.view(-1) for _ in range(3000)], True), "x")
    assert "again and again" in caught.value.why
    assert len(read_torch(saved([tensor] * 5, True), "x")) == 5


@FORMATS
def test_any_cut_is_refused(new: bool) -> None:
    """Law: a file that ends early is refused, wherever it ends."""
    data = saved({"a": torch.ones(5), "b": [1, "x"]}, new)
    for length in range(0, len(data), 7):
        with pytest.raises(RefusedError):
            read_torch(data[:length], "x")


@FORMATS
def test_flips_are_refused_or_read(new: bool) -> None:
    """Law: 1,500 damaged files are refused or read, and nothing else happens; a zip that is read is read right."""
    rng, value = np.random.default_rng(5), {"a": torch.arange(5.0), "b": [1, "x"], "c": torch.ones(2, 3).t()}
    source = saved(value, new)
    for _ in range(1500):
        data = bytearray(source)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] ^= rng.integers(1, 256)
        try:
            found = read_torch(bytes(data), "x")
        except RefusedError:
            continue
        assert not new or same(found, value)
