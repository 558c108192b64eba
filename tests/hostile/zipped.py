"""Zips made to harm: bombs, names that lead elsewhere, members that lie about themselves, odd but honest zips."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from cases import Case, Law, of_main
from seeds import Seed

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
Entries = dict[str, bytes]


@dataclass(frozen=True)
class Entry:
    """One member, and what the zip says of it, twice: in front of its bytes, and in the list at the end."""

    name: bytes
    data: bytes
    method: int = STORED
    flags: int = 0
    content: bytes | None = None  # as stored; None: `data` by `method`
    said: tuple[int, int, int] | None = None  # crc, compressed and unpacked size in the list at the end
    mode: int = 0o100644
    extra: bytes = b""
    descriptor: bool = False
    at: int | None = None  # where the list says the member begins; None: where it does

    def stored(self) -> bytes:
        """The bytes of the member in the zip."""
        if self.content is not None:
            return self.content
        return deflated(self.data) if self.method == DEFLATED else self.data

    def facts(self) -> tuple[int, int, int]:
        """What is true: crc, compressed size, unpacked size."""
        return zlib.crc32(self.data), len(self.stored()), len(self.data)


def deflated(data: bytes) -> bytes:
    """Raw deflate."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def pack(
    entries: Iterable[Entry], prefix: bytes = b"", comment: bytes = b"", ending: Callable[..., bytes] | None = None
) -> bytes:
    """A zip of the entries, exactly as they say; `ending(count, size, offset, comment)` makes its last record."""
    out, listed = bytearray(prefix), bytearray()
    count = 0
    for entry in entries:
        at, facts = len(out), entry.facts()
        flags = entry.flags | (8 if entry.descriptor else 0)
        shown = (0, 0, 0) if entry.descriptor else facts
        head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, flags, entry.method, 0, 33, *shown, len(entry.name), 0)
        out += head + entry.name + entry.stored()
        if entry.descriptor:
            out += struct.pack("<4s3L", b"PK\x07\x08", *facts)
        said = entry.said or facts
        where = at if entry.at is None else entry.at
        sizes = (len(entry.name), len(entry.extra), 0, 0, 0, entry.mode << 16)
        listed += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 0x031E, 45, flags, entry.method, 0, 33, *said, *sizes, where
        )
        listed += entry.name + entry.extra
        count += 1
    end = (ending or last)(count, len(listed), len(out), comment)
    return bytes(out + listed) + end


def last(count: int, size: int, offset: int, comment: bytes) -> bytes:
    """The record a zip ends with."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, offset, len(comment)) + comment


def last_of_64(count: int, size: int, offset: int, comment: bytes, disks: int = 1) -> bytes:
    """The same in the zip64 way: the true numbers in a record of their own, found by a locator."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, disks)
    return record + locator + last(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, comment)


def members(data: bytes) -> Entries:
    """Every member of a valid zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info: archive.read(info) for info in archive.namelist()}


def entries(content: Entries) -> list[Entry]:
    """Plain entries."""
    return [Entry(name.encode(), data) for name, data in content.items()]


def rezipped(content: Entries) -> bytes:
    """A plain zip of these members."""
    return pack(entries(content))


def changed(content: Entries, name: str, /, **changes: object) -> bytes:
    """The zip with one entry changed."""
    return pack(replace(entry, **changes) if entry.name == name.encode() else entry for entry in entries(content))


def zeros(size: int) -> Entry:
    """A member of `size` zeros that weighs a thousandth."""
    return Entry(b"zeros", bytes(size), DEFLATED)


def nested(levels: int, width: int) -> bytes:
    """A zip of zips of zips ... of zeros."""
    inner = pack([replace(zeros(2**20), name=f"{n}".encode()) for n in range(width)])
    for _ in range(levels):
        inner = pack(Entry(f"{n}.zip".encode(), inner, DEFLATED) for n in range(width))
    return inner


def overlapping(content: Entries, key: str) -> bytes:
    """Many members that are all the same bytes (as in the better zip bomb of David Fifield)."""
    kernel = Entry(key.encode(), content[key])
    first = pack([kernel])
    copies = [replace(kernel, name=f"copy{n:04d}".encode(), content=b"", said=kernel.facts(), at=0) for n in range(500)]
    listed = pack([kernel, *copies, *[entry for entry in entries(content) if entry.name != kernel.name]])
    assert listed[: len(first) // 2] == first[: len(first) // 2]
    return listed


def lzma_member(dictionary: int) -> bytes:
    """A member of a few bytes that asks the unpacker for a dictionary of up to 4 gigabytes."""
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}])
    body = packer.compress(b"x" * 100) + packer.flush()
    return struct.pack("<BBH", 9, 4, 5) + b"\x5d" + struct.pack("<L", dictionary) + body


ELSEWHERE = [
    "../x",
    "a/../../x",
    "/etc/x",
    "//host/x",
    "..",
    "C:/x",
    "C:\\x",
    "..\\x",
    "a\\..\\..\\x",
    "./x",
    "a//x",
    "~/x",
    "x\x00.zip",
    "\x1b[31mred\x1b]0;title\x07",
    "line\nbreak",
    "x" * 60000,
    "\u202egnp.exe",
    "CON",
    "a/" * 3000 + "x",
]


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Every harm, on every seed that is a zip."""
    for seed in seeds.values():
        if seed.family in ("zip", "torch"):
            yield from _of(seed, main_member(seed))


def main_member(seed: Seed) -> str:
    """The member that no reader can do without."""
    found = members(seed.data)
    return next((name for name in found if name == "data" or name.endswith("data.pkl")), next(iter(found)))


def _of(seed: Seed, key: str) -> Iterator[Case]:
    content = members(seed.data)
    for law, table in (
        (Law.REFUSED, bombs(content, key)),
        (Law.REFUSED, lies(content, key)),
        (Law.RIGHT, oddities(content, key)),
        (Law.LOADS, honest(content)),
    ):
        for name, make in table.items():
            yield of_main(seed, "zip", name, make, law)
    for name in ELSEWHERE:
        more = [*entries(content), Entry(name.encode(), b"x")]
        yield of_main(seed, "zip name", repr(name)[:40], lambda more=more: pack(more), Law.RIGHT)
    for name in ELSEWHERE[:9]:
        other = {name if member == key else member: data for member, data in content.items()}
        yield of_main(seed, "zip name", f"in its place {name!r}"[:60], lambda other=other: rezipped(other))


def bombs(content: Entries, key: str) -> dict[str, Callable[[], bytes]]:
    """Small files that unpack to much."""
    rest = [entry for entry in entries(content) if entry.name != key.encode()]
    data = content[key]
    return {
        "a member of 64 MB of zeros": lambda: pack([*rest, Entry(key.encode(), bytes(2**26), DEFLATED)]),
        "a member padded with 64 MB": lambda: pack([*rest, Entry(key.encode(), data + b" " * 2**26, DEFLATED)]),
        "2,000 members": lambda: pack([*entries(content), *(Entry(f"m{n}".encode(), b"") for n in range(2000))]),
        "70,000 members": lambda: pack(
            [*entries(content), *(Entry(f"m{n}".encode(), b"") for n in range(70_000))], ending=last_of_64
        ),
        "members that overlap": lambda: overlapping(content, key),
        "a zip of zips": lambda: pack([*rest, Entry(key.encode(), nested(3, 4))]),
        "only a zip of zips": lambda: nested(4, 5),
        "a dictionary of 4 gigabytes": lambda: changed(
            content, key, method=LZMA, content=lzma_member(2**32 - 1), data=b"x" * 100
        ),
        "bzip2 of 64 MB": lambda: changed(
            content, key, method=BZIP2, content=bz2.compress(bytes(2**26)), data=bytes(2**26)
        ),
    }


def lies(content: Entries, key: str) -> dict[str, Callable[[], bytes]]:
    """Members that are not what the zip says."""
    data = content[key]
    crc, size = zlib.crc32(data), len(data)
    terabytes = struct.pack("<2H2Q", 1, 16, 2**42, 2**42)
    both = entries(content)
    return {
        "a smaller size": lambda: changed(content, key, said=(crc, size, size // 2)),
        "a larger size": lambda: changed(content, key, said=(crc, size, size * 2)),
        "a larger stored size": lambda: changed(content, key, said=(crc, size * 1000, size)),
        "a smaller stored size": lambda: changed(content, key, said=(crc, size // 2, size)),
        "4 gigabytes": lambda: changed(content, key, said=(crc, 0xFFFFFFFE, 0xFFFFFFFE)),
        "4 terabytes": lambda: changed(content, key, said=(crc, 0xFFFFFFFF, 0xFFFFFFFF), extra=terabytes),
        "a deflated size of less": lambda: changed(
            content, key, method=DEFLATED, said=(crc, len(deflated(data)), size - 10)
        ),
        "another checksum": lambda: changed(content, key, said=(crc ^ 1, size, size)),
        "encrypted": lambda: changed(content, key, flags=1),
        "strongly encrypted": lambda: changed(content, key, flags=0x41),
        "patched": lambda: changed(content, key, flags=0x20),
        "an unknown method": lambda: changed(content, key, method=99),
        "deflate64": lambda: changed(content, key, method=9),
        "no deflate stream": lambda: changed(content, key, method=DEFLATED, content=b"\xff" * 20),
        "an empty member": lambda: changed(content, key, data=b""),
        "elsewhere in the file": lambda: changed(content, key, at=7),
        "beyond the file": lambda: changed(content, key, at=2**31),
        "a symlink": lambda: changed(content, key, data=b"/etc/passwd", mode=0o120777),
        "twice": lambda: pack([*both, Entry(key.encode(), data)]),
        "twice, other content first": lambda: pack([Entry(key.encode(), b"x"), *both]),
        "missing": lambda: rezipped({name: found for name, found in content.items() if name != key}),
        "in capitals": lambda: rezipped({name.upper(): found for name, found in content.items()}),
        "in a folder": lambda: rezipped({f"deep/er/{name}": found for name, found in content.items()}),
        "a folder": lambda: pack(
            [entry for entry in both if entry.name != key.encode()] + [Entry(f"{key}/".encode(), b"")]
        ),
        "no members": lambda: pack([]),
        "a list beyond the file": lambda: pack(both, ending=lambda n, size, at, c: last(n, size, at + 2**30, c)),
        "a list of the wrong size": lambda: pack(both, ending=lambda n, size, at, c: last(n, size + 1000, at, c)),
        "more members than listed": lambda: pack(both, ending=lambda n, size, at, c: last(n, size // 2, at, c)),
        "a broken zip64 extra": lambda: changed(
            content, key, said=(crc, 0xFFFFFFFF, size), extra=b"\x01\x00\x02\x00xx"
        ),
        "many disks": lambda: pack(both, ending=lambda n, size, at, c: last_of_64(n, size, at, c, disks=7)),
        "a zip64 list of terabytes": lambda: pack(both, ending=lambda n, size, at, c: last_of_64(2**60, 2**60, at, c)),
        "only an ending": lambda: last(1, 46, 0, b""),
        "endings in endings": lambda: last(0, 0, 0, last(0, 0, 0, b"") * 1000),
    }


def oddities(content: Entries, key: str) -> dict[str, Callable[[], bytes]]:
    """Zips no program writes, which may be read where nothing that matters is odd."""
    both = entries(content)
    link = Entry(b"link", b"/etc/passwd", mode=0o120777)
    return {
        "another symlink": lambda: pack([*both, link]),
        "a device": lambda: pack([*both, Entry(b"device", b"", mode=0o060666)]),
        "a count that is wrong": lambda: pack(both, ending=lambda n, size, at, c: last(1, size, at, c)),
        "a name that is no text": lambda: pack([*both, Entry(b"\xff\xfe\x00x", b"x")]),
        "bytes after the end": lambda: pack(both) + b"x" * 100,
        "another zip after the end": lambda: pack(both) + pack([Entry(b"x", b"y")]),
        "a prefix that is a zip": lambda: pack(both, prefix=pack([Entry(b"x", b"y")])),
        "a folder of its own": lambda: pack([Entry(b"folder/", b""), *both]),
        "an extra of 64 kilobytes": lambda: changed(content, key, extra=b"\xfe\xca\xf8\xff" + bytes(65528)),
    }


def honest(content: Entries) -> dict[str, Callable[[], bytes]]:
    """What some programs write: these zips are in order."""
    both = entries(content)
    return {
        "repacked": lambda: pack(both),
        "in another order": lambda: pack(reversed(both)),
        "deflated": lambda: pack(replace(entry, method=DEFLATED) for entry in both),
        "with data descriptors": lambda: pack(replace(entry, descriptor=True) for entry in both),
        "with a comment": lambda: pack(both, comment=b"c" * 65535),
        "as zip64": lambda: pack(both, ending=last_of_64),
        "with another file": lambda: pack([*both, Entry(b"__MACOSX/._data", b"x")]),
    }
