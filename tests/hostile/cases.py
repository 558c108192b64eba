"""A case of the corpus: files in a folder, and what may become of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from seeds import Files, Seed

CANARY = "hacked"
COMMANDS = ("inspect", "load", "export")


class Law(Enum):
    """What may become of a case, besides being refused (exit code 4) with an error of up to three lines."""

    REFUSED = "nothing else"
    RIGHT = "it may load, if it acts exactly as the seed does"
    SAFE = "it may load, if its actions are finite numbers"
    LOADS = "it must load, and act exactly as the seed does"
    OPEN = "it may load as another policy, or kdcli may ask the user for more (exit code 2)"
    ASKED = "it may load and act exactly as the seed does, or kdcli may ask the user for more (exit code 2)"


@dataclass(frozen=True)
class Case:
    """Files made to harm, or harmed, in the place of a seed's; `write(folder)` writes them, and gives the path to read.

    `format` is the name of the seed, `kind` that of the harm; together with `name` they tell the case from all others.
    """

    format: str
    kind: str
    name: str
    law: Law
    write: Callable[[Path], Path]
    options: tuple[str, ...] = ()
    commands: tuple[str, ...] = COMMANDS

    @property
    def title(self) -> str:
        """The case in one line."""
        return f"{self.format}: {self.kind}: {self.name}"


def unharmed(seed: Seed) -> Law:
    """What becomes of a seed that is not harmed: programs are not loaded without being trusted."""
    return Law.REFUSED if seed.family == "program" else Law.LOADS


def of_files(seed: Seed, kind: str, name: str, files: Callable[[], Files], law: Law = Law.REFUSED) -> Case:
    """A case of the seed's files, changed."""

    def write(folder: Path) -> Path:
        for file, data in files().items():
            (folder / file).write_bytes(data)
        return folder / seed.main

    return Case(seed.format, kind, name, law, write, seed.options)


def of_main(seed: Seed, kind: str, name: str, main: Callable[[], bytes], law: Law = Law.REFUSED) -> Case:
    """A case of the seed's main file, changed."""
    return of_files(seed, kind, name, lambda: seed.with_main(main()), law)
