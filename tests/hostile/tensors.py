"""State dicts that are not what a policy's are: other numbers, dtypes, shapes, names; views that lie."""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from cases import Case, Law, of_main
from pickled import call, name, text, whole
from seeds import Seed
from torch import Tensor
from zipped import members, rezipped

State = dict[str, Any]
WEIGHTS = "policy.pth"
TORCH = ("zip", "torch", "legacy", "pickle")


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every harm in the weights of every seed that torch wrote, in torch's new format, and some in the old one."""
    for seed in seeds.values():
        if seed.family in TORCH:
            yield from _of(seed)


def _of(seed: Seed) -> Iterator[Case]:
    for law, table in ((Law.REFUSED, WRONG), (Law.RIGHT, ODD), (Law.SAFE, OTHER), (Law.LOADS, EQUAL)):
        for title, change in table.items():
            old = seed.family == "legacy"
            yield of_main(seed, "tensor", title, lambda change=change, old=old: edited(seed, change, old), law)
    for title, change in list(WRONG.items())[::4]:
        yield of_main(seed, "tensor", f"legacy {title}", lambda change=change: edited(seed, change, legacy=True))
    for title, made in views().items():
        yield of_main(seed, "view", title, lambda made=made: with_weights(seed, made), Law.REFUSED)


def weights(seed: Seed) -> bytes:
    """The torch file with the weights: a member of the zip, a value of d3rlpy's pickle, or the seed itself."""
    if seed.family == "pickle":
        return pickle.loads(seed.data)["torch"]
    return members(seed.data)[WEIGHTS] if seed.family == "zip" else seed.data


def with_weights(seed: Seed, data: bytes) -> bytes:
    """The seed with another torch file in that place."""
    if seed.family == "pickle":
        return pickle.dumps({**pickle.loads(seed.data), "torch": data})
    return rezipped({**members(seed.data), WEIGHTS: data}) if seed.family == "zip" else data


def edited(seed: Seed, change: Callable[[State], Any], legacy: bool = False) -> bytes:
    """The seed with its state dict changed, saved by torch itself."""
    content = torch.load(io.BytesIO(weights(seed)), weights_only=True)
    found = state_dict(content)
    assert found is not None, f"{seed.format} has no state dict"
    changed = change(dict(found))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(_replaced(content, found, changed), buffer, _use_new_zipfile_serialization=not legacy)
    return with_weights(seed, buffer.getvalue())


def state_dict(content: Any) -> State | None:
    """The first dictionary of tensors inside."""
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    inside = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return next((found for item in inside if (found := state_dict(item)) is not None), None)


def _replaced(content: Any, old: State, new: Any) -> Any:
    if content is old:
        return new
    if isinstance(content, dict):
        return {key: _replaced(value, old, new) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_replaced(value, old, new) for value in content)
    return content


def each(change: Callable[[Tensor], Any]) -> Callable[[State], State]:
    """Every tensor changed."""
    return lambda state: {key: change(tensor) for key, tensor in state.items()}


def one(change: Callable[[Tensor], Any]) -> Callable[[State], State]:
    """The largest tensor changed, which the policy cannot do without."""

    def apply(state: State) -> State:
        actor = [
            key for key in state if "critic" not in key and "value" not in key and "_vf" not in key and "vf_" not in key
        ]
        key = max(actor or state, key=lambda key: state[key].numel())
        return {**state, key: change(state[key])}

    return apply


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.reshape(-1)[0] = value
        return tensor

    return change


def _renamed(new: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {new(key): tensor for key, tensor in state.items()}


WRONG: dict[str, Callable[[State], Any]] = {
    "NaN": one(_with(math.nan)),
    "infinity": one(_with(math.inf)),
    "minus infinity": one(_with(-math.inf)),
    "all NaN": each(lambda t: t * math.nan),
    "int64": one(lambda t: t.to(torch.int64)),
    "bool": one(lambda t: t.bool()),
    "complex": one(lambda t: t.to(torch.complex64)),
    "uint16": one(lambda t: t.to(torch.uint16)),
    "float8": one(lambda t: t.to(torch.float8_e4m3fn)),
    "quantized": one(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
    "sparse": one(lambda t: t.to_sparse()),
    "sparse rows": one(lambda t: t.reshape(1, -1).to_sparse_csr()),
    "meta": one(lambda t: t.to("meta")),
    "meta of terabytes": one(lambda t: torch.empty(2**42, 4, device="meta")),
    "broadcast": one(lambda t: torch.zeros(1).expand(t.shape)),
    "broadcast to terabytes": one(lambda t: torch.zeros(1, 1).expand(2**21, 2**21)),
    "one row more": one(lambda t: torch.cat([t, t[:1]])),
    "one axis more": one(lambda t: t[None]),
    "flat": one(lambda t: t.reshape(-1)),
    "no numbers": one(lambda t: t[:0]),
    "a single number": one(lambda t: t.reshape(-1)[0]),
    "another axis order": one(lambda t: t.t() if t.ndim == 2 and t.shape[0] != t.shape[1] else t[None]),
    "40 axes": one(lambda t: t.reshape(-1)[:1].reshape((1,) * 40)),
    "a number for a tensor": one(lambda t: 3.5),
    "a text for a tensor": one(lambda t: "weights"),
    "nothing for a tensor": one(lambda t: None),
    "a list for a tensor": one(lambda t: t.tolist()),
    "an array for a tensor": one(lambda t: t.numpy()),
    "a tensor missing": lambda state: dict(list(state.items())[1:]),
    "all tensors missing": lambda state: {},
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "other names": _renamed(lambda key: f"x{key}"),
    "names that lead elsewhere": _renamed(lambda key: f"../../{key}"),
    "names with escapes": _renamed(lambda key: f"\x1b[31m\x1b]0;hacked\x07{key}\r\nkdcli: all is well"),
    "names of a megabyte": _renamed(lambda key: key + "x" * 2**20),
    "names with zeros": _renamed(lambda key: f"{key}\0"),
    "a list of tensors": lambda state: list(state.values()),
    "a tensor alone": lambda state: next(iter(state.values())),
    "nothing": lambda state: None,
}
ODD: dict[str, Callable[[State], Any]] = {
    "requires grad": each(lambda t: torch.nn.Parameter(t, t.is_floating_point())),
    "not contiguous": each(lambda t: torch.stack([t, t], -1)[..., 0]),
    "one storage": lambda state: dict(zip(state, _shared(list(state.values())), strict=True)),
}
# Their meaning is the same to the last bit or two, or they are read as what they are.
OTHER: dict[str, Callable[[State], Any]] = {
    "float64": each(lambda t: t.double() if t.is_floating_point() else t),
    "float16": each(lambda t: t.half() if t.is_floating_point() else t),
    "bfloat16": each(lambda t: t.bfloat16() if t.is_floating_point() else t),
    "one float64": one(lambda t: t.double()),
    "one bfloat16": one(lambda t: t.bfloat16()),
    "large numbers": one(lambda t: t * 1e38),
    "tiny numbers": one(lambda t: t * 1e-45),
    "zeros": each(torch.zeros_like),
    "an extra tensor": lambda state: {**state, "extra.weight": torch.ones(3, 3)},
    "a thousand extra tensors": lambda state: {**state, **{f"extra.{n}": torch.ones(1) for n in range(900)}},
    "an extra name with escapes": lambda state: {**state, "\x1b[2J\x1b]0;hacked\x07": torch.ones(1)},
    "shared tensors": lambda state: dict.fromkeys(state, next(iter(state.values()))),
}
EQUAL: dict[str, Callable[[State], Any]] = {
    "saved again": lambda state: state,
}


def _shared(tensors: list[Tensor]) -> list[Tensor]:
    """The same tensors of one dtype as views of one storage."""
    if len({t.dtype for t in tensors}) > 1:
        return tensors
    flat = torch.cat([t.reshape(-1) for t in tensors])
    sizes = [t.numel() for t in tensors]
    return [part.reshape(t.shape) for part, t in zip(flat.split(sizes), tensors, strict=True)]


def views() -> dict[str, bytes]:
    """Torch files of one tensor, over eight numbers, whose shape, stride, offset or storage lies."""
    found = {f"view {args}": torch_zip(_tensor(*args)) for args in VIEWS}
    found |= {f"storage {title}": torch_zip(_tensor("0", "8", "1", storage)) for title, storage in STORAGES.items()}
    return found


VIEWS = [
    ("0", "9", "1"),
    ("8", "1", "1"),
    ("-1", "2", "1"),
    ("4611686018427387904", "2", "4611686018427387904"),
    ("0", "4398046511104", "0"),
    ("0", "1099511627776 1099511627776", "0 0"),
    ("0", "2 2", "4611686018427387904 4611686018427387904"),
    ("7", "2", "-1"),
    ("0", "-1 -8", "1 1"),
    ("0", "2", "1 1"),
    ("0", "99999999999999999999999999", "1"),
    ("0", "0 4398046511104", "1 1"),
]


def _integer(number: str) -> bytes:
    return f"I{number}\n".encode()


def _tuple(numbers: str) -> bytes:
    return b"(" + b"".join(map(_integer, numbers.split())) + b"t"


def _storage(kind: bytes, key: str = "0", size: str = "8", device: str = "cpu") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text(device) + _integer(size) + b"tQ"


_FLOATS = name("torch", "FloatStorage")
STORAGES = {
    "of terabytes": _storage(_FLOATS, size="1099511627776"),
    "of a negative size": _storage(_FLOATS, size="-8"),
    "missing": _storage(_FLOATS, key="7"),
    "elsewhere": _storage(_FLOATS, key="../../../etc/passwd"),
    "that is the pickle": _storage(_FLOATS, key="../data.pkl"),
    "of another kind": _storage(name("posix", "system")),
    "of complex numbers": _storage(name("torch", "ComplexDoubleStorage"), size="2"),
    "of a module": b"(" + text("module") + _FLOATS + text("x.py") + text("import os") + b"tQ",
    "that is a number": b"K\x01",
    "that is a list": b"]",
}


def _tensor(offset: str, size: str, stride: str, storage: bytes | None = None) -> bytes:
    """A state dict of one tensor, as a pickle."""
    made = call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage or _storage(_FLOATS),
        _integer(offset),
        _tuple(size),
        _tuple(stride),
        b"\x89",
        b"}",
    )
    return whole(b"}" + text("weight") + made + b"s")


def torch_zip(pickled: bytes, storage: bytes = bytes(32)) -> bytes:
    """A torch file with this pickle and one storage."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()
