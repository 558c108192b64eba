"""No option is accepted and ignored: each changes what is made and the record of it, or is refused by its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import BaseModel
from toy_teachers import choose_teacher, reach_teacher, remember_teacher

import kdcli
from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.applies import Applies
from kdcli.compression import pruning, quantization
from kdcli.compression.file_costs import Cost
from kdcli.distillation.checks import RULES as DISTILL_RULES
from kdcli.distillation.checks import TASK_RULES
from kdcli.distillation.config import ChainConfig, DistillConfig, TasksConfig
from kdcli.errors import spell
from kdcli.pruning.checks import RULES as PRUNE_RULES
from kdcli.pruning.config import PruneConfig
from kdcli.quantization.checks import RULES as QUANTIZE_RULES
from kdcli.quantization.config import QuantizeConfig
from kdcli.rollouts.checks import RULES as ROLLOUT_RULES
from kdcli.rollouts.config import RolloutConfig

Options = Mapping[str, Any]
DISTILL = {"student": "mlp:4", "labels": 120, "rounds": 2, "updates": 6, "episodes": 2, "envs": 2}
# What each verb is called with where a case says nothing else, and the configs that its options are fields of.
BASE: dict[str, Options] = {
    "distill": DISTILL,
    "distill_many": {**DISTILL, "student": "mlp:4x4"},
    "rollout": {"steps": 60, "envs": 2},
    "prune": {"to": "params<=40", "rounds": 1, "recover": 8, "labels": 100, "episodes": 4, "states": 120},
    "quantize": {"states": 100, "episodes": 4, "latency_budget": 0.0},
}
CONFIGS: dict[str, tuple[type[BaseModel], ...]] = {
    "distill": (DistillConfig, ChainConfig),
    "distill_many": (TasksConfig,),
    "rollout": (RolloutConfig,),
    "prune": (PruneConfig,),
    "quantize": (QuantizeConfig,),
}
RULES: dict[str, tuple[Applies[Any], ...]] = {
    "distill": DISTILL_RULES,
    "distill_many": TASK_RULES,
    "rollout": ROLLOUT_RULES,
    "prune": PRUNE_RULES,
    "quantize": QUANTIZE_RULES,
}


gymnasium.register("kdcli-test/Short-v0", "kdcli.envs.toys:Reach", max_episode_steps=3)


@dataclass(frozen=True)
class Case:
    """An option with a value, those beside it (None: not the base's), the agents, and those that it excludes."""

    verb: str
    name: str
    value: Any
    beside: Options = field(default_factory=dict)
    given: str = "choose"
    without: str = ""

    def __str__(self) -> str:
        return f"{self.verb}-{self.name}"

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside the option, or where it stands."""
        merged = {**BASE[self.verb], **self.beside}
        return {name: value for name, value in merged.items() if value is not None}

    def run(self, value: Any = None) -> Any:
        """What the verb makes, with the option where it has a value."""
        given = [TEACHERS[name]() for name in self.given.split("+")]
        own = self.options if value is None else {**self.options, self.name: value}
        left_out = () if value is None else self.without.split()
        called = {name: made(option) for name, option in own.items() if name not in left_out}
        return getattr(kdcli, self.verb)(given if len(given) > 1 else given[0], **called)


def rough_teacher() -> Agent:
    """Of which no two units matter alike."""
    agent = choose_teacher(16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return agent


TEACHERS = {
    "rough": rough_teacher,
    "choose": choose_teacher,
    "small": lambda: choose_teacher(16),
    "reach": reach_teacher,
    "remember": remember_teacher,
}


def made(value: Any) -> Any:
    """Agents and datasets among the values are made when they are needed."""
    if value == "@dataset":
        return kdcli.rollout(choose_teacher(), steps=200, envs=2).dataset
    return choose_teacher(16) if value == "@agent" else value


TWO, KL = "choose+small", {"loss": "kl"}
IN_TURN = {"order": "in-turn"}
AUTO = {"auto": True}
# An option with a value that changes what is made. A field that is not here fails.
CHANGES = [
    Case("distill", "combine", "weighted:0.9+0.1", given=TWO),
    Case("distill", "student", "mlp:5"),
    Case("distill", "init", "teacher", {"student": "mlp:8,activation=relu"}),
    Case("distill", "loss", "nll"),
    Case("distill", "tau", "8"),
    Case("distill", "weigh", "margin"),
    Case("distill", "balance", "uncertainty", {"loss": ("kl", "nll")}),
    Case("distill", "reinforce", "ppo"),
    Case("distill", "reinforce_steps", 60, {"reinforce": "ppo"}),
    Case("distill", "reinforce_entropy", 0.1, {"reinforce": "ppo"}),
    Case("distill", "data", "teacher", given="reach"),
    Case("distill", "beta", "1", given="reach"),
    Case("distill", "augment", "gaussian:0.1"),
    Case("distill", "curriculum", "env:kdcli-test/Short-v0->kdcli/Reach-v0", given="reach"),
    Case("distill", "replay", "prioritized:1"),
    Case("distill", "labels", 300),
    Case("distill", "labels", 100, {"data": "offline", "dataset": "@dataset", "envs": None}),
    Case("distill", "rounds", 3),
    Case("distill", "updates", 9),
    Case("distill", "batch", 16),
    Case("distill", "window", 3, {"student": "gru:4"}, "remember"),
    Case("distill", "lr", "0.1"),
    Case("distill", "noise", 0.5, given="reach"),
    Case("distill", "episodes", 3),
    Case("distill", "envs", 3),
    Case("distill", "capacity", 100, {"labels": 400}),
    Case("distill", "seed", 1),
    Case("distill", "teachers", "best", given=TWO),
    Case("distill", "via", "mlp:6"),
    Case("distill", "generations", 2),
    Case("distill_many", "order", "in-turn", given=TWO),
    Case("distill_many", "share", "all", IN_TURN, TWO),
    Case("distill_many", "keep", "l2@100", IN_TURN, TWO),
    Case("rollout", "steps", 80),
    Case("rollout", "policy", "random"),
    Case("rollout", "beta", 0.1, {"policy": "mixed", "student": "@agent"}, "choose"),
    Case("rollout", "noise", 0.5),
    Case("rollout", "sampled", True, given="reach"),
    Case("rollout", "envs", 3),
    Case("rollout", "seed", 1),
    Case("rollout", "shard_rows", 20),
    Case("prune", "lossless", True, without="to rounds recover labels episodes"),
    Case("prune", "to", "params<=30"),
    Case("prune", "pattern", "1:4", {"pattern": "2:4", "to": None, "rounds": None, "importance": "magnitude"}),
    Case("prune", "importance", "random", {"recover": 0, "labels": None}, "rough"),
    Case("prune", "allocation", "global", {"pattern": "weights", "to": "nonzeros<=20", "importance": "magnitude"}),
    Case("prune", "rounds", 2),
    Case("prune", "pace", "linear", {"rounds": 2}),
    Case("prune", "recover", 16),
    Case("prune", "labels", 400, given="rough"),
    Case("prune", "lr", "0.1"),
    Case("prune", "min_score", 2.0),
    Case("prune", "episodes", 6),
    Case("prune", "states", 200, {**dict.fromkeys(BASE["prune"]), "lossless": True, "states": 120}),
    Case(
        "prune",
        "importance_states",
        16,
        {"pattern": "weights", "to": "nonzeros<=20", "importance": "activation"},
        "rough",
    ),
    Case("prune", "seed", 1),
    Case("quantize", "scheme", "int4"),
    Case("quantize", "mixed", 3.0),
    Case("quantize", "activations", 8),
    Case("quantize", "inputs", 8, {"activations": 8}),
    Case("quantize", "calibration", "dynamic", {"activations": 8, "inputs": 8}),
    Case("quantize", "states", 200, {"activations": 8, "inputs": 8}, "reach"),
    Case("quantize", "updates", 8, {"scheme": "int2"}),
    Case("quantize", "auto", True),
    Case("quantize", "target", "latency", AUTO),
    Case("quantize", "batch", 256, {**AUTO, "target": "latency"}),
    Case("quantize", "episodes", 8, given="reach"),
    Case("quantize", "min_score", 5.0),
    Case("quantize", "confidence", 0.6, given="reach"),
    Case("quantize", "latency_budget", 0.05),
    Case("quantize", "seed", 1, given="reach"),
]
OFFLINE = {"data": "offline", "dataset": "@dataset", "labels": None, "envs": None}
# States that are recorded, and one round: nobody plays.
STILL = {"rounds": 1, "dataset": "@dataset", "labels": None, "envs": None}
LOSSLESS = {**{name: None for name in BASE["prune"] if name != "states"}, "lossless": True}
N_OF_M = {"pattern": "2:4", "to": None, "rounds": None, "importance": "magnitude"}
# An option where it would change nothing. A rule that none of these meets fails.
IDLE = [
    Case("distill", "teachers", "best"),
    Case("distill", "combine", "value"),
    Case("distill", "combine", "value", {"teachers": "best"}, TWO),
    Case("distill", "via", "mlp:6", {"teachers": "in-turn"}, TWO),
    Case("distill", "generations", 2, {"teachers": "in-turn"}, TWO),
    Case("distill", "reinforce", "ppo", {"teachers": "in-turn"}, TWO),
    Case("distill", "reinforce", "ppo", {"student": "gru:4"}),
    Case("distill", "reinforce_steps", 60),
    Case("distill", "reinforce_entropy", 0.1),
    Case("distill", "tau", "8", {"loss": ("nll", "logits")}),
    Case("distill", "tau", "8", given="reach"),
    Case("distill", "tau", "8", {"loss": "test_options_count:foreign"}),
    Case("distill", "balance", "uncertainty", KL),
    Case("distill", "augment", "gaussian:0.1", {"student": "gru:4"}),
    Case("distill", "augment", "gaussian:0.1", {"student": None}, "remember"),
    Case("distill", "replay", "prioritized:1", {"student": "gru:4"}),
    Case("distill", "data", "student", {"rounds": 1}),
    Case("distill", "beta", "0.5", {"data": "student"}),
    Case("distill", "beta", "0.5", {"rounds": 1}),
    Case("distill", "augment", "gaussian:0.1", {"rounds": 1}),
    Case("distill", "augment", "gaussian:0.1", OFFLINE),
    Case("distill", "curriculum", "gravity:1->2", OFFLINE),
    Case("distill", "noise", 0.5, STILL),
    Case("distill", "envs", 3, STILL),
    Case("distill", "window", 8),
    Case("distill_many", "order", "in-turn"),
    Case("distill_many", "share", "all"),
    Case("distill_many", "keep", "ewc"),
    Case("distill_many", "share", "all", given=TWO),
    Case("distill_many", "keep", "ewc", given=TWO),
    Case("distill_many", "combine", "value", given=TWO),
    Case("distill_many", "reinforce", "ppo", given=TWO),
    Case("rollout", "beta", 0.5),
    Case("rollout", "sampled", True, {"policy": "random"}),
    *(
        Case("prune", name, value, LOSSLESS)
        for name, value in {
            "to": "params<=9",
            "pattern": "weights",
            "importance": "random",
            "allocation": "global",
            "rounds": 2,
            "pace": "linear",
            "recover": 9,
            "labels": 200,
            "lr": "0.1",
            "min_score": 0.5,
            "episodes": 9,
            "importance_states": 99,
        }.items()
    ),
    Case("prune", "to", "params<=9", N_OF_M),
    Case("prune", "allocation", "global", N_OF_M),
    Case("prune", "rounds", 2, N_OF_M),
    Case("prune", "pace", "linear"),
    Case("prune", "labels", 200, {"recover": 0}),
    Case("prune", "lr", "0.1", {"recover": 0, "labels": None}),
    *(
        Case("quantize", name, value, AUTO)
        for name, value in {
            "scheme": "int4",
            "mixed": 3.0,
            "activations": 8,
            "inputs": 8,
            "calibration": "entropy",
        }.items()
    ),
    Case("quantize", "scheme", "int4", {"mixed": 3.0}),
    Case("quantize", "inputs", 8),
    Case("quantize", "target", "latency"),
    Case("quantize", "batch", 256),
    Case("quantize", "batch", 256, AUTO),
    # What is no field, but given beside them.
    Case("distill", "dataset", "@dataset", {"via": "mlp:6"}),
    Case("rollout", "student", "@agent"),
    Case("quantize", "teacher", "@agent"),
]


def foreign(student: Any, teacher: Any, tau: Any) -> Any:
    """A loss of one's own that declares nothing."""
    return (student.logits - teacher.logits).square().mean(1)


def print_of(result: Any) -> list[object]:
    """All that a result says and holds, but not when and where it was made."""
    if hasattr(result, "dataset"):
        shards = sorted(result.path.glob("*.safetensors"))
        return [(shard.name, artifact.sha256(shard)) for shard in shards]
    agents = [getattr(result, name) for name in ("student", "agent") if hasattr(result, name)]
    agents += [*getattr(result, "students", {}).values(), *(way.agent for way in getattr(result, "ways", ()))]
    told = {**result.record, **result.summary()}
    return [*map(digest, agents), str({name: told[name] for name in told if name not in ("config", "versions")})]


def digest(agent: Agent) -> str:
    """Of its weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(store.tensors_of(agent).items()):
        total.update(name.encode() + np.ascontiguousarray(tensor).tobytes())
    return total.hexdigest()


def config_of(result: Any) -> Options:
    made: Options = result.dataset.made if hasattr(result, "dataset") else result.record
    return made["config"]


def fake_costs(files: Mapping[str, Any], _: object, budget: float, *__: object) -> dict[str, Cost]:
    """Times are not what is tried here: all but the first are faster, in large calls only."""
    latency = 1.0 if budget else None
    faster = [{1: 0.5 if i else 1.0, 256: 2.0 if i else 1.0} for i in range(len(files))]
    return {name: Cost(file.size_bytes, latency, f) for (name, file), f in zip(files.items(), faster, strict=True)}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "costs", fake_costs)
    monkeypatch.setattr(pruning, "costs", fake_costs)


@cache
def without(verb: str, given: str, options: tuple[tuple[str, Any], ...]) -> tuple[Options, list[object]]:
    """The record and the print of what is made by these options."""
    left_out = dict.fromkeys(BASE[verb])
    result = Case(verb, "", None, {**left_out, **dict(options)}, given).run()
    return config_of(result), print_of(result)


def fields() -> Iterator[tuple[str, str]]:
    for verb, configs in CONFIGS.items():
        yield from ((verb, name) for config in configs for name in config.model_fields)


def test_every_option_has_a_case() -> None:
    """Law: no option is without a value that changes something, and no rule without a case that meets it."""
    missing = set(fields()) - {(case.verb, case.name) for case in CHANGES}
    print(f"{len(list(fields()))} options of {len(CONFIGS)} verbs, {len(IDLE)} cases in which one would be idle")
    assert not missing
    rules = {
        (verb, name, spell(rule.otherwise)) for verb in RULES for rule in RULES[verb] for name in rule.fields.split()
    }
    assert rules == {(case.verb, case.name, refusal(case)) for case in IDLE} & rules


def refusal(case: Case) -> str:
    """Why the option is refused."""
    with pytest.raises(kdcli.UsageError) as raised:
        case.run(case.value)
    what, why, fix = raised.value.lines()
    assert case.name in what
    assert f"leave {case.name} out" in fix or "leave it out" in fix
    return why


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_an_option_changes_what_is_made(case: Case) -> None:
    """Law: with the option, another result, and a record that says so."""
    config, told = without(case.verb, case.given, tuple(case.options.items()))
    given = case.run(case.value)
    assert config_of(given)[case.name] != config.get(case.name)
    assert print_of(given) != told


@pytest.mark.parametrize("verb", CONFIGS)
def test_nothing_changes_by_itself(verb: str) -> None:
    """Law: the same options make the same, so that a difference above is the option's."""
    case = Case(verb, "", None, given=TWO if verb == "distill_many" else "choose")
    first, second = (print_of(case.run()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("case", IDLE, ids=str)
def test_an_idle_option_is_refused(case: Case) -> None:
    """Law: an option that would change nothing is refused by its name, with a way out that works."""
    assert refusal(case)
