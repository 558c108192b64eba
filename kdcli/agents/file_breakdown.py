"""What takes up the bytes of an agent's file."""

from __future__ import annotations

from pathlib import Path

from kdcli import artifact

_KINDS = {"codes": "codes", "levels": "levels", "scale": "levels", "zero": "levels"}


def bytes_by_part(path: Path) -> dict[str, int]:
    """Bytes of packed codes, the levels they stand for, plain floats, the normalizer, and the description.

    Raises:
        UsageError, RefusedError: as `artifact.read_header`.
    """
    header = artifact.read_header(path)
    found = dict.fromkeys(("codes", "levels", "floats", "normalizer"), 0)
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            found[_part(name)] += stop - start
    rest = path.stat().st_size - sum(found.values())
    return {name: size for name, size in {**found, "description": rest}.items() if size}


def _part(name: str) -> str:
    if name.startswith("normalizer."):
        return "normalizer"
    return _KINDS[name.rpartition(".")[2]] if name.startswith("packed.") else "floats"
