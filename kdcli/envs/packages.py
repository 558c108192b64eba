"""Whose envs are called how: packages that gymnasium knows only after they were imported."""

from __future__ import annotations

import re

# The ids of a package's envs -> its module, and what pip calls it.
_PACKAGES = (
    (
        r"(highway|merge|roundabout|parking|intersection|racetrack|exit|two-way|u-turn|lane-keeping)(-\w+)*-v\d+",
        "highway_env",
        "highway-env",
    ),
    (r"(MiniGrid|BabyAI)-.+-v\d+", "minigrid", "minigrid"),
    (r"MiniWorld-.+-v\d+", "miniworld", "miniworld"),
    (
        r"(Fetch|Hand[A-Z]|AdroitHand|FrankaKitchen|PointMaze|AntMaze)\w*-v\d+",
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
    (r"Panda\w+-v\d+", "panda_gym", "panda-gym"),
    (r"\w+BulletEnv-v\d+", "pybullet_envs_gymnasium", "pybullet-envs-gymnasium"),
    (r"FlappyBird-(.+-)?v\d+", "flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    (r"Vizdoom\w+-v\d+", "vizdoom.gymnasium_wrapper", "vizdoom"),
    (r"gym_pusht/.+", "gym_pusht", "gym-pusht"),
    (r"gym_aloha/.+", "gym_aloha", "gym-aloha"),
    (r"Meta-World/.+", "metaworld", "metaworld"),
    (r"myo\w+-v\d+", "myosuite", "myosuite"),
    (r"PyFlyt/.+", "PyFlyt.gym_envs", "pyflyt"),
)


def package_of(env_id: str) -> tuple[str, str] | None:
    """The module to import for an env, and what to install for it; None for an id that no package is known for."""
    return next(((module, package) for ids, module, package in _PACKAGES if re.fullmatch(ids, env_id)), None)


def pip_name(module: str) -> str | None:
    """What to install for a module, where that is known."""
    return next((package for _, known, package in _PACKAGES if known.partition(".")[0] == module), None)
