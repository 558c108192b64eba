"""Agents that read some of the numbers they are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, normalizer, observations

from kdcli.agents import store
from kdcli.agents.observation import Normalizer
from kdcli.artifact import write_tensors
from kdcli.distillation.student import preprocess_for
from kdcli.errors import RefusedError

SOME = [name for name in POLICIES if name.startswith("sees_some")]
each = pytest.mark.parametrize("name", SOME)


@each
def test_columns_are_those_of_all_features(name: str) -> None:
    """Law: what is picked are columns of what would be read of everything, bit for bit; packed or not."""
    agent = POLICIES[name]()
    sees, obs = agent.preprocess, observations(agent, 20)
    norm = sees.normalizer
    if norm is not None:
        mean, scale = np.zeros(sees.space.shape), np.ones(sees.space.shape)
        mean.flat[list(sees.columns)], scale.flat[list(sees.columns)] = norm.mean, norm.scale
        norm = Normalizer(mean, scale, norm.clip)
    whole = replace(sees, columns=None, normalizer=norm)
    assert torch.equal(sees(obs), whole(obs)[:, list(sees.columns)])
    assert torch.equal(sees.unpack(sees.pack(obs)), sees(obs))
    assert sees(obs).shape[1] == sees.n_features == len(sees.columns)


@each
def test_columns_survive_the_file(name: str, tmp_path: Path) -> None:
    """Law: an agent that reads some columns is read back as it was."""
    agent = POLICIES[name]()
    again = store.load(store.save(tmp_path / "a.safetensors", agent, {}))
    assert again.preprocess.columns == agent.preprocess.columns
    assert np.array_equal(again.act(observations(agent, 20)), agent.act(observations(agent, 20)))


@pytest.mark.parametrize("columns", [[], [-1, 3], [1, 5], [3, 1], [1, 1], ["x", "y"], 3])
def test_columns_that_are_none_are_refused(columns: object, tmp_path: Path) -> None:
    """Law: a file that names columns which are not there is no agent."""
    agent = POLICIES["sees_some"]()
    record = store.describe(agent)
    record["parts"]["obs"]["columns"] = columns
    path = write_tensors(tmp_path / "a.safetensors", record, store.tensors_of(agent))
    with pytest.raises(RefusedError):
        store.load(path)


def test_students_read_what_their_teacher_reads() -> None:
    """Law: a student sees the columns of its teacher alone, normalized by their own moments."""
    agent = POLICIES["sees_some"]()
    obs = observations(agent, 100)
    sees = preprocess_for(agent, obs)
    assert sees.columns == agent.preprocess.columns
    np.testing.assert_allclose(sees(obs).mean(0), 0.0, atol=1e-5)
    kept = replace(agent, preprocess=replace(agent.preprocess, normalizer=normalizer((2,))))
    assert preprocess_for(kept, obs) is kept.preprocess
