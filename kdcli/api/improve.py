"""`kdcli.improve`: an agent with better weights, found by its return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.api.result import Result
from kdcli.improvement.config import ImproveConfig
from kdcli.options import build
from kdcli.progress import Listener, silent

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.improvement.evolution import Judged


def check(config: ImproveConfig, *, agent: Agent | None = None) -> None:
    """Say all that can be said before work begins; more, once the agent is there.

    Raises:
        UsageError: an option would change nothing, or no env is known.
        RefusedError: the agent's network is no MLP, or quantized.
    """
    from kdcli.agents.actor import env_of
    from kdcli.improvement.checks import check_improvement

    check_improvement(config, agent)
    if agent is not None:
        env_of(agent)


def improve(
    agent: Any, output: Path | str | None = None, *, force: bool = False, progress: Listener = silent, **options: Any
) -> ImproveResult:
    """Improve a linear or MLP agent by its return: evolution of its weights, from those that it has.

    Where a network is too small to do as its teacher does, imitation ends at a compromise that may fall or stand still;
    often much better weights of the same size exist.

    Args:
        agent: A path, a kdcli agent, or a Stable-Baselines3 model.
        output: Where to write the improved agent as safetensors. None: it is in the result alone.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.improvement.config.ImproveConfig`: `generations=200`, ...; and of
            `kdcli.checkpoints.config.LoadConfig`, which says how the agent's file is read.

    Raises:
        UsageError: no env, an option that cannot be read or would change nothing, or an output that cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported, or the agent's network is no MLP.
    """
    from kdcli import artifact
    from kdcli.agents.actor import env_of
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import find_whole
    from kdcli.api.distill import made_of
    from kdcli.api.envs import with_env_id
    from kdcli.benchmarks.statistics import bca
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.improvement.evolution import improve as run
    from kdcli.rollouts.evaluate import open_vector, play, seeds_from
    from kdcli.rollouts.seeds import first_seed

    source, config = build(with_env_id(options), LoadConfig, ImproveConfig)
    check(config)
    if output is not None:
        output = Path(output)
        artifact.refuse_existing(output, force)
    found = find_whole(agent, source, progress)
    check(config, agent=found.agent)
    spec = env_of(found.agent)
    with one_thread():
        vector = open_vector(replace(spec, max_steps=config.max_steps or spec.max_steps), found.agent)
        done = run(found.agent, vector, config, progress)
        seeds = seeds_from(first_seed("bench", config.seed), config.bench_episodes)
        before, after = (play(one, vector, seeds, listener=progress).returns for one in (found.agent, done.agent))
        vector.close()
    gained = bca(np.mean, (after - before,), 0.95)
    result = ImproveResult(
        original=found.agent,
        agent=done.agent,
        before=float(before.mean()),
        after=float(after.mean()),
        gain=(gained.low, gained.high),
        judged=done.judged,
        made={**made_of("improve", found.parents, config), "episodes": done.episodes},
        path=output,
    )
    if output is not None:
        result.save(output, force)
    return result


@dataclass(frozen=True, eq=False, repr=False)
class ImproveResult(Result):
    """An improved agent and what was gained.

    Attributes:
        original: The agent as it was.
        agent: The agent with the best weights found; those it had where none was better.
        before: Mean return of the original on `bench_episodes` paired episodes that decided nothing before.
        after: That of the improved agent on the same.
        gain: 95 % interval of the mean difference, `(low, high)`.
        judged: The course of the search, one entry a judgment.
        made: Command, parents and options, as its file says them.
        path: Where it was written, if it was.
    """

    original: Agent
    agent: Agent
    before: float
    after: float
    gain: tuple[float, float]
    judged: tuple[Judged, ...]
    made: Mapping[str, Any]
    path: Path | None = None

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write the improved agent as safetensors, with the record of how it was made.

        Raises:
            UsageError: the file exists (without `force`) or cannot be written.
        """
        from kdcli.agents import store

        return store.save(Path(path), self.agent, {**self.made, **self.measured()}, force)

    def measured(self) -> dict[str, Any]:
        """The returns before and after, the gain, and the course of the search, as JSON values."""
        judged = [asdict(one) for one in self.judged]
        return {"before": self.before, "after": self.after, "gain": list(self.gain), "judged": judged}

    def facts(self) -> Mapping[str, Any]:
        """Parameters, and the returns before and after with the interval of the gain."""
        low, high = self.gain
        facts: dict[str, Any] = {"params": self.agent.n_params, "before": self.before, "after": self.after}
        facts |= {"gain": f"[{low:.4g}, {high:.4g}]"}
        return facts if self.path is None else {**facts, "path": self.path}
