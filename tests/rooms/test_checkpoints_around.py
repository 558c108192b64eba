"""What lies around a checkpoint: its statistics, and which of today's environments is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import registry
from sb3_oracle import ACTIONS, OBSERVATIONS, fresh

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.env_ids import N_INPUTS, RENAMED, Inputs, today
from kdcli.checkpoints.read import find_file, read
from kdcli.errors import RefusedError, UsageError
from kdcli.progress import Note
from kdcli.spec import EnvSpec

torch.set_num_threads(1)

ANT = np.r_[np.ones(27), np.full(84, 1e-11)]
ORDERED = "!!python/object/apply:collections.OrderedDict\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.zip and its vecnormalize.pkl."""
    folder = tmp_path_factory.mktemp("made")
    fresh(folder, "PPO", OBSERVATIONS["box"], ACTIONS["box"], normalized=True, policy_kwargs={"net_arch": [2]})
    return folder


def place(made: Path, zip_path: Path, statistics: Path | None = None) -> Path:
    """Copies of the zip and the statistics at these paths."""
    for path in (zip_path, *([statistics] if statistics else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made / "model.zip", zip_path)
    if statistics:
        shutil.copy(made / "vecnormalize.pkl", statistics)
    return zip_path


def ear() -> tuple[list[str], Any]:
    """A list, and the listener that fills it with notes."""
    heard: list[str] = []

    def listen(note: Any) -> None:
        assert isinstance(note, Note)
        heard.append(note.text)

    return heard, listen


# --- environments ---


def test_todays_ids_exist() -> None:
    """Law: an id is never mapped to one that gymnasium does not have, nor to one that is gone itself."""
    for new in {*RENAMED.values(), *N_INPUTS}:
        assert new in registry, new
        assert new not in RENAMED


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Box2D and MuJoCo
@pytest.mark.parametrize("env", N_INPUTS)
def test_inputs_are_those_of_the_env(env: str) -> None:
    """Law: the number of inputs written down for an env is the one it gives."""
    from kdcli.envs.make import make

    assert make(EnvSpec(env)).observation_space.shape == (N_INPUTS[env],)


@pytest.mark.parametrize(
    ("old", "new", "n"),
    [
        ("LunarLander-v2", "LunarLander-v3", 8),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3", 8),
        ("HalfCheetah-v3", "HalfCheetah-v5", 17),
        ("Walker2d-v2", "Walker2d-v5", 17),
        ("Humanoid-v3", "Humanoid-v4", 376),
        ("Pendulum-v0", "Pendulum-v1", 3),
        ("CartPole-v1", "CartPole-v1", 4),
        ("Unheard-v7", "Unheard-v7", 5),
        ("Ant-v4", "Ant-v4", 27),
    ],
)
def test_old_ids_become_todays(old: str, new: str, n: int) -> None:
    """Law: an id that is gone becomes today's with the same inputs, and it is said; others are left, silently."""
    found, said = today(EnvSpec(old, {"a": 1}), Inputs(n))
    assert found == EnvSpec(new, {"a": 1})
    assert len(said) == (old != new)


def test_ant_whose_contacts_never_moved() -> None:
    """Law: Ant-v3 becomes Ant-v5 with zeros for contact forces only if the statistics show they were always zero."""
    found, [said] = today(EnvSpec("Ant-v3"), Inputs(111, ANT))
    assert found == EnvSpec("Ant-v5", {"include_cfrc_ext_in_observation": False}, ("pad:84",))
    assert "always zero in training" in said
    for variance in (None, np.ones(111)):
        left, [said] = today(EnvSpec("Ant-v3"), Inputs(111, variance))
        assert left == EnvSpec("Ant-v3")
        assert "--wrapper pad:84" in said


def test_ant_with_time() -> None:
    """Law: the time feature comes last, after the zeros."""
    found, _ = today(EnvSpec("Ant-v3", {}, ("time-feature",)), Inputs(112, np.r_[ANT, 0.1]))
    assert found.wrappers == ("pad:84", "time-feature")


def test_one_input_more_suggests_the_time_feature() -> None:
    """Law: an agent with one input more than its env gets the advice, not the wrapper."""
    found, said = today(EnvSpec("Swimmer-v3"), Inputs(9))
    assert found.wrappers == ()
    assert any("time-feature" in text for text in said)


@pytest.mark.parametrize(
    ("path", "env"),
    [
        ("CartPole-v1.zip", "CartPole-v1"),
        ("ppo-CartPole-v1.zip", "CartPole-v1"),
        ("sac_Hopper-v3.zip", "Hopper-v5"),
        ("CartPole-v1_1/best_model.zip", "CartPole-v1"),
        ("CartPole-v1_1.zip", "CartPole-v1"),
        ("Swimmer-v3_best.zip", "Swimmer-v5"),
        ("MountainCarContinuous-v0/x.zip", "MountainCarContinuous-v0"),
        ("best_model.zip", None),
        ("model-v1.zip", None),
    ],
)
def test_the_env_in_the_name(path: str, env: str | None, made: Path, tmp_path: Path) -> None:
    """Law: without other files the env is taken from the file's or the folder's name, and that is said."""
    heard, listen = ear()
    found = read(place(made, tmp_path / path), listen=listen).env
    assert (found.id if found else None) == env
    assert any(("from the name" in text) if env else ("--env" in text) for text in heard)


def test_what_the_user_says_wins(made: Path, tmp_path: Path) -> None:
    """Law: --env comes before any file, with the arguments and wrappers given; an old id is today's, and said."""
    path = place(made, tmp_path / "CartPole-v1.zip")
    (tmp_path / "args.yml").write_text("env: Hopper-v3\nenv_kwargs: {b: 2}")
    config = LoadConfig(env="LunarLander-v2", env_kwargs=("continuous=true", "name=x", "n:3"), wrapper=("pad:2",))
    expected = EnvSpec("LunarLander-v3", {"continuous": True, "name": "x", "n": 3}, ("pad:2",))
    heard: list[Any] = []
    assert read(path, config, heard.append).env == expected
    assert any("LunarLander-v2 is gone from gymnasium: taking LunarLander-v3" in note.text for note in heard)


def test_wrappers_may_be_none(made: Path, tmp_path: Path) -> None:
    """Law: --wrapper none leaves out the wrappers that files name."""
    path = place(made, tmp_path / "CartPole-v1_1" / "CartPole-v1.zip")
    inner = tmp_path / "CartPole-v1_1" / "CartPole-v1"
    inner.mkdir()
    (inner / "config.yml").write_text("frame_stack: 2")
    found = [read(path, LoadConfig(wrapper=given)).env for given in ((), ("none",))]
    assert [env and bool(env.wrappers) for env in found] == [True, False]


def test_args_yml_is_read(made: Path, tmp_path: Path) -> None:
    """Law: RL Zoo's args.yml names the env and its arguments; --env-kwargs adds to them."""
    path = place(made, tmp_path / "CartPole-v1_1" / "CartPole-v1.zip")
    inner = tmp_path / "CartPole-v1_1" / "CartPole-v1"
    inner.mkdir()
    pairs = [["algo", "ppo"], ["env", "LunarLander-v2"], ["env_kwargs", {"gravity": -9.0}], ["x", None]]
    (inner / "args.yml").write_text(ORDERED + f"- {json.dumps(pairs)}\n")
    expected = EnvSpec("LunarLander-v3", {"gravity": -9.0, "continuous": True})
    assert read(path, LoadConfig(env_kwargs=("continuous=True",))).env == expected


# --- statistics ---


@pytest.mark.parametrize(
    ("file", "statistics"),
    [
        ("CartPole-v1.zip", "CartPole-v1/vecnormalize.pkl"),
        ("CartPole-v1.zip", "CartPole-v1/vec_normalize.pkl"),
        ("ppo-CartPole-v1.zip", "vec_normalize.pkl"),
        ("model.zip", "vecnormalize.pkl"),
        ("model", "vecnormalize.pkl"),
        ("rl_model_200_steps.zip", "rl_model_vecnormalize_200_steps.pkl"),
    ],
)
def test_statistics_are_found(file: str, statistics: str, made: Path, tmp_path: Path) -> None:
    """Law: VecNormalize's file is found where RL Zoo, the Hub and CheckpointCallback put it, and that is said."""
    heard, listen = ear()
    agent = read(place(made, tmp_path / file, tmp_path / statistics), listen=listen)
    assert agent.preprocess.normalizer is not None
    assert agent.facts["vecnormalize"]
    assert any(Path(statistics).name in text for text in heard)


def test_the_statistics_of_the_same_moment_win(made: Path, tmp_path: Path) -> None:
    """Law: a checkpoint at 200 steps takes the statistics at 200 steps, not the final ones."""
    path = place(made, tmp_path / "m_200_steps.zip", tmp_path / "m_vecnormalize_200_steps.pkl")
    (tmp_path / "vecnormalize.pkl").write_bytes(b"not these")
    assert read(path).preprocess.normalizer is not None


def test_best_model_warns(made: Path, tmp_path: Path) -> None:
    """Law: best_model.zip beside final statistics is read, with a warning that they may not belong together."""
    path = place(made, tmp_path / "best_model.zip", tmp_path / "CartPole-v1" / "vecnormalize.pkl")
    (tmp_path / "CartPole-v1" / "args.yml").write_text("env: CartPole-v1")
    heard, listen = ear()
    assert read(path, listen=listen).preprocess.normalizer is not None
    assert any("best_model.zip may be older" in text for text in heard)


def test_statistics_by_option(made: Path, tmp_path: Path) -> None:
    """Law: --vecnormalize names the file, 'none' says there is none, a missing one is the user's error."""
    path = place(made, tmp_path / "a.zip", tmp_path / "else" / "v.pkl")
    assert read(path).preprocess.normalizer is None
    assert read(path, LoadConfig(vecnormalize=str(tmp_path / "else" / "v.pkl"))).preprocess.normalizer is not None
    place(made, path, tmp_path / "vecnormalize.pkl")
    assert read(path, LoadConfig(vecnormalize="none")).preprocess.normalizer is None
    with pytest.raises(UsageError):
        read(path, LoadConfig(vecnormalize=str(tmp_path / "nowhere.pkl")))


def test_statistics_of_another_agent(made: Path, tmp_path: Path) -> None:
    """Law: statistics of another shape are refused; those of Dict observations, and other pickles, too."""
    other = tmp_path / "other"
    other.mkdir()
    fresh(other, "PPO", OBSERVATIONS["wide"], ACTIONS["box"], normalized=True)
    path = place(made, tmp_path / "a.zip", tmp_path / "vecnormalize.pkl")
    with pytest.raises(RefusedError, match=r"vecnormalize\.pkl does not belong to a\.zip"):
        read(path, LoadConfig(vecnormalize=str(other / "vecnormalize.pkl")))


@pytest.mark.parametrize(
    ("value", "normalized"),
    [
        (True, True),
        (False, False),
        ("dict(norm_obs=True, norm_reward=False)", True),
        ("dict(norm_obs=False, norm_reward=True)", False),
        ("{'norm_obs': False, 'norm_reward': True}", False),
        (None, False),
    ],
)
def test_normalised_training_without_statistics(value: Any, normalized: bool, made: Path, tmp_path: Path) -> None:
    """Law: when config.yml says observations were normalised and no file is found, going on would be blind."""
    path = place(made, tmp_path / "a.zip")
    (tmp_path / "config.yml").write_text(json.dumps({"normalize": value}))
    if normalized:
        with pytest.raises(UsageError, match="was trained on normalised observations"):
            read(path)
    assert read(path, LoadConfig(vecnormalize="none")).preprocess.normalizer is None
    if not normalized:
        assert read(path).preprocess.normalizer is None


def test_rewards_only(tmp_path: Path) -> None:
    """Law: a VecNormalize of rewards only changes no observation."""
    teacher = fresh(tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"], normalized=True)
    assert teacher.normalize is not None
    teacher.normalize.norm_obs = False
    teacher.normalize.save(str(tmp_path / "vecnormalize.pkl"))
    agent = read(teacher.path)
    assert agent.preprocess.normalizer is None
    obs = teacher.observations(50)
    np.testing.assert_array_equal(agent.act(obs), teacher.actions(obs))


# --- folders ---


def test_a_folder_is_its_checkpoint(made: Path, tmp_path: Path) -> None:
    """Law: a folder stands for its zip: the one with a folder of its name, else the only one; else it is asked."""
    place(made, tmp_path / "CartPole-v1.zip")
    assert find_file(tmp_path) == tmp_path / "CartPole-v1.zip"
    place(made, tmp_path / "best_model.zip")
    with pytest.raises(UsageError, match="is a folder"):
        find_file(tmp_path)
    (tmp_path / "CartPole-v1").mkdir()
    assert find_file(tmp_path) == tmp_path / "CartPole-v1.zip"
    assert find_file(tmp_path / "best_model") == tmp_path / "best_model.zip"


@pytest.mark.parametrize("text", ["x", "=1", "a b=1", "1a=2"])
def test_env_arguments_that_cannot_be(text: str) -> None:
    """Law: an env argument is name=value, or the user is told."""
    with pytest.raises(UsageError, match="cannot read the env argument"):
        LoadConfig(env_kwargs=(text,)).kwargs()


def test_the_record_names_no_path() -> None:
    """Law: what is recorded of the options holds the file's name, not where it was."""
    assert LoadConfig(vecnormalize="/home/me/v.pkl").recorded()["vecnormalize"] == "v.pkl"


def test_the_policy_class_of_the_first_versions(tmp_path: Path) -> None:
    """Law: a PPO policy under the name it had until SB3 0.6 is read as the same policy."""
    import base64
    import json
    import zipfile

    from kdcli.checkpoints.read import read

    source = Path(__file__).parents[2] / "sample_checkpoints/ppo/CartPole-v1_1/CartPole-v1.zip"
    old = tmp_path / "CartPole-v1.zip"
    pickled = b"\x80\x04cstable_baselines3.ppo.policies\nPPOPolicy\n."
    with zipfile.ZipFile(source) as theirs, zipfile.ZipFile(old, "w") as ours:
        data = json.loads(theirs.read("data"))
        data["policy_class"][":serialized:"] = base64.b64encode(pickled).decode()
        for name in theirs.namelist():
            ours.writestr(name, json.dumps(data) if name == "data" else theirs.read(name))
    obs = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    assert (read(old).act(obs) == read(source).act(obs)).all()
