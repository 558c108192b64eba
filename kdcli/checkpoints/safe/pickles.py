"""A pickle read without running anything: the opcodes done by us, on plain values and inert records.

`pickletools.genops` takes the stream apart. A global stays a name (`Global`), a call makes a `Record` that remembers
what would have been called, and numpy values are rebuilt from checked parts (`arrays`). A name that the `Dialect` does
not list, an opcode that is not below, too much of anything, and bytes after the end are refused.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from kdcli.checkpoints.safe.allowlist import is_allowed, is_name
from kdcli.checkpoints.safe.arrays import BUILDERS, Array, DType, MalformedError
from kdcli.checkpoints.safe.records import MAX_DEPTH, Global, Record, refuse_unreadable
from kdcli.errors import RefusedError

__all__ = [
    "ANY",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_OPCODES",
    "SB3",
    "Dialect",
    "Global",
    "Record",
    "decode",
    "decode_next",
]

MAX_BYTES = 64 * 2**20
MAX_OPCODES = 200_000
# A value may be mentioned again and again; written out in full it must not be much longer than the file.
SPREAD, FREE_SPREAD = 4, 2**20
MAX_PROTOCOL = 5
MAX_INTEGER = 2**130  # random generators keep 128 bits; Python cannot even print an integer of some thousand digits

_NUMBERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"})
_TEXTS = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_PUSH = _NUMBERS | _TEXTS | _BYTES
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_GET, _PUT = frozenset({"GET", "BINGET", "LONG_BINGET"}), frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_BROKEN = (
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Dialect:
    """What the pickles of one program may say: `reads` and `fix` tell the user, when they say more.

    `is_allowed(module, name)` is the list of names. Calls of the `builders` are done (they check their arguments),
    other calls become Records. `persistent` makes a value of a persistent id, where there are such.
    """

    is_allowed: Callable[[str, str], bool]
    builders: Mapping[str, Callable[..., Any]]
    reads: str
    fix: str
    persistent: Callable[[Any], Any] | None = None


SB3 = Dialect(
    is_allowed,
    BUILDERS,
    "kdcli runs no code from a file and reads only the classes of Stable-Baselines3, gym and numpy",
    "save the agent without that object, or export it to ONNX where it was trained",
)
# Whatever it names stays a name, and what would be made of it a Record: for values of which few are asked for.
ANY = replace(SB3, is_allowed=is_name)


def decode(data: bytes, what: str, dialect: Dialect = SB3) -> Any:
    """The content of the pickle `data` as plain values, Arrays and Records; `what` names it in errors.

    Raises:
        RefusedError: it is damaged, too large, or asks for anything but the known names.
    """
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{what} is too large", f"{len(data)} bytes, at most {MAX_BYTES} are read")
    stream = io.BytesIO(data)
    value = decode_next(stream, what, dialect)
    if stream.tell() != len(data):
        raise RefusedError(f"{what} cannot be read", "something follows its end", "copy it again; it may be damaged")
    return value


def decode_next(stream: BinaryIO, what: str, dialect: Dialect = SB3) -> Any:
    """The content of the pickle that begins where `stream` stands, which is left at its end; otherwise as `decode`."""
    try:
        with warnings.catch_warnings():  # of escapes in texts that nobody asked for
            warnings.simplefilter("ignore")
            return _Machine(what, dialect).run(stream)
    except _BROKEN as error:
        why = str(error) if isinstance(error, MalformedError) else "it is not a complete pickle"
        raise RefusedError(f"{what} cannot be read", why, "copy it again; it may be damaged") from None


class _Machine:
    """One reading: the stack, the open marks (heights of the stack), the memo."""

    def __init__(self, what: str, dialect: Dialect) -> None:
        self.what, self.dialect = what, dialect
        self.budget = self.most = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        start = stream.tell()
        self.budget = stream.seek(0, io.SEEK_END) - start
        self.most = SPREAD * self.budget + FREE_SPREAD
        stream.seek(start)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES or len(self.marks) > MAX_DEPTH:
                raise MalformedError("it is larger or deeper than any checkpoint")
            if opcode.name == "STOP":
                return self.stop()
            self.do(opcode.name, argument)
        raise MalformedError("it has no end")

    def stop(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise MalformedError("it ends in the middle")
        refuse_unreadable(self.stack[0], self.most)
        return self.stack.pop()

    def do(self, name: str, argument: Any) -> None:
        if name in _PUSH:
            self.push(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _SIZES:
            self.stack.append(self.pop_many(_SIZES[name]))
        elif name in _PUT:
            self.memo[argument] = self.stack[-1]
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME") or (name == "PROTO" and argument > MAX_PROTOCOL):
            raise MalformedError(f"it uses {name}, which no checkpoint does")

    def push(self, value: Any) -> None:
        if type(value) is int and abs(value) > MAX_INTEGER:
            raise MalformedError("it holds an integer larger than any checkpoint's")
        self.stack.append(value)

    def pop_many(self, n: int) -> tuple[Any, ...]:
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < n:
            raise MalformedError("it takes values that are not there")
        taken = tuple(self.stack[-n:])
        del self.stack[-n:]
        return taken

    def pop(self) -> Any:
        return self.pop_many(1)[0]

    def pop_to_mark(self) -> list[Any]:
        height = self.marks.pop()
        taken = self.stack[height:]
        del self.stack[height:]
        return taken

    def global_(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str) and self.dialect.is_allowed(module, name)
        if not known:
            asked = f"{str(module)[:80]}.{str(name)[:80]}"
            raise RefusedError(f"{self.what} asks for {asked}", self.dialect.reads, self.dialect.fix)
        self.stack.append(Global(module, name))

    def append(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise MalformedError("it appends to what is not a list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise MalformedError("it adds to what is not a set")
        target.update(map(_key, items))

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise MalformedError("it sets items of what is not a dictionary")
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def call(self) -> None:
        called, args = self.pop_many(2)
        if self.dialect.is_allowed is is_name and isinstance(called, Record) and isinstance(args, tuple):
            called = called.called  # a class or function that a call gave
        if not isinstance(called, Global) or not isinstance(args, tuple):
            raise MalformedError("it calls what is not a name")
        build = self.dialect.builders.get(str(called))
        made = _container(called, args) if build is None else build(*args)
        self.spend(made)
        self.stack.append(made)

    def persistent(self) -> None:
        if self.dialect.persistent is None:
            raise MalformedError("it refers to what is not in it")
        self.stack.append(self.dialect.persistent(self.pop()))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Array | DType):
            target.set_state(state)
            self.spend(target)
        elif isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes (`_metadata` of a state dict) are no content
            raise MalformedError("it sets the state of what has none")

    def spend(self, made: Any) -> None:
        """Arrays never hold more bytes than the file: the same bytes made into arrays again and again take forever."""
        if isinstance(made, Array) and made.value is not None:
            self.budget -= made.value.nbytes
        elif isinstance(made, set):
            self.budget -= len(made)
        if self.budget < 0:
            raise MalformedError("it holds more values than bytes")


def _key(value: Any) -> Any:
    """A dictionary key or member of a set: names and small numbers only, since others can be made slow to hash."""
    if value is None or isinstance(value, str | bytes | Global) or (type(value) is int and abs(value) < 2**31):
        return value
    raise MalformedError("a dictionary key that is not a name")


def _container(called: Global, args: tuple[Any, ...]) -> Any:
    """Python's own containers as themselves, everything else as a Record."""
    if str(called) == "collections.OrderedDict" and not args:
        return {}
    if str(called) in ("builtins.set", "builtins.frozenset"):
        [items] = args or ([],)
        return set(map(_key, items))
    return Record(called, args)


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.pop_to_mark(),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append(set(map(_key, m.pop_to_mark()))),
    "APPEND": lambda m, _: m.append(m.pop_many(1)),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.add(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop_many(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "GLOBAL": lambda m, argument: m.global_(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.global_(*m.pop_many(2)),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}
