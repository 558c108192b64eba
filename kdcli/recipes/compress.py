"""The whole line: from a teacher to the smallest student that holds, proven through its exported file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdcli.agents.agent import Acts, Agent
from kdcli.agents.runtime import OnnxAgent
from kdcli.benchmarks.bench import Bench, bench
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.contender import Contender
from kdcli.envs.play import collect_observations
from kdcli.envs.seeds import first_seed
from kdcli.envs.vector import Vector
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.parity import States
from kdcli.exporters.step import Exported, convert
from kdcli.progress import Listener, Note, silent
from kdcli.recipes.clock import Clock
from kdcli.recipes.config import CompressConfig
from kdcli.recipes.ladder import Rung, first_rung, ladder
from kdcli.recipes.search import Candidate, search
from kdcli.recipes.workshop import Workshop
from kdcli.spec import n_features, n_outputs

# Two verdicts at 95%, on different episodes, keep the chance of a false one at 5%: each side of an interval has 2.5%.
CHECKS = 2


@dataclass(frozen=True, eq=False)
class Compressed:
    """What compress found.

    `student` is None when no student was made: the teacher is `minimal` already. `verdict` is that of the bench, on
    episodes no decision before was based on. `tried` lists all candidates.
    """

    teacher: Acts
    teacher_file: Exported | None
    student: Agent | None
    student_file: Exported | None
    bench: Bench
    verdict: str
    minimal: bool
    tried: tuple[Candidate, ...]
    plan: dict[str, Any]


def compress(teacher: Acts, config: CompressConfig, clock: Clock, listener: Listener = silent) -> Compressed:
    """Find, export and prove the smallest student that holds `config.min_score`.

    Raises:
        UsageError: the env is not known, does not fit, or the teacher is no better than random play there.
    """
    shop = Workshop(teacher, config, clock, listener)
    if isinstance(teacher, Agent) and not teacher.policy.network.hidden:
        listener(
            Note(f"{teacher.name} is linear: {teacher.n_params} parameters, already minimal; it is exported as it is")
        )
        return _finish(shop, None, [])
    rungs = ladder(n_features(teacher.observation), n_outputs(teacher.action), _n_params(teacher))
    first = first_rung(rungs, _n_params(teacher))
    tried = search(len(rungs), first, lambda index, before: shop.attempt(index, rungs[index], before))
    return _prove(shop, tried)


def _n_params(agent: Acts) -> int:
    assert isinstance(agent, Agent | OnnxAgent)
    return agent.n_params


def order(tried: list[Candidate]) -> list[Candidate]:
    """The candidates worth a final check: those that held, the smallest first; else the most promising one."""
    held = sorted((c for c in tried if c.holds), key=lambda c: c.rung.n_params)
    return held or sorted(tried, key=lambda c: c.screening.score or -np.inf, reverse=True)[:1]


def _prove(shop: Workshop, tried: list[Candidate]) -> Compressed:
    """Bench the smallest that held in screening; if the bench does not agree, the next larger one."""
    done: Compressed | None = None
    for candidate in order(tried)[:CHECKS]:
        if done is not None and shop.clock.left < shop.final_seconds:
            break
        done = _finish(shop, candidate, tried)
        if done.verdict == "holds":
            break
    assert done is not None
    return done


def _finish(shop: Workshop, candidate: Candidate | None, tried: list[Candidate]) -> Compressed:
    """Export teacher and student and bench them, the student through its file."""
    ...
