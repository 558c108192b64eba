"""Pruning beside training the same shape from scratch, at equal labels and gradient steps, several seeds each.

    python tests/studies/pruning.py run TEACHER RESULTS --params 1850 [--env ID --wrapper W ...]
    python tests/studies/pruning.py student TEACHER cnn:16x32,hidden=128 AGENT [--env ...]
    python tests/studies/pruning.py table RESULTS
    python tests/studies/pruning.py lossless AGENT... [--env ...]

`run` appends one line to RESULTS for each arm and seed that is not there yet, for at most --minutes.
`student` distills an agent to prune, where the teacher is not of the kind that shall be pruned. `lossless` is the
table of what goes without changing an action.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from kdcli.agents import store
from kdcli.agents.agent import Agent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read
from kdcli.compression.pruning import Scale, some_of
from kdcli.compression.recovery import Recovery
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import copy_agent
from kdcli.distillation.loop import distill
from kdcli.distillation.online import judge_of, pool_of
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.graph.count import count
from kdcli.graph.trace import trace
from kdcli.networks import from_config
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.loop import Tools, prune
from kdcli.pruning.lossless import lossless, proved
from kdcli.pruning.size_targets import Budget
from kdcli.pruning.states import real_states
from kdcli.pruning.surgery import with_network
from kdcli.rollouts.evaluate import open_vector

LABELS, UPDATES, STATES = 12_000, 6_000, 20_000
FAST, SLOW = "cosine:0.003->0.00003", "cosine:0.001->0.00003"
# name -> importance, rounds, learning rate; the labels and gradient steps of all rounds come to the same.
PRUNED = {
    "disagreement, 1 round": ("disagreement", 1, FAST),
    "disagreement, 3 rounds": ("disagreement", 3, FAST),
    "disagreement, 1 round, slow": ("disagreement", 1, SLOW),
    "magnitude, 1 round": ("magnitude", 1, FAST),
    "random, 1 round": ("random", 1, FAST),
}
SCRATCH = "from scratch"


def lesson(rounds: int, lr: str, seed: int) -> DistillConfig:
    """One of `rounds` equal parts of the whole, in four steps of collecting and training, or two of each part."""
    return DistillConfig(
        rounds=max(2, 4 // rounds),
        labels=LABELS // rounds,
        updates=UPDATES // rounds,
        lr=lr,
        seed=seed,
        episodes=4,
    )


def fresh(agent: Agent, seed: int) -> Agent:
    """An untrained agent of the same shape that sees the world the same way."""
    torch.manual_seed(seed)
    return with_network(agent, from_config(agent.policy.network.config()))


def from_scratch(teacher: Agent, shape: Agent, seed: int) -> Agent:
    config, env = lesson(1, FAST, seed), teacher.env
    assert env is not None
    collector = RolloutCollector(teacher, open_vector(env, teacher, config.envs), seed)
    first = collector.collect(None, 1.0, config.labels // config.rounds)
    pool = ReplayPool(teacher, first, config.capacity, collector, shape.preprocess)
    start = copy_agent(fresh(shape, seed))
    start.policy.requires_grad_(True)
    return distill(teacher, config, pool, judge_of(teacher, env, config), start=start).student


def pruned(teacher: Agent, thin: Agent, params: int, arm: str, seed: int) -> Agent:
    importance, rounds, lr = PRUNED[arm]
    config = PruneConfig(to=f"params<={params}", importance=importance, rounds=rounds, min_score=-1e9, seed=seed)
    assert teacher.env is not None
    taught = lesson(rounds, lr, seed)
    vector = open_vector(teacher.env, teacher, taught.envs)
    recover = Recovery(teacher, vector, taught, judge_of(teacher, teacher.env, taught), keep_zeros=False)
    states = some_of(teacher, real_states(teacher, 4_000, seed), config.importance_states)
    return prune(thin, states, config, Tools(recover, lambda _: 0.0, Budget.parse(str(config.to)))).agent


def shape_of(thin: Agent, params: int, seed: int, states: int = 64) -> Agent:
    """What pruning to so many parameters comes to, whoever is cut."""
    config = PruneConfig(to=f"params<={params}", importance="random", rounds=1, min_score=-1e9, seed=seed)
    seen = some_of(thin, real_states(thin, 512, seed), states)
    return prune(thin, seen, config, Tools(lambda a: a, lambda _: 0.0, Budget.parse(str(config.to)))).agent


def run(args: argparse.Namespace) -> None:
    """Every arm and seed that has no result yet."""
    bench, began = Bench(read_agent(args.agent, args), args), time.perf_counter()
    done = {(r["arm"], r["seed"]) for r in results(args.results)} if args.results.exists() else set()
    arms = [SCRATCH, *(PRUNED if not args.arms else args.arms)]
    for seed in range(args.seeds):
        for arm in arms:
            if (arm, seed) in done:
                continue
            one(args, bench, arm, seed)
            if time.perf_counter() - began > 60 * args.minutes:
                return
    print("all there")


class Bench:
    """What all arms and seeds share: the agent, itself without what it does not need, and the episodes of the score."""

    def __init__(self, teacher: Agent, args: argparse.Namespace) -> None:
        self.teacher = teacher
        self.thin = lossless(teacher, real_states(teacher, STATES // 4, 0))
        self.scale = Scale(teacher, "bench", PruneConfig(episodes=args.episodes))


def one(args: argparse.Namespace, bench: Bench, arm: str, seed: int) -> None:
    began, teacher, thin = time.perf_counter(), bench.teacher, bench.thin
    if arm == SCRATCH:
        found = from_scratch(teacher, shape_of(thin, args.params, seed), seed)
    else:
        found = pruned(teacher, thin, args.params, arm, seed)
    score = bench.scale.score(found)
    counted = count(trace(found))
    line = {
        "arm": arm,
        "seed": seed,
        "score": score,
        "network": str(found.policy.network),
        "params": counted.n_params,
        "of": count(trace(teacher)).n_params,
        "macs": counted.multiply_adds,
        "seconds": round(time.perf_counter() - began, 1),
    }
    with args.results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def interval(values: np.ndarray) -> str:
    """Mean and its 95 % t interval over seeds."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def table(args: argparse.Namespace) -> None:
    """Score of each arm over the seeds, its worst seed, and its difference to training from scratch, paired."""
    rows = results(args.results)
    by_arm = {arm: {r["seed"]: r["score"] for r in rows if r["arm"] == arm} for arm in [SCRATCH, *PRUNED]}
    first = rows[0]
    print(f"{first['of']:,} -> {first['params']:,} parameters ({first['of'] / first['params']:.1f}x fewer)\n")
    print("| arm | seeds | score [95 %] | worst seed | minus from scratch [95 %] |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for arm, scores in by_arm.items():
        if not scores:
            continue
        shared = sorted(scores.keys() & by_arm[SCRATCH].keys())
        gap = np.array([scores[s] - by_arm[SCRATCH][s] for s in shared])
        values = np.array(list(scores.values()))
        versus = "" if arm == SCRATCH else interval(gap)
        print(f"| {arm} | {len(values)} | {interval(values)} | {values.min():.3f} | {versus} |")


def student(args: argparse.Namespace) -> None:
    """An agent of another architecture, to be pruned; it goes on where it was when it is there already."""
    teacher = read_agent(args.agent, args)
    env, start = teacher.env, store.load(args.output) if args.output.exists() else None
    assert env is not None
    config = DistillConfig(
        student=args.student, labels=args.labels, updates=args.updates, rounds=4, episodes=16, seed=args.seed
    )
    config = config.model_copy(update={"beta": "0" if start else config.beta, "lr": "cosine:0.002->0.0001"})
    if start is not None:
        start.policy.requires_grad_(True)
    pool = pool_of(teacher, env, config)
    done = distill(teacher, config, pool, judge_of(teacher, env, config), start=start)
    store.save(args.output, done.student, {"command": "study"}, force=True)
    print(f"{done.student.n_params:,} parameters, returns {[round(r.mean_return, 1) for r in done.rounds]}")


def lossless_table(args: argparse.Namespace) -> None:
    """What each agent loses without changing an action."""
    print("| agent | inputs | layers | parameters | fewer | states of other episodes | differ |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for path in args.agents:
        agent = read_agent(path, args)
        gather: Callable[[int], object] = lambda seed, a=agent: real_states(a, STATES, seed)  # noqa: E731
        done = proved(agent, gather)  # type: ignore[arg-type]
        before, after = agent.policy.network, done.agent.policy.network
        many = f"{agent.n_params:,} -> {done.agent.n_params:,} | {agent.n_params / done.agent.n_params:.2f}x"
        differ = f"{done.alike.other + (done.alike.worst > 1e-5)}"
        shown = f"{before} -> {after}" if str(before) != str(after) else str(before)
        name = f"{path.parent.name} {path.name}"
        print(
            f"| {name} | {before.inputs} -> {after.inputs} | {shown} | {many} | {done.alike.n_states:,} | {differ} |",
            flush=True,
        )


def read_agent(path: Path, args: argparse.Namespace) -> Agent:
    config = LoadConfig(env=args.env, wrapper=tuple(args.wrapper))
    agent = read(find_file(path), config, lambda _: None)
    env = agent.env
    return replace(agent, env=replace(env, max_steps=args.max_steps)) if env and args.max_steps else agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in {"run": run, "student": student, "table": table, "lossless": lossless_table}.items():
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        if name != "table":
            command.add_argument("--env")
            command.add_argument("--wrapper", action="append", default=[])
            command.add_argument("--max-steps", type=int)
            command.add_argument("--episodes", type=int, default=50)
        if name == "lossless":
            command.add_argument("agents", type=Path, nargs="+")
        elif name != "table":
            command.add_argument("agent", type=Path)
        if name == "student":
            command.add_argument("student")
            command.add_argument("output", type=Path)
            command.add_argument("--labels", type=int, default=100_000)
            command.add_argument("--updates", type=int, default=10_000)
            command.add_argument("--seed", type=int, default=0)
        if name in ("run", "table"):
            command.add_argument("results", type=Path)
    run_parser = commands.choices["run"]
    run_parser.add_argument("--params", type=int, required=True)
    run_parser.add_argument("--seeds", type=int, default=5)
    run_parser.add_argument("--arms", nargs="*")
    run_parser.add_argument("--minutes", type=float, default=1e9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.function(args)


if __name__ == "__main__":
    main()
