"""Members of a zip, with limits: names, sizes and checksums are checked before anything is used."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcli.errors import KdcliError, RefusedError, UsageError

MAX_MEMBERS = 1000
MAX_MEMBER = 2**30
MAX_TOTAL = 2**33
# Weights hardly compress, JSON some 20 times; a small file that unpacks to much more is a bomb.
MAX_RATIO, FREE_SIZE = 100, 2**24
_WRITTEN = "copy it again; it may be damaged"


class Members:
    """The members of one open zip, read by name."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive, self._name = archive, name
        self.names = [info.filename for info in archive.infolist()]
        self._check(archive.infolist())

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        bad = [info.filename for info in infos if not _is_plain(info)]
        if bad or len(set(self.names)) != len(infos):
            raise RefusedError(f"{self._name} is not a checkpoint", f"a member's name: {(bad or self.names)[0]!r}")
        if len(infos) > MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_TOTAL:
            raise RefusedError(f"{self._name} is too large", f"{len(infos)} members, or too much inside")

    def read(self, name: str, limit: int = MAX_MEMBER) -> bytes:
        """The content of one member, its checksum verified.

        Raises:
            RefusedError: it is missing, damaged, encrypted, or larger than `limit` bytes.
        """
        if name not in self.names:
            raise RefusedError(f"{self._name} has no member {name!r}", "it is not complete", _WRITTEN)
        with _explained(f"{self._name}: {name}"):
            info = self._archive.getinfo(name)
            if info.file_size > min(limit, max(FREE_SIZE, MAX_RATIO * info.compress_size)):
                raise RefusedError(f"{self._name}: {name} is too large", f"it unpacks to {info.file_size} bytes")
            with self._archive.open(info) as member:
                content = member.read(info.file_size + 1)
        if len(content) != info.file_size:
            raise RefusedError(f"{self._name}: {name} is damaged", "its size is not what the zip says", _WRITTEN)
        return content


def _is_plain(info: zipfile.ZipInfo) -> bool:
    parts = info.filename.split("/")
    return bool(info.filename) and ".." not in parts and parts[0] != "" and "\\" not in info.filename


@contextmanager
def open_zip(path: Path) -> Iterator[Members]:
    """The members of the zip at `path`.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is not a zip, damaged, or has members no checkpoint has.
    """
    with _explained(path.name):
        archive = zipfile.ZipFile(path)
    with archive:
        yield Members(archive, path.name)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Python's zip reader answers damage with some ten kinds of exception; all mean that the file is refused."""
    try:
        yield
    except KdcliError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UsageError(f"cannot read {what}", error.strerror or str(error), "check the path") from None
    except Exception as error:
        raise RefusedError(f"{what} cannot be read", str(error) or repr(error), _WRITTEN) from None
