"""`kdcli.prune`: an agent with fewer numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.options import build
from kdcli.progress import Listener, silent
from kdcli.pruning.config import PruneConfig

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.compression.file_costs import Cost
    from kdcli.compression.pruning import Row
    from kdcli.pruning.loop import Cut
    from kdcli.pruning.lossless import Proved


def check(config: PruneConfig, *, agent: Agent | None = None) -> None:
    """Say all that can be said before work begins; more, once the agent is there.

    Raises:
        UsageError: nothing is asked for, a text cannot be read, options exclude each other, one would change nothing,
            no env is known, or the agent is quantized.
    """
    from kdcli.distillation.schedules import parse_schedule
    from kdcli.pruning.checks import check_pruning

    check_pruning(config)
    parse_schedule(config.lr)
    if agent is not None:
        from kdcli.agents.actor import env_of
        from kdcli.pruning.surgery import check_whole

        env_of(agent)
        check_whole(agent)


def prune(
    agent: Any, output: Path | str | None = None, *, force: bool = False, progress: Listener = silent, **options: Any
) -> PruneResult:
    """Remove what an agent does not need, then what it needs least; after each cut it is distilled back.

    Args:
        agent: A path, a kdcli agent, or a Stable-Baselines3 model.
        output: Where to write the pruned agent as safetensors. None: it is in the result alone.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.pruning.config.PruneConfig`: `to="params<=2000"`, `lossless=True`, ...; and of
            `kdcli.checkpoints.config.LoadConfig`, which says how the agent's file is read.

    Raises:
        UsageError: no env, a size that cannot be met, an option that cannot be read or would change nothing, or an
            output that cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported, or what was to change no action does.
    """
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import find_whole
    from kdcli.api.distill import made_of
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.compression.pruning import run
    from kdcli.pruning.lossless import proved
    from kdcli.pruning.states import real_states

    source, config = build(with_env_id(options), LoadConfig, PruneConfig)
    check(config)
    if output is not None:
        output = Path(output)
        artifact.refuse_existing(output, force)
    found = find_whole(agent, source, progress)
    check(config, agent=found.agent)
    made = made_of("prune", found.parents, config)
    with one_thread():
        if config.lossless:
            first = proved(found.agent, lambda seed: real_states(found.agent, config.states, config.seed + seed))
            seen = {"alike": asdict(first.alike), "n_seen": first.n_seen, "left_out": list(first.left_out)}
            result = PruneResult(found.agent, first.agent, first, {**made, **seen}, path=output)
        else:
            done = run(found.agent, config, progress)
            rounds, pruned = done.pruned.rounds, done.pruned
            record = {**made, "rounds": [asdict(cut) for cut in rounds]}
            result = PruneResult(
                found.agent, pruned.agent, done.proved, record, pruned.reached, rounds, done.rows, path=output
            )
    if output is not None:
        result.save(output, force)
    return result


@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(Result):
    """A pruned agent and what it cost.

    Attributes:
        before: The agent as it was.
        agent: The agent with fewer numbers: the smallest whose score was good enough.
        proved: What lossless pruning removed, and on how many states the agent acts as before.
        record: How it was made, as its file says it.
        reached: Whether it came to the size asked for; its score stopped it before that where it did not.
        rounds: What was asked for in each round, what it came to, and its score.
        rows: Before, lossless and pruned: layers, sizes, times, returns; empty of lossless pruning alone.
        path: Where it was written, if it was.
    """

    before: Agent
    agent: Agent
    proved: Proved
    record: Mapping[str, Any]
    reached: bool = True
    rounds: tuple[Cut, ...] = ()
    rows: tuple[Row, ...] = ()
    path: Path | None = None

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Bytes and times of the ONNX files before and after; timed when first asked for, where they were not yet."""
        from kdcli.compression.pruning import lossless_costs

        if self.rows:
            return {"before": self.rows[0].cost, "after": self.rows[-1].cost}
        return lossless_costs(self.before, self.agent)

    def sizes(self) -> dict[str, dict[str, Any]]:
        """Before and after: inputs, layers, parameters, multiply-adds, bytes, time."""
        agents = {"before": self.before, "after": self.agent}
        return {name: _sizes(agent, self.costs[name]) for name, agent in agents.items()}

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write the pruned agent as safetensors, with the record of how it was made.

        Raises:
            UsageError: the file exists (without `force`) or cannot be written.
        """
        from kdcli.agents import store

        return store.save(Path(path), self.agent, self.record, force)

    def summary(self) -> dict[str, Any]:
        """Sizes, times and scores before and after, as JSON values."""
        if not self.rows:
            alike = self.proved.alike
            found = {"n_states": alike.n_states, "ties": alike.ties, "left_out": list(self.proved.left_out)}
            return {**found, "sizes": self.sizes()}
        rounds = [asdict(cut) for cut in self.rounds]
        return {"reached": self.reached, "rounds": rounds, "agents": [_flat(row) for row in self.rows]}

    def facts(self) -> Mapping[str, Any]:
        """Parameters before and after, the score, and whether the size was reached."""
        facts: dict[str, Any] = {"params": self.agent.n_params, "before": self.before.n_params}
        if self.rows:
            facts |= {"reached": self.reached, "score": self.rounds[-1].score}
        else:
            facts |= {"same_on": self.proved.alike.n_states}
        return facts if self.path is None else {**facts, "path": self.path}


def _sizes(agent: Agent, cost: Cost) -> dict[str, Any]:
    from kdcli.graph.count import count
    from kdcli.graph.trace import trace

    counted, network = count(trace(agent)), agent.policy.network
    return {
        "inputs": network.inputs,
        "network": str(network),
        "params": counted.n_params,
        "macs": counted.multiply_adds,
        "constants": counted.n_constants,
        "onnx_bytes": cost.onnx_bytes,
        "latency_us": cost.latency_us,
        "faster": cost.faster[1],
    }


def _flat(row: Row) -> dict[str, Any]:
    told = asdict(row)
    cost = told.pop("cost")
    return {**told, **{key: cost[key] for key in ("onnx_bytes", "latency_us")}, "faster": cost["faster"][1]}
