"""kdcli's distillation beside the DAgger of HumanCompatibleAI/imitation: one teacher, equal labels, one shape.

    python -m venv imit     # Python 3.11
    imit/bin/pip install imitation==1.0.1 gymnasium==0.29.1 "numpy<2" "mujoco<3" "pyarrow<19" "datasets<3.3" \
        imageio stable-baselines3==2.2.1
    python tests/studies/beside_imitation.py imit/bin/python --out beside.jsonl --seeds 0 1 2 3 4 \
        --case zoo/ppo/HalfCheetah-v3_1:16x16:40000 [--case AGENT[@ENV]:WIDTHS:LABELS ...]

Sides take turns, one thread each; who begins changes with the seed. Runs that the file holds are not repeated, and
`--table` only prints what it holds. kdcli: `distill` with its defaults, or `--ours`. imitation: `imitation_worker.py`.
Students of both sides play the same episodes in kdcli's env; returns in imitation's own, older env stand beside them.
Seconds are those of collecting and training (of choosing among rounds, too), not of imports; wall and processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy import stats

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.online import distill_to
from kdcli.networks.mlp import MLP
from kdcli.rollouts.evaluate import collect_observations, open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed

WORKER = Path(__file__).with_name("imitation_worker.py")
N_EPISODES, N_THERE, N_CHECKED = 32, 8, 256
Record = dict[str, Any]


class Case(NamedTuple):
    """One row of the table: a teacher, the hidden widths of the student, and states labelled in all."""

    teacher: str
    widths: str
    labels: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """`AGENT[@ENV]:16x16:40000`."""
        teacher, widths, labels = text.rsplit(":", 2)
        return cls(teacher, widths, int(labels))

    def load(self) -> Agent:
        """The teacher."""
        path, _, env = self.teacher.partition("@")
        return read(find_file(Path(path)) if Path(path).is_dir() else path, LoadConfig(env=env or None))

    def __str__(self) -> str:
        path = Path(self.teacher.partition("@")[0])
        return f"{path.parent.name}/{path.stem}, {self.widths}, {self.labels:,} labels"


def ours(case: Case, teacher: Agent, seed: int, folder: Path, options: argparse.Namespace) -> tuple[Agent, Record]:
    """A student by `kdcli distill`, and what it took."""
    others = dict(text.split("=", 1) for text in options.ours)
    config = DistillConfig(student=f"mlp:{case.widths}", labels=case.labels, seed=seed, **others)
    begin, cpu = time.perf_counter(), time.process_time()
    done = distill_to(folder / "student.safetensors", teacher, (), config)
    took = {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
    return done.student, took | {"labels": done.rounds[-1].labels}


def theirs(case: Case, teacher: Agent, seed: int, folder: Path, options: argparse.Namespace) -> tuple[Agent, Record]:
    """A student by imitation's DAgger in the other Python, as an agent here, and what it took."""
    job, student = folder / "job.npz", folder / "student.npz"
    np.savez(job, **_job(case, teacher, seed, options))
    told = subprocess.run([options.python, str(WORKER), str(job), str(student)], stdout=subprocess.PIPE, check=True)
    took = json.loads(told.stdout.splitlines()[-1])
    if took["teacher_gap"] > 1e-5:
        raise SystemExit(f"{case}: the two teachers differ by {took['teacher_gap']:g}")
    with np.load(student) as layers:
        return _agent(dict(layers), teacher), took


def _job(case: Case, teacher: Agent, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The teacher's constants and layers, some of its actions to check them by, and the settings."""
    assert isinstance(teacher.policy.network, MLP)
    assert isinstance(teacher.preprocess, Preprocess)
    assert teacher.env is not None
    network, seen = teacher.policy.network, teacher.preprocess.normalizer
    obs = collect_observations(teacher, open_vector(teacher.env, teacher, 4), N_CHECKED, first_seed("screen", seed))
    flat = np.zeros(obs.shape[1]), np.ones(obs.shape[1]), np.inf
    mean, scale, clip = flat if seen is None else (seen.mean, seen.scale, seen.clip)
    linears = dict(enumerate(network.linears()))
    return {
        **{f"weight{i}": layer.weight.detach().numpy() for i, layer in linears.items()},
        **{f"bias{i}": layer.bias.detach().numpy() for i, layer in linears.items()},
        "layers": len(linears),
        "activation": network.activation_name,
        "tanh": teacher.rule.squash == "tanh",
        "mean": mean,
        "scale": scale,
        "clip": clip,
        "normalized": seen is not None,
        "obs": obs,
        "actions": teacher.act(obs),
        "env": teacher.env.id.replace("-v5", "-v4"),
        "widths": [int(width) for width in case.widths.split("x")],
        "labels": case.labels,
        "seed": seed,
        "rampdown": options.rampdown,
        "last_epochs": options.last_epochs,
        "episodes_there": N_THERE,
    }


def _agent(layers: dict[str, np.ndarray], teacher: Agent) -> Agent:
    """imitation's student: its normalization, its layers, its mean clipped to the bounds."""
    n = sum(name.startswith("weight") for name in layers)
    widths = [layers["weight0"].shape[1], *(len(layers[f"bias{i}"]) for i in range(n))]
    network = MLP(widths[0], tuple(widths[1:-1]), widths[-1])
    for i, linear in enumerate(network.linears()):
        linear.weight.data, linear.bias.data = (
            torch.from_numpy(layers[f"weight{i}"]),
            torch.from_numpy(layers[f"bias{i}"]),
        )
    seen = Normalizer(layers["mean"].astype(np.float64), layers["scale"].astype(np.float64), float(layers["clip"]))
    preprocess = Preprocess(teacher.preprocess.parts["obs"].space, seen)
    return Agent(preprocess, Policy(network, ActionRule(teacher.action), "mean"), "imitation", teacher.env)


def mean_return(agent: Agent | None, teacher: Agent) -> float:
    """Over the same episodes for all, which nobody trained or was chosen on; None is random play."""
    assert teacher.env is not None
    episodes = play(agent, open_vector(teacher.env, teacher), seeds_from(first_seed("bench", 0), N_EPISODES))
    return float(episodes.returns.mean())


def run(case: Case, side: str, seed: int, options: argparse.Namespace) -> Record:
    """One student of one side, measured."""
    teacher = case.load()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        distilled = ours if side == "kdcli" else theirs
        student, took = distilled(case, teacher, seed, folder, options)
    return {"case": list(case), "side": side, "seed": seed, "return": mean_return(student, teacher), **took}


def recorded(path: Path) -> list[Record]:
    """The runs that a file of lines holds."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(options: argparse.Namespace) -> Iterator[tuple[Case, str, int]]:
    """Which runs are to do, the sides in turns."""
    have = {(*record["case"], record["side"], record["seed"]) for record in recorded(options.out)}
    for case in options.case:
        for seed in options.seeds:
            for side in ("kdcli", "imitation") if seed % 2 == 0 else ("imitation", "kdcli"):
                if (*case, side, seed) not in have:
                    yield case, side, seed


def within(values: Sequence[float], digits: int = 0) -> str:
    """Mean and 95% t-interval over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:,.{digits}f}"
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)) if np.ptp(values) else (mean, mean)
    return f"{mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """Geometric mean of imitation's over ours with its interval, seed by seed."""
    logs = np.log([other / own for own, other in pairs])
    mean = float(logs.mean())
    if len(logs) < 2:
        return f"{np.exp(mean):.2f}"
    low, high = stats.t.interval(0.95, len(logs) - 1, mean, stats.sem(logs))
    return f"{np.exp(mean):.2f} [{np.exp(low):.2f}, {np.exp(high):.2f}]"


HEAD = (
    "| case | n | teacher | kdcli's return | imitation's | difference, paired | kdcli s, wall (cpu) | imitation s "
    "| wall ratio | cpu ratio | imitation's student in its own env (teacher there) |"
)


def row(case: Case, records: Sequence[Record]) -> str:
    """A line of the table: what both sides came to over the seeds both have."""
    sides = {side: {r["seed"]: r for r in records if r["side"] == side} for side in ("kdcli", "imitation")}
    seeds = sorted(set(sides["kdcli"]) & set(sides["imitation"]))
    own, other = ([sides[side][seed] for seed in seeds] for side in ("kdcli", "imitation"))
    gaps = [a["return"] - b["return"] for a, b in zip(own, other, strict=True)]
    cells = [
        *(str(case), str(len(seeds)), f"{mean_return(teacher := case.load(), teacher):,.0f}"),
        *(within([r["return"] for r in side]) for side in (own, other)),
        within(gaps),
        *(f"{within([r['wall_s'] for r in s])} ({np.mean([r['cpu_s'] for r in s]):.0f})" for s in (own, other)),
        *(ratio([(a[name], b[name]) for a, b in zip(own, other, strict=True)]) for name in ("wall_s", "cpu_s")),
        f"{within([r['there'] for r in other])} ({np.mean([r['teacher_there'] for r in other]):,.0f})",
    ]
    return f"| {' | '.join(cells)} |"


def table(path: Path) -> None:
    """Print what the file holds, a row a case that both sides have."""
    by_case: dict[Case, list[Record]] = {}
    for record in recorded(path):
        by_case.setdefault(Case(*record["case"]), []).append(record)
    print(HEAD, "|" + " --- |" * (HEAD.count("|") - 1), sep="\n")
    for case, records in by_case.items():
        if {r["side"] for r in records} == {"kdcli", "imitation"}:
            print(row(case, records))


def main(argv: Sequence[str] | None = None) -> None:
    """Do the missing runs, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="a Python that has imitation")
    parser.add_argument("--out", type=Path, required=True, help="file of runs, one a line")
    parser.add_argument("--case", type=Case.parse, action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ours", nargs="*", default=[], help="kdcli other than by its defaults: updates=12000")
    parser.add_argument("--rampdown", type=int, default=10, help="rounds of imitation's LinearBetaSchedule")
    parser.add_argument("--last-epochs", type=int, default=20, help="of imitation's, on all data, after the rounds")
    parser.add_argument("--most", type=int, default=10**6, help="runs at a time, to go on later")
    parser.add_argument("--table", action="store_true", help="only print the table of the file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for n, (case, side, seed) in enumerate(missing(options)):
        if options.table or n == options.most:
            break
        record = run(case, side, seed, options)
        with options.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), file=sys.stderr, flush=True)
    table(options.out)


if __name__ == "__main__":
    main()
