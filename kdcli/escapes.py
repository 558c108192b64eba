"""What comes out of a file, made plain before it is shown: no text steers a terminal, a page, or a compiler.

Names of agents, envs, files and tensors, and whatever an error quotes, may hold anything. Each place has its function:
a screen `printable`, a Markdown page `markdown`, a comment in C `kdcli.exporters.c.names.words`, which is of ASCII
alone; JSON escapes by itself.
"""

from __future__ import annotations

import re
import unicodedata

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_BLANK = re.compile(r"\s+")
# Signs that mean something within a line; underscores inside a word do not.
_INLINE = re.compile(r"[\\`*|<\[~]|&(?=#|\w+;)|(?<![^\W_])_|_(?![^\W_])")
# What makes a line a heading, a quotation, a list or a rule where it begins it.
_BEGINNING = re.compile(r"^(?:(?P<number>\d{1,9})(?=[.)](?:\s|$))|(?=#{1,6}(?:\s|$)|>|[+-](?:\s|$)|[=-]+\s*$))")
_LINK = re.compile(r"(?<=:)//|(?<=www)\.", re.IGNORECASE)


def printable(text: str) -> str:
    """`text` for a screen: without colors, its lines and tabs kept, all else that draws nothing spelled out.

    That are control characters, and those of format, which turn the direction of writing or hide: `\\x1b`, `\\u202e`.
    """
    text = _COLOR.sub("", text)
    return text if text.isprintable() else "".join(map(_spelled, text))


def _spelled(sign: str) -> str:
    if sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs":
        return sign
    return sign.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """`text` for a line of a screen: as `printable`, its blanks and breaks each a space."""
    return printable(_BLANK.sub(" ", text).strip())


def markdown(text: str) -> str:
    """`text` for a line or a heading of a Markdown page, where it reads as it is: no markup, HTML or link."""
    return _BEGINNING.sub(lambda found: f"{found['number'] or ''}\\", markdown_cell(text))


def markdown_cell(text: str) -> str:
    """`text` within a line, as in a cell of a table; otherwise as `markdown`."""
    plain = _INLINE.sub(lambda found: f"\\{found[0]}", one_line(text))
    return _LINK.sub(lambda found: f"\\{found[0]}", plain)
