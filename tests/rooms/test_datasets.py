"""Datasets: what is written is read, what is damaged is refused, what is interrupted goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli import artifact
from kdcli.datasets import Dataset, manifest, shards
from kdcli.datasets.manifest import Manifest
from kdcli.datasets.shards import Columns
from kdcli.datasets.writer import writing
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import EnvSpec, box, space_to_json

ROWS = 50
MADE = {
    "env": EnvSpec("Sample-v0").to_json(),
    "observation": space_to_json(box((4, 3), 0, 255, "uint8")),
    "action": space_to_json(box((2,), -1.0, 1.0)),
    "seed": 0,
}


def columns(index: int, rows: int = ROWS) -> Columns:
    """The columns of a shard, one of each kind; episodes end after 7, 8, 9, ... rows."""
    rng = np.random.default_rng(index)
    episode = np.repeat(np.arange(rows), np.arange(7, 7 + rows))[:rows] + index * ROWS
    last = np.append(np.diff(episode) > 0, False)
    return {
        "obs": rng.integers(0, 256, (rows, 4, 3), np.uint8),
        "action": rng.standard_normal((rows, 2)).astype(np.float32),
        "behaviour": rng.integers(0, 3, rows).astype(np.int8),
        "reward": rng.standard_normal(rows),
        "terminated": last & (episode % 2 == 0),
        "truncated": last & (episode % 2 == 1),
        "episode": episode.astype(np.int64),
        "t": (np.arange(rows) - np.searchsorted(episode, episode)).astype(np.int32),
        "seed": episode.astype(np.int64) + 1000,
        "teacher.greedy": rng.standard_normal((rows, 2)).astype(np.float32),
        "teacher.value": rng.standard_normal(rows).astype(np.float32),
    }


def plan(n_steps: int = 120, **made: Any) -> Manifest:
    """A dataset of `n_steps` rows, not begun."""
    return Manifest({**MADE, **made}, n_steps, ROWS, shards.layout_of(columns(0)))


def make(folder: Path, planned: Manifest | None = None, force: bool = False) -> Path:
    """Write whatever is missing of a dataset."""
    with writing(folder, planned or plan(), force) as writer:
        for index in writer.missing():
            writer.add(columns(index, writer.manifest.rows_of(index)))
    return folder


def whole(planned: Manifest | None = None) -> Columns:
    """What `make` writes, in memory."""
    planned = planned or plan()
    parts = [columns(index, planned.rows_of(index)) for index in range(planned.n_shards)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 120 rows in three shards; not to be changed."""
    return make(tmp_path_factory.mktemp("sample") / "data")


def equal(found: Columns, wanted: Columns) -> bool:
    """Whether the same columns have the same dtypes and values."""
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype and np.array_equal(found[name], wanted[name]) for name in wanted
    )


@given(indices=st.lists(st.integers(0, 119), max_size=200))
def test_rows_by_index(sample: Path, indices: list[int]) -> None:
    """Law: any rows, in any order and more than once, are the rows that were written, bit for bit."""
    where, wanted = np.array(indices, np.int64), whole()
    assert equal(Dataset.open(sample).gather(where), {name: column[where] for name, column in wanted.items()})


@pytest.mark.parametrize("bad", [-1, 120])
def test_no_row_beyond_the_ends(sample: Path, bad: int) -> None:
    """Law: an index that is no row is an error, never another row."""
    with pytest.raises(IndexError):
        Dataset.open(sample).gather(np.array([0, bad]))


@given(rows=st.integers(1, 150))
def test_chunks_are_the_whole(sample: Path, rows: int) -> None:
    """Law: chunks of any size, joined, are the dataset in its order."""
    parts = list(Dataset.open(sample).chunks(rows))
    assert all(len(part["t"]) == rows for part in parts[:-1])
    assert equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, whole())


def test_only_the_columns_asked_for(sample: Path) -> None:
    """Law: named columns come alone."""
    assert Dataset.open(sample).gather(np.arange(3), ["reward", "t"]).keys() == {"reward", "t"}


def test_what_distillation_takes(sample: Path) -> None:
    """Law: labelled rows are observations, the teacher's columns under their own names, and beginnings, in order."""
    obs, labels = Dataset.open(sample).labelled()
    assert np.array_equal(obs, whole()["obs"])
    said = {name: whole()[f"teacher.{name}"] for name in ("greedy", "value")}
    assert equal(labels, {**said, "begins": whole()["t"] == 0})


@given(limit=st.integers(1, 200))
def test_a_limit_bounds_and_spreads(sample: Path, limit: int) -> None:
    """Law: a limit is kept exactly, and the rows kept are different ones from all over the dataset."""
    data = Dataset.open(sample)
    n = min(limit, 120)
    kept = np.arange(n) * 120 // n
    assert len(set(kept)) == n
    assert max(np.diff(kept, append=120)) <= 120 // n + 1
    assert np.array_equal(data.labelled(limit)[0], whole()["obs"][kept])


def test_returns_of_whole_episodes_only(sample: Path) -> None:
    """Law: a return is the sum over an episode that ended; what was cut at the end of a shard has none."""
    rows = whole()
    over = {int(e) for e in rows["episode"][rows["terminated"] | rows["truncated"]]}
    wanted = [rows["reward"][rows["episode"] == e].sum() for e in sorted(over)]
    data = Dataset.open(sample)
    assert len(wanted) == data.manifest.n_episodes == 12
    assert data.returns() == pytest.approx(wanted)
    assert data.manifest.mean_return == pytest.approx(np.mean(wanted))
    assert data.manifest.n_cut == len(set(rows["episode"])) - len(over) == 3


def test_a_dataset_describes_itself(sample: Path) -> None:
    """Law: env, spaces, dtypes and length are read back as they were given."""
    data = Dataset.open(sample)
    assert (len(data), data.env, str(data.observation), str(data.action)) == (
        120,
        EnvSpec("Sample-v0"),
        "Box(4, 3) uint8",
        "Box(2,) float32",
    )
    assert data.columns == shards.layout_of(columns(0))
    data.verify()


def test_opening_reads_no_rows(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: opening reads the manifest and headers; rows are mapped, read-only."""
    monkeypatch.setattr(artifact, "sha256", lambda _: pytest.fail("a shard was read"))
    data = Dataset.open(sample)
    assert all(not column.flags.writeable for part in data._parts for column in part.values())


def test_the_order_of_episodes() -> None:
    """Law: sorting keeps every row, puts those of an episode together, and keeps their order."""
    rows = columns(0)
    shuffled = np.random.default_rng(0).permutation(ROWS)
    mixed = {name: column[shuffled] for name, column in rows.items()}
    time_order = np.argsort(mixed["t"], kind="stable")
    assert equal(shards.by_episode({name: column[time_order] for name, column in mixed.items()}), rows)


def _cut_short(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _grow(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes() + b"x")


def _rename_column(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"reward"', b'"regret"'))


def _swap_shards(folder: Path) -> None:
    os.replace(folder / "shard-00002.safetensors", folder / "shard-00001.safetensors")


def _garbage(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(os.urandom(path.stat().st_size))


def _header(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F64"', b'"I64"'))


def _no_columns(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    size = path.stat().st_size
    path.write_bytes((2).to_bytes(8, "little") + b"[]" + bytes(size - 10))


def _edit(change: Callable[[dict[str, Any]], object], seal: bool = False) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = json.loads((folder / manifest.FILE).read_text())
        change(data)
        if seal:
            data["sha256"] = manifest._digest({key: value for key, value in data.items() if key != "sha256"})
        (folder / manifest.FILE).write_text(json.dumps(data))

    return damage


def _write(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / manifest.FILE).write_text(text) and None


DAMAGES = {
    "shard cut short": _cut_short,
    "shard grown": _grow,
    "shard missing": lambda folder: (folder / "shard-00001.safetensors").unlink(),
    "shard replaced": _swap_shards,
    "shard is garbage": _garbage,
    "column of another kind": _header,
    "column renamed": _rename_column,
    "header is a list": _no_columns,
    "manifest empty": _write(""),
    "manifest not JSON": _write("{"),
    "manifest a list": _write("[]"),
    "manifest nested": _write("[" * 100_000),
    "manifest of another tool": _write('{"name": "app", "version": "1"}'),
    "manifest edited": _edit(lambda data: data["made"].update(seed=1)),
    "newer": _edit(lambda data: data.update(schema=2)),
    "no columns": _edit(lambda data: data.update(columns=None), seal=True),
    "no column of columns": _edit(lambda data: data.update(columns={}), seal=True),
    "no time": _edit(lambda data: data["columns"].pop("t"), seal=True),
    "no observations": _edit(lambda data: data["columns"].pop("obs"), seal=True),
    "observations of another space": _edit(
        lambda data: data["made"].update(observation=space_to_json(box((5,)))), seal=True
    ),
    "no space": _edit(lambda data: data["made"].pop("observation"), seal=True),
    "an env that is a list": _edit(lambda data: data["made"]["env"].update(id=["x"]), seal=True),
    "no rows": _edit(lambda data: data.update(n_steps=0, shards=[]), seal=True),
    "a shard twice": _edit(lambda data: data["shards"].__setitem__(0, data["shards"][1]), seal=True),
    "rows of a word": _edit(lambda data: data.update(n_steps="many"), seal=True),
    "endless": _edit(lambda data: data["shards"][0].update(rows=float("inf")), seal=True),
    "file elsewhere": _edit(lambda data: data["shards"][0].update(file="../secret"), seal=True),
    "column of objects": _edit(lambda data: data["columns"]["t"].update(dtype="object"), seal=True),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(name: str, tmp_path: Path) -> None:
    """Law: whatever happened to a file of it, opening a dataset refuses it in three lines, and names the file."""
    folder = make(tmp_path / "data")
    DAMAGES[name](folder)
    with pytest.raises(RefusedError) as refused:
        Dataset.open(folder)
    assert str(folder) in refused.value.what
    assert len(refused.value.lines()) == 3


def test_verify_finds_one_flipped_bit(tmp_path: Path) -> None:
    """Law: a change that leaves lengths alone is found when every byte is read."""
    folder = make(tmp_path / "data")
    path = folder / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    opened = Dataset.open(folder)
    with pytest.raises(RefusedError, match="shard-00001"):
        opened.verify()


def test_what_is_no_dataset(tmp_path: Path) -> None:
    """Law: a folder without a manifest, and one that does not exist, are the user's mistake, not damage."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="is not a dataset"):
            Dataset.open(folder)


class Killed(BaseException):
    """The process ends here."""


def _killed_at(moment: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Write the dataset and stop just before or after the file operation `moment`; whether it came to that."""
    passed = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == moment:
                raise Killed
            done = operation(*args, **options)
            passed += 1
            if passed == moment:
                raise Killed
            return done

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "write_bytes", counted(Path.write_bytes))
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead do not clean up
        try:
            make(folder)
        except Killed:
            return True
    return False


def test_killed_at_any_moment(tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: after an end at any file operation nothing half-written is read, and going on gives the same bytes."""
    moment = 1
    while _killed_at(moment, tmp_path / str(moment), monkeypatch):
        folder = tmp_path / str(moment)
        if (folder / manifest.FILE).exists() and not manifest.read(folder).complete:
            with pytest.raises(UsageError, match="is not finished"):
                Dataset.open(folder)
        if not ((folder / manifest.FILE).exists() and manifest.read(folder).complete):
            assert content(make(folder)) == content(sample)
        moment += 1
    assert moment > 4 * (1 + 2 * 3)  # two operations, before and after, for the first manifest and three shards


def test_only_what_is_missing_is_made(tmp_path: Path, sample: Path) -> None:
    """Law: going on keeps the shards that are whole and makes again from the first that is missing or damaged."""
    folder = tmp_path / "data"
    with writing(folder, plan()) as writer:
        writer.add(columns(0))
        writer.add(columns(1))
    with writing(folder, plan()) as writer:
        assert list(writer.missing()) == [2]
    path = folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with writing(folder, plan()) as writer:
        assert list(writer.missing()) == [0, 1, 2]
    assert content(make(folder)) == content(sample)


def test_another_plan_is_not_continued(tmp_path: Path) -> None:
    """Law: what was begun otherwise is neither continued nor lost; the error names what differs."""
    folder = tmp_path / "data"
    with writing(folder, plan()) as writer:
        writer.add(columns(0))
    before = content(folder)
    with pytest.raises(UsageError) as refused:
        make(folder, plan(seed=1))
    assert refused.value.why == "made.seed was 0, now it is 1"
    assert len(refused.value.lines()) == 3
    assert content(folder) == before
    make(folder, plan(seed=1), force=True)
    assert Dataset.open(folder).made["seed"] == 1


def test_a_finished_dataset_is_safe(tmp_path: Path, sample: Path) -> None:
    """Law: a finished dataset is replaced with force only, and then nothing of it is left."""
    folder = make(tmp_path / "data")
    for other in (plan(), plan(seed=1)):
        with pytest.raises(UsageError, match="exists"):
            make(folder, other)
    assert content(folder) == content(sample)
    make(folder, plan(30), force=True)
    assert sorted(content(folder)) == ["manifest.json", "shard-00000.safetensors"]


def test_force_goes_on_where_force_was_interrupted(tmp_path: Path, sample: Path) -> None:
    """Law: the same command with force continues, too, once the old dataset is gone."""
    folder = make(tmp_path / "data", plan(seed=1))
    with writing(folder, plan(), force=True) as writer:
        writer.add(columns(0))
    with writing(folder, plan(), force=True) as writer:
        assert list(writer.missing()) == [1, 2]
    assert content(make(folder, force=True)) == content(sample)


@pytest.mark.parametrize("force", [False, True])
def test_foreign_folders_stay(tmp_path: Path, force: bool) -> None:
    """Law: a folder or file of the user is never written into, not even with force."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "app"}')
    for name in ("home", "file", "web"):
        with pytest.raises((UsageError, RefusedError)):
            make(tmp_path / name, force=force)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "file",
        "manifest.json",
        "thesis.tex",
    ]
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """Law: a second process that writes to the same folder is turned away, and lets the first one finish."""
    with writing(tmp_path / "data", plan()) as writer:
        with pytest.raises(UsageError, match="is in use"):
            make(tmp_path / "data")
        writer.add(columns(0))
    make(tmp_path / "data")


def test_a_full_disk(tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: a full disk is three lines; finished shards stay, nothing half-written does, and later it goes on."""
    folder, write = tmp_path / "data", Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "00001" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UsageError) as error:
            make(folder)
    assert "No space left" in error.value.why
    assert len(error.value.lines()) == 3
    assert sorted(content(folder)) == ["manifest.json", "shard-00000.safetensors"]
    assert content(make(folder)) == content(sample)


@pytest.mark.parametrize("name", ["reward", "action", "teacher.value"])
def test_nan_is_not_recorded(tmp_path: Path, name: str) -> None:
    """Law: NaN in any column stops the writing; the error says in which, and in which episode and step."""
    bad = columns(0)
    bad[name][20] = np.nan
    with writing(tmp_path / "data", plan()) as writer, pytest.raises(UsageError) as error:
        writer.add(bad)
    assert error.value.what == f"NaN in {name}"
    assert error.value.why == f"in the episode of seed {bad['seed'][20]}, at step {bad['t'][20]}"
    assert sorted(content(tmp_path / "data")) == ["manifest.json"]


def test_a_shard_is_as_planned(tmp_path: Path) -> None:
    """Law: columns or rows other than planned are a bug, and are not written."""
    with writing(tmp_path / "data", plan()) as writer:
        for bad in (columns(0, ROWS - 1), {**columns(0), "more": np.zeros(ROWS)}):
            with pytest.raises(ValueError, match="not as planned"):
                writer.add(bad)
    assert not manifest.read(tmp_path / "data").shards


def test_the_manifest_is_the_inverse_of_itself() -> None:
    """Law: a manifest read back is the one that was written."""
    made = replace(plan(), shards=(shards.Shard("shard-00000.safetensors", 50, 1, 2, 0.1, 3, "ab"),))
    assert Manifest.from_json(json.loads(json.dumps(made.to_json()))).to_json() == made.to_json()
