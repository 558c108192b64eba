"""What a policy's C files say of themselves: the record as a comment for people and as strings for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdcli.exporters.c.files import CONTRACT, HEADER, NO_RECORD, SOURCE
from kdcli.exporters.c.names import json_words

_PIECE = 400  # C99 compilers need not take strings of more than 4,095 characters
_LINE = 118


def contract(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a program needs to call the policy: `inputs`, `outputs`, `symbol`, `header`, and the bytes that it takes."""
    lines = files[HEADER].decode().splitlines()
    return json.loads(next(line for line in lines if line.startswith(CONTRACT)).removeprefix(CONTRACT))


def stamp(files: Mapping[str, bytes], record: Mapping[str, Any]) -> dict[str, bytes]:
    """The files with the record in them; no statement and no number of the policy changes."""
    name = contract(files)["symbol"]
    header = files[HEADER].decode().replace(NO_RECORD, _announced(name, record), 1)
    source = files[SOURCE].decode() + _strings(name, record)
    return {**files, SOURCE: source.encode(), HEADER: header.encode()}


def _announced(name: str, record: Mapping[str, Any]) -> str:
    lines = json_words(dict(record), indent=1).splitlines()
    comment = "".join(f" * {line}\n" for line in lines)
    return (
        f"/* Where it comes from, what it observes, how alike it acts:\n{comment} */\n"
        "/* The same as JSON, in strings one after the other, the last a null pointer. */\n"
        f"extern const char *const {name}_record[];\n"
    )


def _strings(name: str, record: Mapping[str, Any]) -> str:
    text = json.dumps(dict(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    lines = "".join(f'    "{_escaped(piece)}",\n' for piece in pieces)
    return (
        f"\n#ifndef {name.upper()}_NO_RECORD /* defined, it saves {len(text)} bytes */\n"
        f"const char *const {name}_record[] = {{\n{lines}    0\n}};\n#endif\n"
    )


def _escaped(text: str) -> str:
    """Inside a C string: two question marks would be another character."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("?", "\\?")


def constant_bytes(files: Mapping[str, bytes]) -> int:
    """Bytes of the policy's constants (flash), as its header says."""
    lines = (line.split() for line in files[HEADER].decode().splitlines())
    return int(next(words[2] for words in lines if len(words) == 3 and words[1].endswith("_CONSTANT_BYTES")))
