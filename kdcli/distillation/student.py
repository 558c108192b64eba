"""A fresh student for a teacher: same spaces, same action rule, its own network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.actor import Actor, teaches
from kdcli.agents.agent import Agent
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor, is_image, plain_part
from kdcli.agents.policy import Policy, Signal, Spread
from kdcli.agents.weight_init import init_from_teacher
from kdcli.choice import Choice
from kdcli.distillation.config import DistillConfig, ResolvedConfig
from kdcli.distillation.losses.facts import LossFacts
from kdcli.distillation.objective import facts_of_term
from kdcli.errors import UsageError, option
from kdcli.networks import FLAT, REMEMBERING, build
from kdcli.networks.feature_branches import is_image as has_map
from kdcli.spec import MASK, OBS, Box, Dict, Part, parts, split_rows

# Whether an image is seen, and whether the teacher remembers -> the architecture.
_DEFAULT = {
    (False, False): "mlp:32x32",
    (True, False): "cnn:16x32x32,hidden=128",
    (False, True): "gru:32",
    (True, True): "gru:64,cnn=16x32x32",
}


def default_losses(teacher: Actor) -> tuple[str, ...]:
    """The loss for what the teacher gives: KL on logits, likelihood of the greedy action on Q-values, else actions."""
    rule = rule_of(teacher)
    if rule.continuous:
        return ("action",) if rule.bounded else ("mean",)
    return ("kl",) if teaches(teacher) and teacher.signal == "logits" else ("nll",)


def rule_of(teacher: Actor) -> ActionRule:
    """The teacher's action rule; a black box gets the plain one of its action space."""
    if teaches(teacher):
        return teacher.rule
    return ActionRule(teacher.action, masked=MASK in parts(teacher.observation))


def resolve(config: DistillConfig, teacher: Actor, student: Agent | None = None) -> ResolvedConfig:
    """Fill in what the config leaves open: student and losses by the teacher, how the student learns by its network.

    At equal time convolutions learn more from many small batches; a rate that is good for an MLP is too high for them.
    Windows of several steps need larger ones. `student` is the one that is there already.
    """
    memory = bool(teacher.state_size)
    text = config.student or _DEFAULT[_sees_image(teacher), memory]
    name, seen = Choice.parse(text).name, parts(teacher.observation).values()
    maps = any(isinstance(part, Box) and has_map(part.shape) for part in seen)  # boards of floats are no image to SB3
    convolves, windows = maps and name not in FLAT, name in REMEMBERING
    if student is not None:
        convolves, windows = _convolves(student), bool(student.state_size)
    found = {
        "student": text,
        "batch": config.batch or (64 if convolves and not windows else 256),
        "lr": config.lr or f"cosine:{0.001 if convolves else 0.003}->0.00003",
        "losses": config.loss or default_losses(teacher),
    }
    return ResolvedConfig(**{**dict(config), **found})


def _sees_image(teacher: Actor) -> bool:
    """Whether an image is observed that the teacher does not read as mere numbers."""
    images = {name for name, part in parts(teacher.observation).items() if is_image(part)}
    read: Mapping[str, Preprocess] = teacher.preprocess.parts if teaches(teacher) else {}
    return any(name not in read or len(read[name].shape) == 3 for name in images)


def _convolves(student: Agent) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in student.policy.network.modules())


def new_student(teacher: Actor, config: DistillConfig, losses: Sequence[str], preprocess: Preprocessor) -> Agent:
    """An untrained student of the architecture that `config.student` names; `preprocess` is how it sees the world.

    One that is to explore, or whose likelihood is a loss, has a spread of its own.

    Raises:
        UsageError: unknown architecture, or a teacher whose layers it cannot begin with.
    """
    taught = [facts_of_term(text) for text in losses]
    rule = rule_of(teacher)
    choice = Choice.parse(config.student)
    network = build(choice, input_shapes_of(preprocess, rule), rule.n_outputs, config.seed)
    value = None
    if any(each.critic for each in taught):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            value = nn.Linear(network.head.in_features, 1)
    spreads = rule.continuous and (config.reinforce or any(each.spread for each in taught))
    spread = Spread.learned(rule.n_outputs) if spreads else None
    policy = Policy(network, rule, _signal(rule, taught), spread, value)
    facts = {"format": "kdcli", "algorithm": "distilled", "student": str(choice), "teacher": teacher.name}
    agent = Agent(preprocess, policy, f"{teacher.name}-{choice.name}-{choice.value or 'x'}", teacher.env, facts)
    if config.init == "random":
        return agent
    if not isinstance(teacher, Agent):
        what = f"{option('init', 'teacher')} needs the teacher's layers"
        raise UsageError(what, f"{teacher.name} has none of its own", "leave it out")
    return init_from_teacher(agent, teacher)


def input_shapes_of(preprocess: Preprocessor, rule: ActionRule) -> list[tuple[int, ...]]:
    """The shapes of the features side by side that a network reads; the mask is not among them."""
    return [part.shape for name, part in preprocess.parts.items() if not (rule.masked and name == MASK)]


def _signal(rule: ActionRule, losses: Sequence[LossFacts]) -> Signal:
    if rule.continuous:
        return "mean"
    return "q" if any(each.q_outputs for each in losses) else "logits"


def preprocess_for(teacher: Actor, observations: np.ndarray) -> Preprocessor:
    """The teacher's preprocessing, or normalization by `observations` (N, *shape) where the teacher has none."""
    space = teacher.observation
    given: Mapping[str, Preprocess] = teacher.preprocess.parts if teaches(teacher) else {}
    columns = split_rows(space, observations)
    read = {name: _part_for(part, given.get(name), columns[name]) for name, part in parts(space).items()}
    return JointPreprocess(space, read) if isinstance(space, Dict) else read[OBS]


def _part_for(space: Part, given: Preprocess | None, observations: np.ndarray) -> Preprocess:
    """One part: as the teacher reads it where that is more than taking it as it is, else normalized by its moments."""
    if given is not None and (given.normalizer is not None or given.image or given.channels_last):
        return given
    columns = None if given is None else given.columns
    read = plain_part(space) if given is None else Preprocess(space, image=is_image(space), columns=columns)
    if not isinstance(space, Box) or read.image:
        return read
    seen = observations if read.places is None else observations.reshape(len(observations), -1)[:, read.places]
    return replace(read, normalizer=Normalizer.from_data(seen))
