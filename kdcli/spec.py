"""Spaces and environments as data: what an agent sees, may do, and where it was trained. No gymnasium here."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from kdcli.errors import RefusedError

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Box:
    """Real vectors or images: `low` and `high` have `shape`; `dtype` is the one the env gives."""

    shape: tuple[int, ...]
    dtype: str
    low: np.ndarray
    high: np.ndarray

    def __str__(self) -> str:
        return f"Box{self.shape} {self.dtype}"


@dataclass(frozen=True)
class Discrete:
    """One of `n` integers from `start`."""

    n: int
    start: int = 0
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element, without a batch."""
        return ()

    def __str__(self) -> str:
        return f"Discrete({self.n})" if self.start == 0 else f"Discrete({self.n}, start={self.start})"


@dataclass(frozen=True)
class MultiDiscrete:
    """Several integers, the i-th below nvec[i]."""

    nvec: tuple[int, ...]
    dtype: str = "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element, without a batch."""
        return (len(self.nvec),)

    def __str__(self) -> str:
        return f"MultiDiscrete({list(self.nvec)})"


@dataclass(frozen=True)
class MultiBinary:
    """`n` bits, in a row or in several axes `dims`."""

    n: int
    dtype: str = "int8"
    dims: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element, without a batch."""
        return (self.n,) if self.dims is None else self.dims

    def __str__(self) -> str:
        return f"MultiBinary({self.n if self.dims is None else list(self.dims)})"


Part = Box | Discrete | MultiDiscrete | MultiBinary


@dataclass(frozen=True, eq=False)
class Dict:
    """Several observations side by side, by name, in the order of `spaces` (gymnasium sorts the names).

    A batch of them is one structured numpy array (B,) with a field a name, so that it is indexed, joined and counted
    like any other batch; see `rows`. The field `MASK` says which actions are allowed.
    """

    spaces: Mapping[str, Part]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element, without a batch."""
        return ()

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a structured array of such observations."""
        return np.dtype([(name, part.dtype, part.shape) for name, part in self.spaces.items()], align=True)

    def __str__(self) -> str:
        return f"Dict({', '.join(f'{name}: {part}' for name, part in self.spaces.items())})"


Space = Part | Dict
MAX_NUMBERS = 2**24
MASK = "action_mask"
OBS = "obs"
STATE_IN, STATE_OUT = "state_in", "state_out"
# Names that outputs of an exported file have.
_TAKEN = frozenset({"action", "logits", "q", "mean", "log_std", "value", STATE_IN, STATE_OUT})


def parts(space: Space) -> dict[str, Part]:
    """The observations side by side in `space`, by name; one that stands alone is called `obs`."""
    return dict(space.spaces) if isinstance(space, Dict) else {OBS: space}


def split_rows(space: Space, obs: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of raw observations (B, *shape) as one array (B, *shape) a part, by name."""
    return {name: obs[name] for name in space.spaces} if isinstance(space, Dict) else {OBS: obs}


def join_rows(space: Space, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The inverse of `split_rows`."""
    if not isinstance(space, Dict):
        return columns[OBS]
    found = np.empty(len(next(iter(columns.values()))), space.dtype)
    for name in space.spaces:
        found[name] = columns[name]
    return found


def box(shape: tuple[int, ...], low: Any = -np.inf, high: Any = np.inf, dtype: str = "float32") -> Box:
    """A Box with bounds broadcast to `shape`.

    Raises:
        ValueError: more numbers than any observation has.
    """
    _check_size(prod(shape))
    kind = np.dtype(dtype)
    bounds = [np.broadcast_to(np.asarray(bound, dtype=kind), shape).copy() for bound in (low, high)]
    return Box(tuple(shape), kind.name, *bounds)


def input_names(space: Space) -> dict[str, str]:
    """Part of the observation -> its input's name in an exported file: its own, or `obs_NAME` where that is taken."""
    return {name: f"obs_{name}" if name in _TAKEN else name for name in parts(space)}


def feed(space: Space, obs: np.ndarray) -> dict[str, np.ndarray]:
    """Raw observations (B, *shape) as the named inputs of an exported file, in the space's own dtypes."""
    names, kinds = input_names(space), parts(space)
    columns = split_rows(space, obs).items()
    return {names[name]: np.ascontiguousarray(column, kinds[name].dtype) for name, column in columns}


def zeros(space: Space, n: int = 1) -> np.ndarray:
    """`n` observations (n, *shape) of nothing: zeros, integers where the space begins."""
    if isinstance(space, Dict):
        return join_rows(space, {name: zeros(part, n) for name, part in space.spaces.items()})
    return np.full((n, *space.shape), getattr(space, "start", 0), space.dtype)


def handed(space: Part) -> Part:
    """A space of actions in the dtype in which trainers' libraries hand them to an env, whatever the space declares.

    Of an integer Box they hand the real numbers that the policy gives, clipped or scaled in the bounds' own precision;
    choices are an argmax, int64.
    """
    match space:
        case Box():
            dtype = np.result_type(np.float32, space.dtype)
            return Box(space.shape, dtype.name, space.low.astype(dtype), space.high.astype(dtype))
        case Discrete() | MultiDiscrete():
            return replace(space, dtype="int64")
    return space


def n_features(space: Space) -> int:
    """Width of the float vector a policy sees: integers are one-hot, arrays are flattened."""
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if isinstance(space, Dict):
        return sum(map(n_features, space.spaces.values()))
    return prod(space.shape)


def n_outputs(space: Part) -> int:
    """Width of the vector a policy must output to choose an action in `space`."""
    return n_features(space)


def same_space(a: Space, b: Space) -> bool:
    """Whether two spaces have the same kind, shape and sizes (bounds and dtype may differ)."""
    if isinstance(a, Box) and isinstance(b, Box):
        return a.shape == b.shape
    if isinstance(a, Dict) and isinstance(b, Dict):
        named = a.spaces.keys() == b.spaces.keys()
        return named and all(same_space(part, b.spaces[name]) for name, part in a.spaces.items())
    return type(a) is type(b) and n_features(a) == n_features(b) and a.shape == b.shape


def _bound_to_json(bound: np.ndarray) -> Any:
    """One number when all are equal, else a flat list; infinities as text, since JSON has none."""
    flat = [float(v) if np.isfinite(v) else str(float(v)) for v in bound.reshape(-1)]
    return flat[0] if len(set(flat)) == 1 else flat


def _check_size(n: int) -> int:
    if not 0 < n <= MAX_NUMBERS:
        raise ValueError(f"{n} numbers or choices, at most {MAX_NUMBERS}")
    return n


def _dtype_from_json(value: Any) -> str:
    """The name of a dtype of plain numbers."""
    if not isinstance(value, str) or np.dtype(value).kind not in "biuf":
        raise ValueError(f"numbers of type {str(value)[:40]}")
    return np.dtype(value).name


def _bound_from_json(value: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    numbers = [float(v) for v in value] if isinstance(value, list) else float(value)
    if np.isnan(numbers).any():
        raise ValueError("a bound that is not a number")
    with np.errstate(over="raise"):  # a bound beyond what the dtype holds is none
        flat = np.array(numbers, dtype=dtype)
    return np.broadcast_to(flat, shape).copy() if flat.ndim == 0 else flat.reshape(shape)


def space_to_json(space: Space) -> Json:
    """A space as JSON values."""
    match space:
        case Box():
            low, high = _bound_to_json(space.low), _bound_to_json(space.high)
            return {"kind": "box", "shape": list(space.shape), "dtype": space.dtype, "low": low, "high": high}
        case Discrete():
            return {"kind": "discrete", "n": space.n, "start": space.start, "dtype": space.dtype}
        case MultiDiscrete():
            return {"kind": "multi_discrete", "nvec": list(space.nvec), "dtype": space.dtype}
        case MultiBinary():
            dims = {} if space.dims is None else {"shape": list(space.dims)}
            return {"kind": "multi_binary", "n": space.n, "dtype": space.dtype, **dims}
        case Dict():
            # A list, since JSON objects have no order and the order is that of the features.
            return {"kind": "dict", "spaces": [[name, space_to_json(part)] for name, part in space.spaces.items()]}


def space_from_json(data: Json) -> Space:
    """The inverse of `space_to_json`.

    Raises:
        RefusedError: not a space this version knows.
    """
    try:
        kind = data["kind"]
        if kind == "dict":
            return Dict({str(name): _part_from_json(part) for name, part in data["spaces"]})
        dtype = _dtype_from_json(data["dtype"])
        if kind == "box":
            shape = tuple(int(n) for n in data["shape"])
            _check_size(prod(shape))
            low, high = (_bound_from_json(data[key], shape, dtype) for key in ("low", "high"))
            return Box(shape, dtype, low, high)
        if kind == "discrete":
            start = int(data["start"])
            if abs(start) >= 2**31:
                raise ValueError("choices that begin beyond 2**31")
            return Discrete(_check_size(int(data["n"])), start, dtype)
        if kind == "multi_discrete":
            nvec = tuple(_check_size(int(n)) for n in data["nvec"])
            _check_size(sum(nvec))
            return MultiDiscrete(nvec, dtype)
        if kind == "multi_binary":
            dims = tuple(int(n) for n in data["shape"]) if "shape" in data else None
            if dims is not None and (min(dims, default=0) < 1 or prod(dims) != int(data["n"])):
                raise ValueError(f"{data['n']} bits of shape {dims}")
            return MultiBinary(_check_size(int(data["n"])), dtype, dims)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError("the file describes a space that cannot be read", repr(error)) from None
    raise RefusedError(f"unknown space kind {kind!r}", "known: box, discrete, multi_discrete, multi_binary, dict")


def _part_from_json(data: Json) -> Part:
    space = space_from_json(data)
    if isinstance(space, Dict):
        raise ValueError("a Dict inside a Dict")
    return space


@dataclass(frozen=True)
class EnvSpec:
    """An environment as data: gymnasium id, keyword arguments, wrappers (`name[:value]`, inner first).

    `max_steps` caps an episode; None keeps the env's own limit. `quoted` are the texts in it that a file gave: modules
    that they name are not imported, and paths not opened. Of an env that stands `alone`, one is open at a time.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    max_steps: int | None = None
    quoted: frozenset[str] = field(default=frozenset(), compare=False)
    alone: bool = field(default=False, compare=False)

    def modules(self, wrappers: Container[str]) -> list[str]:
        """The ids and wrappers that name a module to import: `module:Name-v0`, `module:Class:key=value`.

        Those called as one of `wrappers`, which are kdcli's own, do not.
        """
        foreign = [text for text in self.wrappers if ":" in text and text.partition(":")[0] not in wrappers]
        return [*([self.id] if ":" in self.id else []), *foreign]

    def paths(self) -> list[str]:
        """The arguments that lead to a file: gymnasium's MuJoCo envs open theirs."""
        return [text for text in _texts(self.kwargs) if "/" in text or "\\" in text or text.startswith((".", "~"))]

    def said(self, texts: Iterable[str]) -> EnvSpec:
        """The same, `texts` having been said by the user, too."""
        return replace(self, quoted=self.quoted - {*texts})

    def to_json(self) -> Json:
        """JSON values, the inverse of `from_json`."""
        return {
            "id": self.id,
            "kwargs": dict(self.kwargs),
            "wrappers": list(self.wrappers),
            "max_steps": self.max_steps,
            **({"alone": True} if self.alone else {}),
        }

    def within(self, envs: int) -> EnvSpec:
        """The same where so many may be open side by side: alone where that is one."""
        return replace(self, alone=True) if envs == 1 else self

    @classmethod
    def from_json(cls, data: Json) -> EnvSpec:
        """An EnvSpec from the JSON values in a file.

        Raises:
            RefusedError: a value is of another kind.
        """
        try:
            name, wrappers, kwargs = data["id"], data.get("wrappers", ()), data.get("kwargs", {})
            steps = data.get("max_steps")
        except (AttributeError, KeyError, TypeError) as error:
            raise RefusedError("the file describes an env that cannot be read", repr(error)[:200]) from None
        fits = isinstance(name, str) and isinstance(kwargs, Mapping) and isinstance(wrappers, list | tuple)
        counts = steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps > 0)
        if not (fits and counts and all(isinstance(text, str) for text in wrappers)):
            why = "its id is a text, its arguments have names, its wrappers are texts, its steps are counted"
            raise RefusedError(f"the file describes an env that cannot be read: {str(data)[:80]}", why)
        quoted = frozenset(_texts([name, wrappers, kwargs]))
        return cls(name, dict(kwargs), tuple(wrappers), steps, quoted, data.get("alone") is True)

    def __str__(self) -> str:
        inside = [f"{k}={v}" for k, v in self.kwargs.items()] + list(self.wrappers)
        return f"{self.id} ({', '.join(inside)})" if inside else self.id


def _texts(value: Any) -> list[str]:
    """Every string in JSON values, without the keys."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for part in inner for text in _texts(part)]
