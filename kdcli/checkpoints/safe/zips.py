"""Members of a zip, with limits: names, sizes and checksums are checked before anything is used."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcli.errors import KdcliError, RefusedError
from kdcli.files import MAX_ARCHIVE, open_file

MAX_MEMBERS = 1000
MAX_MEMBER = 2**29
MAX_TOTAL = MAX_ARCHIVE
MAX_AT_ONCE = 2**26
# Weights hardly compress, JSON some 20 times; a small file that unpacks to much more is a bomb.
MAX_RATIO, FREE_SIZE = 100, 2**24
_LOCAL_HEADER = 30
_METHODS, _KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), "kdcli unpacks deflated members and stored ones"
_WRITTEN = "copy it again; it may be damaged"


class Members:
    """The members of one open zip, read by name."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._name = archive, name
        self.names = [info.filename for info in archive.infolist()]
        self.unpacked = sum(info.file_size for info in archive.infolist())
        self._check(archive.infolist())

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        bad = [info.filename for info in infos if not _is_plain(info)]
        if bad or len(set(self.names)) != len(infos):
            raise RefusedError(f"{self._name} is not a checkpoint", f"a member's name: {(bad or self.names)[0]!r}")
        if len(infos) > MAX_MEMBERS or self.unpacked > MAX_TOTAL:
            raise RefusedError(f"{self._name} is too large", f"{len(infos)} members of {self.unpacked} bytes")
        _refuse_overlaps(infos, self._name)

    def read(self, name: str, limit: int = MAX_MEMBER) -> bytes:
        """The content of one member, its checksum verified.

        Raises:
            RefusedError: it is missing, damaged, encrypted, or larger than `limit` bytes.
        """
        if name not in self.names:
            raise RefusedError(f"{self._name} has no member {name!r}", "it is not complete", _WRITTEN)
        with _explained(f"{self._name}: {name}"):
            info = self._archive.getinfo(name)
            if info.compress_type not in _METHODS:  # others can ask for gigabytes before the first byte
                raise RefusedError(f"{self._name}: {name} is packed in a way that no checkpoint is", _KNOWN, _WRITTEN)
            if info.file_size > min(limit, max(FREE_SIZE, MAX_RATIO * info.compress_size)):
                raise RefusedError(f"{self._name}: {name} is too large", f"it unpacks to {info.file_size} bytes")
            with self._archive.open(info) as member:
                content = member.read(info.file_size + 1)
        if len(content) != info.file_size:
            raise RefusedError(f"{self._name}: {name} is damaged", "its size is not what the zip says", _WRITTEN)
        return content


def _refuse_overlaps(infos: list[zipfile.ZipInfo], name: str) -> None:
    """Members that share bytes unpack to any number of times what the file holds."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise RefusedError(f"{name} is not a checkpoint", f"its member {info.filename!r} lies inside another")
        end = info.header_offset + _LOCAL_HEADER + len(info.filename) + info.compress_size


def _is_plain(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.split("/")
    return bool(info.filename) and ".." not in parts and parts[0] != "" and "\\" not in info.filename


@contextmanager
def open_zip(source: Path | bytes, what: str = "") -> Iterator[Members]:
    """The members of the zip at a path, or of a zip's bytes, which errors call `what`.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is not a zip, damaged, or has members no checkpoint has.
    """
    name = what or source.name if isinstance(source, Path) else what
    with _Sparing(open_file(source, MAX_ARCHIVE).detach()) if isinstance(source, Path) else io.BytesIO(source) as file:
        with _explained(name):
            archive = zipfile.ZipFile(file)
        with archive:
            yield Members(archive, name)


class _Sparing(io.BufferedReader):
    """A file of which little is read at a time: a zip may claim that its list of members is gigabytes long."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(MAX_AT_ONCE + 1 if size is None or size < 0 else min(size, MAX_AT_ONCE + 1))
        if len(found) > MAX_AT_ONCE:
            raise ValueError(f"its list of members has more than {MAX_AT_ONCE} bytes")
        return found


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Python's zip reader answers damage with some ten kinds of exception; all mean that the file is refused."""
    try:
        yield
    except (KdcliError, MemoryError):
        raise
    except Exception as error:
        raise RefusedError(f"{what} cannot be read", str(error) or repr(error), _WRITTEN) from None
