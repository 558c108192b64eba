"""What is known about an env that does not fit an agent, and the option that mends it."""

from __future__ import annotations

from kdcli.spec import MASK, Box, Dict, EnvSpec, Part, Space, n_features, parts, same_space

Advice = tuple[str, str]
_NAMED = "name the env it was trained on with --env, its wrappers with --wrapper"
_OTHER = ("it is another env, another version, or a wrapper is missing", _NAMED)


def advise(spec: EnvSpec, env: Space, agent: Space) -> Advice:
    """Why observations differ, and what to do."""
    if isinstance(env, Dict) or isinstance(agent, Dict):
        return _of_parts(spec, env, agent)
    return _of_images(env, agent) or _of_widths(spec, env, agent)


def _of_parts(spec: EnvSpec, env: Space, agent: Space) -> Advice:
    given, wanted = parts(env), parts(agent)
    missing, more = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    if missing == [MASK]:
        return "the agent reads which actions are allowed", "--wrapper action-mask"
    if not isinstance(agent, Dict):
        return f"the env gives {', '.join(given)}, the agent reads one vector or image", "--wrapper flatten, or --env"
    if missing or more:
        lacks = f"the env does not give {', '.join(missing)}" if missing else "the env gives all it reads"
        rest = f", and {', '.join(more)} besides" if more else ""
        return lacks + rest, _NAMED
    [name, *_] = [name for name in wanted if not same_space(given[name], wanted[name])]
    why, fix = advise(spec, given[name], wanted[name])
    return f"{name} is {given[name]}, the agent's {wanted[name]}: {why}", fix


def _of_images(env: Part, agent: Part) -> Advice | None:
    if not (isinstance(env, Box) and isinstance(agent, Box) and len(env.shape) == len(agent.shape) == 3):
        return None
    if env.shape == (210, 160, 3):
        stack = f" --wrapper frame-stack:{max(1, min(agent.shape))}"
        last = "" if agent.shape[2] == min(agent.shape) else " --wrapper channels-first"
        return "the screen of an Atari game, before DQN's preprocessing", f"--wrapper atari{stack}{last}"
    if agent.shape == (env.shape[2], *env.shape[:2]):
        return "the agent reads the channels of images first", "--wrapper channels-first"
    if agent.shape == (*env.shape[1:], env.shape[0]):
        return "the agent reads the channels of images last", "--wrapper channels-last"
    for axis in (0, 2):
        rest = [(e, a) for i, (e, a) in enumerate(zip(env.shape, agent.shape, strict=True)) if i != axis]
        n, over = divmod(agent.shape[axis], env.shape[axis])
        if all(e == a for e, a in rest) and n > 1 and not over:
            return f"the agent reads {n} frames at once", f"--wrapper frame-stack:{n}"
    return None


def _of_widths(spec: EnvSpec, env: Part, agent: Part) -> Advice:
    missing = n_features(agent) - n_features(env)
    if spec.id.startswith("Ant-") and n_features(agent) in (111, 112):
        return (
            "Ant-v3's 84 contact forces were always zero when trained through mujoco-py > 2.0; today's are real",
            "--env Ant-v5 --env-kwargs include_cfrc_ext_in_observation=false --wrapper pad:84"
            + (" --wrapper time-feature" if n_features(agent) == 112 else ""),
        )
    frames, over = divmod(n_features(agent), max(1, n_features(env)))
    vectors = isinstance(env, Box) and isinstance(agent, Box) and len(env.shape) == 1 == len(agent.shape)
    if vectors and frames > 1 and not over:
        return (
            f"the agent reads {frames} times as many numbers: {frames} frames at once",
            f"--wrapper frame-stack:{frames}",
        )
    if missing == 1:
        return "one more input: RL Zoo's TimeFeatureWrapper adds one", "--wrapper time-feature"
    if missing > 1:
        return f"the agent has {missing} inputs more, added by a wrapper or another version", _NAMED
    return _OTHER
