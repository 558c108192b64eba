"""The pickle interpreter: plain values as pickle reads them, everything else inert or refused."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.checkpoints.safe.arrays import KINDS, Array
from kdcli.checkpoints.safe.pickles import MAX_DEPTH, MAX_OPCODES, Global, Record, decode
from kdcli.errors import RefusedError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.sets(st.text(max_size=3), max_size=4)
    ),
    max_leaves=20,
)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@settings(max_examples=150, deadline=None)
@given(VALUES, st.sampled_from([3, 4, 5]))
def test_plain_values_are_what_pickle_says(value: Any, protocol: int) -> None:
    """Law: for values without classes the interpreter and pickle agree, in every protocol Python 3 writes."""
    assert decode(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 1)])
def test_arrays_are_rebuilt_exactly(kind: str, shape: tuple[int, ...], protocol: int) -> None:
    """Law: an array of plain numbers comes back with its dtype, shape and bytes, and cannot be written to."""
    array = np.asarray(np.random.default_rng(0).normal(size=shape) * 5).astype(kind)
    found = decode(pickle.dumps([array, array], protocol), "x")
    assert found[0] is found[1]
    assert isinstance(found[0], Array)
    assert found[0].value.dtype == array.dtype
    np.testing.assert_array_equal(found[0].value, array)
    assert not found[0].value.flags.writeable or array.size == 0


@pytest.mark.parametrize("array", [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(4, dtype=">f8")])
def test_other_orders(array: np.ndarray) -> None:
    """Law: Fortran order and foreign byte order are read as what they mean."""
    np.testing.assert_array_equal(decode(pickle.dumps(array, 4), "x").value, array)


@pytest.mark.parametrize("value", [np.float64(0.25), np.float32(-1.5), np.int64(-7), np.bool_(True), np.uint8(200)])
def test_scalars_become_python_numbers(value: Any) -> None:
    """Law: a numpy scalar is a plain number afterwards."""
    found = decode(pickle.dumps(value), "x")
    assert found == value.item()
    assert type(found) is type(value.item())


def test_known_objects_are_records() -> None:
    """Law: a space is a record with its state; random generators inside are inert, too."""
    from gymnasium import spaces

    space = spaces.Box(-1.0, 1.0, (2,))
    space.sample()
    found = decode(pickle.dumps(space), "x")
    assert isinstance(found, Record)
    assert found.called == Global("gymnasium.spaces.box", "Box")
    assert isinstance(found.state["_np_random"], Record)


def test_ordered_dicts_and_sets() -> None:
    """Law: Python's own containers are containers."""
    assert decode(pickle.dumps(OrderedDict(a=1, b=[2])), "x") == {"a": 1, "b": [2]}
    assert decode(pickle.dumps(frozenset({"a"})), "x") == {"a"}


ATTACKS = [
    (Calls(os.system, "touch hacked"), "posix.system"),
    (Calls(eval, "1"), "builtins.eval"),
    (Calls(getattr, "a", "b"), "builtins.getattr"),
    (Calls(__import__, "os"), "builtins.__import__"),
    (Calls(pickle.loads, b""), "_pickle.loads"),
    (Calls(np.load, "x"), "numpy.load"),
    (os.path.join, "posixpath.join"),
]


@pytest.mark.parametrize(("value", "name"), ATTACKS)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_names_are_refused(value: Any, name: str, protocol: int, tmp_path: Any, monkeypatch: Any) -> None:
    """Law: a name that is not on the list is refused, naming it, and nothing has run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match=rf"statistics asks for {name}"):
        decode(pickle.dumps({"a": [value]}, protocol), "statistics")
    assert not list(tmp_path.iterdir())


def test_torchs_own_unpickling_is_refused() -> None:
    """Law: torch.storage._load_from_bytes, an unrestricted load, is never allowed."""
    with pytest.raises(RefusedError, match=r"torch\.storage\._load_from_bytes"):
        decode(b"ctorch.storage\n_load_from_bytes\n(C\x01xtR.", "x")


@pytest.mark.parametrize(
    "name", ["gym.spaces.box Box\0", "gym.spaces.. x", "gym.spacesx Box", "numpy.random ", "gym.spaces x y"]
)
def test_names_that_only_look_allowed(name: str) -> None:
    """Law: a prefix ends at a dot, and a name is made of identifiers."""
    module, _, attribute = name.partition(" ")
    with pytest.raises(RefusedError, match="asks for"):
        decode(b"\x80\x04" + _text(module) + _text(attribute) + b"\x93.", "x")


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _array(kind: str, shape: bytes, content: bytes) -> bytes:
    """A pickled array whose parts are not checked by the writer; `shape` is pickled."""
    dtype = (
        b"cnumpy\ndtype\n("
        + _text(kind)
        + b"\x89\x88tR(K\x03"
        + _text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    body = b"\x8e" + struct.pack("<Q", len(content)) + content
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    return b"\x80\x04" + head + b"(K\x01" + shape + dtype + b"\x89" + body + b"tb."


def test_the_array_writer_of_these_tests() -> None:
    """Law: what the next tests bend is right before it is bent."""
    content = np.arange(3.0).tobytes()
    np.testing.assert_array_equal(decode(_array("f8", b"K\x03\x85", content), "x").value, np.arange(3.0))


@pytest.mark.parametrize(
    ("kind", "shape", "content"),
    [
        ("f8", b"K\x04\x85", bytes(24)),
        ("f8", b"K\x02\x85", bytes(24)),
        ("f8", b"J\xff\xff\xff\xff\x85", bytes(24)),
        ("f8", b"]\x85", bytes(24)),
        ("f8", b"K\x03", bytes(24)),
        ("f8", b"\x88\x85", bytes(8)),
        ("f8", b"(" + b"K\x01" * 40 + b"t", bytes(8)),
        ("f8", b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85", bytes(8)),
        ("O8", b"K\x01\x85", bytes(8)),
        ("V8", b"K\x03\x85", bytes(24)),
        ("U2", b"K\x03\x85", bytes(24)),
        ("b1", b"K\x03\x85", b"\x00\x01\x02"),
    ],
)
def test_arrays_that_lie(kind: str, shape: bytes, content: bytes) -> None:
    """Law: an array whose bytes do not fill its shape, or that is not made of plain numbers, is refused."""
    with pytest.raises(RefusedError) as caught:
        decode(_array(kind, shape, content), "x")
    assert "numpy" in caught.value.why


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")])])
def test_other_kinds_of_arrays(array: np.ndarray) -> None:
    """Law: objects, texts, dates and structures in arrays are refused."""
    with pytest.raises(RefusedError):
        decode(pickle.dumps(array), "x")


def test_empty_object_arrays_are_harmless() -> None:
    """Law: an empty array of objects, which old spaces hold, is an empty array."""
    assert decode(pickle.dumps(np.array([], dtype=object)), "x").value.size == 0


GOOD = pickle.dumps({"a": [1, 2.5, "text"], "b": (None, True)})
NASTY = {
    "nothing": b"",
    "no end": GOOD[:-1],
    "more after the end": GOOD + b"\x00",
    "a second pickle": GOOD + GOOD,
    "two values": b"\x80\x04K\x01K\x02.",
    "an open mark": b"\x80\x04(K\x01.",
    "no value": b"\x80\x04.",
    "no mark": b"\x80\x04K\x01t.",
    "unknown memo": b"\x80\x04h\x05.",
    "memo of nothing": b"\x80\x04\x94.",
    "below a mark": b"\x80\x04K\x01(\x85t.",
    "persistent id": b"\x80\x04K\x01Q.",
    "extension": b"\x80\x04\x82\x01.",
    "instance": b"(ios\nsystem\n.",
    "duplicate": b"\x80\x04]2.",
    "list as key": b"\x80\x04}]K\x01s.",
    "key that hashes slowly": b"\x80\x04}G\x00\x00\x00\x00\x00\x00\x00\x00K\x01s.",
    "call of a number": b"\x80\x04K\x01)R.",
    "items of a number": b"\x80\x04K\x01(K\x02K\x03u.",
    "odd items": b"\x80\x04}(K\x02u.",
    "append to a number": b"\x80\x04K\x01K\x02a.",
    "state of a number": b"\x80\x04K\x01}b.",
    "deep marks": b"\x80\x04" + b"(" * (MAX_DEPTH + 2) + b".",
    "endless": b"\x80\x04" + b"N0" * MAX_OPCODES + b"N.",
    "huge length": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "negative length": b"\x80\x04\x8b\xff\xff\xff\xff.",
    "bad text": b"\x80\x04\x8c\x01\xff.",
    "bad number": b"I" + b"9" * 5000 + b"\n.",
    "no opcode": b"\x80\x04\xff.",
    "a protocol of the future": b"\x80\x06}.",
    "an integer too large to print": b"\x80\x02\x8b" + struct.pack("<I", 3000) + b"\x7f" * 3000 + b".",
    "a list of itself": b"\x80\x04]\x94h\x00a.",
    "a dictionary of itself": b"\x80\x04}\x94X\x01\x00\x00\x00ah\x00s.",
    "lists in lists": b"\x80\x04" + b"]" * 1000 + b"a" * 999 + b".",
    "lists of two lists of two lists": b"\x80\x04]\x94"
    + b"".join(b"0]\x94(h%ch%ce" % (n, n) for n in range(40))
    + b".",
    "a long text again and again": b"\x80\x04X\x10\x27\x00\x00" + b"x" * 10_000 + b"\x940(" + b"h\x00" * 5000 + b"l.",
}


@pytest.mark.parametrize("case", NASTY)
def test_nasty_streams(case: str) -> None:
    """Law: what is no complete, single, modest pickle is refused, never another exception."""
    with pytest.raises(RefusedError):
        decode(NASTY[case], "x")


def test_values_may_be_shared() -> None:
    """Law: what pickle writes once and mentions again is read, as long as it stays readable written out in full."""
    shared = ["x" * 1000, {"a": 1}]
    assert decode(pickle.dumps([shared] * 100), "x") == [shared] * 100


def test_the_same_bytes_again_and_again() -> None:
    """Law: a small file cannot make the reader copy without end: arrays and sets never outgrow the file."""
    buffer = b"B" + struct.pack("<I", 100_000) + bytes(100_000) + b"q\x000"
    dtype = b"cnumpy\ndtype\n(" + _text("u1") + b"\x89\x88tRq\x010"
    call = (
        b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01J" + struct.pack("<i", 100_000) + b"\x85" + _text("C") + b"tR0"
    )
    decode(b"\x80\x04" + buffer + dtype + call + b"N.", "x")
    with pytest.raises(RefusedError) as caught:
        decode(b"\x80\x04" + buffer + dtype + call * 3 + b"N.", "x")
    assert caught.value.why == "it holds more values than bytes"


def test_random_bytes_and_flips() -> None:
    """Law: 3,000 damaged pickles are refused or read, and nothing else happens."""
    rng = np.random.default_rng(11)
    source = pickle.dumps({"space": np.arange(5.0), "b": [np.float32(2), "x", {"y": np.ones((2, 2), np.uint8)}]})
    assert len(list(pickletools.genops(source))) > 50
    for _ in range(3000):
        data = bytearray(source)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(0, 256)
        try:
            decode(bytes(data), "x")
        except RefusedError:
            continue
