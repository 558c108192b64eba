"""A file of `torch.save`, read without torch's own reader: its pickle by `pickles`, its storages as checked bytes.

Both of torch's formats are read: a zip of `data.pkl` and one member a storage (since 1.6), and the older sequence of
pickles with the storages behind them. Names that rebuild tensors and numpy values are known; all others are refused.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli.checkpoints.safe import arrays
from kdcli.checkpoints.safe.allowlist import is_name
from kdcli.checkpoints.safe.arrays import Array, DType, MalformedError
from kdcli.checkpoints.safe.pickles import Dialect, decode, decode_next
from kdcli.checkpoints.safe.records import Global, Record
from kdcli.checkpoints.safe.zips import Members, open_zip
from kdcli.errors import RefusedError

MAX_FILE = 3 * 2**27  # bytes; reading takes some four times as much memory
# Tensors share memory where networks share layers; many more than the file holds are no checkpoint.
SHARING, FREE_BYTES = 8, 2**20
MAX_TENSORS = 3 * 2**28
MAX_AXES = 16
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DAMAGED = "copy it again; it may be damaged"

_STORAGES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
}


def read_torch(data: bytes, what: str, names: bool = False) -> Any:
    """What was saved: Python containers, numbers, texts, bytes, numpy arrays, CPU tensors; `what` names it in errors.

    An OrderedDict is a dict, a Parameter a tensor, a device its name, a dtype its name. With `names`, other names stay
    names, and what would be made of them stays a Record, arrays not yet numpy's, as in `pickles`.

    Raises:
        RefusedError: it is damaged, too large, or holds objects of other kinds.
    """
    if len(data) > MAX_FILE:
        raise RefusedError(f"{what} is too large", f"{len(data)} bytes, at most {MAX_FILE} are read")
    value = _read_zip(data, what, names) if data[:2] == b"PK" else _read_legacy(data, what, names)
    return value if names else _plain(value, what)


def _read_zip(data: bytes, what: str, names: bool) -> Any:
    with open_zip(data, what) as members:
        found = [name for name in members.names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise RefusedError(f"{what} is not a file of torch.save", "it has no data.pkl, or several", "")
        if members.unpacked > 2 * len(data) + FREE_BYTES:  # torch does not compress
            raise RefusedError(f"{what} is too large", f"{len(data)} bytes unpack to {members.unpacked}")
        prefix = found[0].removesuffix("data.pkl")
        if f"{prefix}byteorder" in members.names and members.read(f"{prefix}byteorder", 16) != b"little":
            raise RefusedError(f"{what} was written on a machine of another byte order", "kdcli reads little-endian")
        storages = _Storages(len(data), partial(_zipped, members, prefix))
        return decode(members.read(found[0]), what, storages.dialect(names))


def _zipped(members: Members, prefix: str, key: str, n_bytes: int) -> bytearray:
    return bytearray(members.read(f"{prefix}data/{key}", n_bytes))


def _read_legacy(data: bytes, what: str, names: bool) -> Any:
    """Magic number, protocol, system, object, keys of the storages, then of each its length and bytes."""
    stream = io.BytesIO(data)
    if not data.startswith(b"\x80") or decode_next(stream, what) != _MAGIC:
        raise RefusedError(f"{what} is not a file of torch.save", "it has none of torch's marks", "")
    version, system = decode_next(stream, what), decode_next(stream, what)
    if version != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError(f"{what} was written by a torch that kdcli does not read", "", "save it again with torch 2")
    storages = _Storages(len(data), lambda _, n_bytes: bytearray(n_bytes))
    value = decode_next(stream, what, storages.dialect(names))
    keys = decode_next(stream, what)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise RefusedError(f"{what} is damaged", "it does not list its storages", _DAMAGED)
    for key in keys:
        storages.fill(key, stream, what)
    if storages.missing or stream.read(1):
        raise RefusedError(f"{what} is damaged", "its storages are not those it lists", _DAMAGED)
    return value


class _Storages:
    """The memory behind the tensors of one file of `size` bytes; `load(key, n_bytes)` gives that of one storage."""

    def __init__(self, size: int, load: Callable[[str, int], bytearray]) -> None:
        self._load = load
        self._memory: dict[str, bytearray] = {}
        self._flat: dict[str, Tensor] = {}
        self.missing: set[str] = set()
        self._unclaimed = size
        self._budget = min(SHARING * size + FREE_BYTES, MAX_TENSORS)

    def dialect(self, names: bool = False) -> Dialect:
        """The names a file of torch.save may mention, or with `names` any; those of tensors bound to this memory."""
        builders = {
            **_BUILDERS,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
        }
        known = builders.keys() | _NAMES

        def is_allowed(module: str, name: str) -> bool:
            return f"{module}.{name}" in known

        return Dialect(is_name if names else is_allowed, builders, _READS, _FIX, self._storage)

    def _storage(self, identity: Any) -> Tensor:
        """All of one storage (N,): ("storage", its type, key, device, N), and None in the older format."""
        match identity:
            case ("storage", Global() as kind, str() as key, str(), int() as n) | (
                "storage",
                Global() as kind,
                str() as key,
                str(),
                int() as n,
                None,
            ):
                dtype = _STORAGES.get(str(kind))
            case _:
                raise MalformedError("it refers to something that is not a storage")
        if dtype is None or n < 0:
            raise MalformedError(f"a storage of kind {kind} and length {n}")
        if key not in self._flat:
            self._flat[key] = self._claim(key, n, dtype)
        if self._flat[key].dtype != dtype or len(self._flat[key]) != n:
            raise MalformedError("a storage of two kinds")
        return self._flat[key]

    def _claim(self, key: str, n: int, dtype: torch.dtype) -> Tensor:
        n_bytes = n * dtype.itemsize
        self._unclaimed -= n_bytes
        if self._unclaimed < 0:
            raise MalformedError("its tensors have more bytes than the file")
        memory = self._memory[key] = self._load(key, n_bytes)
        if len(memory) != n_bytes:
            raise MalformedError(f"a storage of {len(memory)} bytes, not {n_bytes}")
        self.missing.add(key)
        if dtype == torch.bool and memory.strip(b"\x00\x01"):
            raise MalformedError("truth values that are neither 0 nor 1")
        return torch.frombuffer(memory, dtype=dtype) if n else torch.empty(0, dtype=dtype)

    def fill(self, key: str, stream: io.BytesIO, what: str) -> None:
        """Take the content of one storage from the stream: its length, then its bytes."""
        n = int.from_bytes(stream.read(8), "little")
        if key not in self.missing or n != len(self._flat[key]):
            raise RefusedError(f"{what} is damaged", "a storage's length is not the one its tensors tell", _DAMAGED)
        memory = self._memory[key]
        if stream.readinto(memory) != len(memory):
            raise RefusedError(f"{what} is damaged", "it ends in the middle", _DAMAGED)
        if self._flat[key].dtype == torch.bool and memory.strip(b"\x00\x01"):
            raise RefusedError(f"{what} is damaged", "truth values that are neither 0 nor 1", _DAMAGED)
        self.missing.remove(key)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        """`torch._utils._rebuild_tensor_v2`: a view of a storage, whose elements are all in it."""
        if not isinstance(storage, Tensor) or not all(map(_is_shape, ((offset,), size, stride))):
            raise MalformedError("a tensor of an impossible shape")
        if len(size) != len(stride) or prod(size) > storage.numel():
            raise MalformedError(f"a tensor of shape {size} in a storage of {storage.numel()} numbers")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if prod(size) and last >= storage.numel():
            raise MalformedError(f"a tensor of shape {size} that ends after its storage")
        self._budget -= prod(size) * storage.itemsize
        if self._budget < 0:
            raise MalformedError("its tensors repeat the same bytes again and again")
        return storage.as_strided(size, stride, offset)


def _is_shape(value: Any) -> bool:
    whole = isinstance(value, tuple) and len(value) <= MAX_AXES
    return whole and all(type(n) is int and 0 <= n < MAX_FILE for n in value)


_READS = "kdcli runs no code from a file and reads only tensors, numbers, texts and containers of them"
_FIX = "save the state dict alone: torch.save(model.state_dict(), path)"


def _parameter(data: Any, *_: Any) -> Tensor:
    """`torch._utils._rebuild_parameter(data, requires_grad, hooks)`."""
    if not isinstance(data, Tensor):
        raise MalformedError("a parameter that is not a tensor")
    return data


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """`_codecs.encode(text, "latin1")`, which is how bytes were written before pickle had an opcode for them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise MalformedError("bytes that are no bytes")
    return text.encode("latin1")


def _device(kind: Any, index: Any = None) -> str:
    """`torch.device(kind, index)`, as its name."""
    return str(kind)[:20] if index is None else f"{str(kind)[:20]}:{str(index)[:20]}"


def _size(sizes: Any = ()) -> tuple[int, ...]:
    """`torch.Size(sizes)`."""
    if not isinstance(sizes, tuple | list) or not _is_shape(tuple(sizes)):
        raise MalformedError("an impossible shape")
    return tuple(sizes)


def _set(items: Sequence[Any] = ()) -> set[Any]:
    """`set(items)`, of names and small numbers."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) or type(item) is int for item in items):
        raise MalformedError("a set of other things than names")
    return set(items)


def _dict() -> dict[Any, Any]:
    """`OrderedDict()`; its items follow."""
    return {}


_BUILDERS: dict[str, Callable[..., Any]] = {
    "__builtin__.bytes": lambda: b"",
    "__builtin__.set": _set,
    "_codecs.encode": _bytes,
    "collections.OrderedDict": _dict,
    "torch.Size": _size,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.device": _device,
    **arrays.BUILDERS,
}
_DTYPES = {str(dtype) for dtype in _STORAGES.values()}
_NAMES = {"numpy.ndarray", *_STORAGES, *_DTYPES}


def _plain(value: Any, what: str) -> Any:
    """The value with numpy arrays and names of dtypes in the place of what stood for them."""
    match value:
        case dict():
            return {_plain(key, what): _plain(item, what) for key, item in value.items()}
        case list():
            return [_plain(item, what) for item in value]
        case tuple():
            return tuple(_plain(item, what) for item in value)
        case Array(value=np.ndarray() as array):
            return array
        case Global() if str(value) in _DTYPES:
            return str(value)
        case Array() | DType() | Global() | Record():
            raise RefusedError(f"{what} cannot be read", "it holds a name or an array without content", _DAMAGED)
    return value
