"""`kdcli.verify`: whether files that kdcli wrote are as they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kdcli.api.result import Result
from kdcli.errors import KdcliError, RefusedError, UsageError

_COMPRESS = "kdcli.compress/"


@dataclass(frozen=True)
class Checked:
    """A file or dataset: what it is, and what is wrong with it; `damage` is None where nothing is."""

    path: Path
    kind: str
    damage: str | None


@dataclass(frozen=True, repr=False)
class VerifyResult(Result):
    """All that was checked, in order; `passed` where nothing is damaged."""

    checked: tuple[Checked, ...]

    @property
    def damaged(self) -> list[Checked]:
        """What is not as it was written."""
        return [one for one in self.checked if one.damage is not None]

    @property
    def passed(self) -> bool:
        """Whether everything is as it was written."""
        return not self.damaged

    def summary(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {"passed": self.passed, "checked": [asdict(one) | {"path": str(one.path)} for one in self.checked]}

    def facts(self) -> Mapping[str, Any]:
        """How much was checked, and what is damaged."""
        return {"checked": len(self.checked), "damaged": ", ".join(str(one.path) for one in self.damaged) or "nothing"}


Check = tuple[Path, str, Callable[[], object]]


def verify(*paths: Path | str) -> VerifyResult:
    """Read every byte of what kdcli wrote, and compare it with the digests that were written with it.

    Args:
        *paths: Agent files, datasets, exported ONNX files, and the folders of compress, distill_many, run and study.

    Raises:
        UsageError: a path does not exist, or nothing in it has a digest.
    """
    return VerifyResult(tuple(_checked(check) for path in paths for check in _checks(Path(path))))


def _checked(check: Check) -> Checked:
    path, kind, read = check
    try:
        read()
    except KdcliError as error:
        return Checked(path, kind, f"{error.what}: {error.why}")
    return Checked(path, kind, None)


def _checks(path: Path) -> list[Check]:
    """What there is to check, a file or dataset each.

    Raises:
        UsageError: nothing.
    """
    if not path.exists():
        raise UsageError(f"cannot read {path}", "it does not exist", "check the path")
    found = list(_in_folder(path) if path.is_dir() else _of_file(path))
    if not found:
        why = "nothing there has a digest: known are agents, datasets, ONNX files and the folders of kdcli's commands"
        raise UsageError(f"{path} cannot be verified", why, "name one of these")
    return found


def _of_file(path: Path) -> Iterator[Check]:
    """An agent or a policy, which says itself what its content is to be."""
    from kdcli import artifact
    from kdcli.agents.onnx.session import load

    if path.suffix == ".safetensors":
        yield path, "agent", lambda: artifact.read_tensors(path)
    elif path.suffix == ".onnx":
        yield path, "ONNX", lambda: load(path)


def _in_folder(folder: Path) -> Iterator[Check]:
    from kdcli.datasets import Dataset

    if (folder / "manifest.json").exists():
        yield folder, "dataset", lambda: Dataset.open(folder).verify()
    elif (folder / "study.json").exists():
        yield from _study(folder)
    elif (folder / "recipe.json").exists():
        yield from _run(folder)
    elif (folder / "tasks.json").exists():
        for file in sorted(folder.glob("*.safetensors")):
            yield from _of_file(file)


def _run(folder: Path) -> Iterator[Check]:
    """The folder of `compress`, whose record names its files, or of `run`, whose record names the steps' outputs."""
    from kdcli import artifact
    from kdcli.files import MAX_RECORDS, read_json

    mark = folder / "recipe.json"
    try:
        record = read_json(mark, MAX_RECORDS)
        of_compress = str(record["schema"]).startswith(_COMPRESS)
        if of_compress and "files" not in record:  # of an earlier version
            yield from (check for file in sorted(folder.iterdir()) for check in _of_file(file))
            return
        named = record["files"] if of_compress else {step["output"]: step["sha256"] for step in record["steps"]}
        wanted = {str(name): str(digest_) for name, digest_ in named.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield mark, "record", _damaged(mark, f"it does not say what is there: {error!r}"[:200])
        return
    if of_compress:
        yield mark, "record", lambda: artifact.check_sealed(record, mark)
    for name, sha256 in wanted.items():
        file = folder / name
        yield file, "output", partial(_same, file, sha256)
        if file.is_dir() and (file / "manifest.json").exists():
            yield from _in_folder(file)


def _study(folder: Path) -> Iterator[Check]:
    from kdcli.studies.folder import Folder

    study = Folder(folder)
    for kind in ("teachers", "cells"):
        for file in sorted((folder / kind).glob("*.json")):
            yield file, "record", partial(study.read, kind, file.stem)
    for file in sorted((folder / "cells").glob("*.json")):
        yield study.student(file.stem), "student", partial(study.check_student, file.stem)


def _same(file: Path, sha256: str) -> None:
    from kdcli import artifact

    if not file.exists():
        raise RefusedError(f"{file} is missing", "the record names it", "make it again")
    if artifact.digest(file) != sha256:
        raise RefusedError(f"{file} is damaged", "its content does not match its digest", "copy or make it again")


def _damaged(file: Path, why: str) -> Callable[[], None]:
    def refuse() -> None:
        raise RefusedError(f"{file} is damaged", why, "copy or make it again")

    return refuse
