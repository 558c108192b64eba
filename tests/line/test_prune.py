"""`kdcli prune` as a user runs it, on toy envs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_teachers import choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.cli.main import main
from kdcli.envs.play import open_vector, play, seeds_from


def saved(agent: Agent, folder: Path) -> Path:
    return store.save(folder / f"{agent.name}.safetensors", agent, {})


@pytest.mark.parametrize(("make", "units"), [(reach_teacher, 4), (choose_teacher, 6)])
def test_lossless_leaves_what_acts(
    make: object, units: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law: units that do nothing go, the returns stay what they were, and the same command gives the same bytes."""
    whole = make()  # type: ignore[operator]
    file, outputs = saved(whole, tmp_path), [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for output in outputs:
        assert main(["prune", str(file), "-o", str(output), "--lossless", "--states", "2000", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
    thin = store.load(outputs[0])
    assert thin.policy.network.hidden == (units,)
    assert answer["sizes"]["after"]["params"] == thin.n_params < answer["sizes"]["before"]["params"]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    vector = open_vector(whole.env, whole)
    before, after = (play(agent, vector, seeds_from(10_000, 8)).returns for agent in (whole, thin))
    assert before == pytest.approx(after, rel=1e-4)


def test_the_answer_is_a_table_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: what a user reads is the sizes before and after, the proof, and where the file is."""
    file, output = saved(reach_teacher(), tmp_path), tmp_path / "thin.safetensors"
    assert main(["prune", str(file), "-o", str(output), "--lossless", "--states", "500"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["before", "after"]
    assert "acts alike on" in said
    assert said.splitlines()[-1] == str(output)
    assert main(["prune", str(file), "-o", str(output), "--lossless"]) == 2  # exists


def test_what_is_missing_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: without an env there are no real states, and nothing is written."""
    file, output = saved(replace(reach_teacher(), env=None), tmp_path), tmp_path / "thin.safetensors"
    assert main(["prune", str(file), "-o", str(output), "--lossless"]) == 2
    assert "--env" in capsys.readouterr().err
    assert main(["prune", str(file), "-o", str(output)]) == 2
    assert not output.exists()
