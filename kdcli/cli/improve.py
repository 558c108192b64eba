"""`kdcli improve`: better weights for a small agent, found by its return."""

from __future__ import annotations

from kdcli.checkpoints.config import LoadConfig
from kdcli.cli.console import Console
from kdcli.cli.load import NoVecNormalize
from kdcli.cli.options import AsJson, Force, Output, command
from kdcli.cli.prune import AgentFile
from kdcli.improvement.config import ImproveConfig
from kdcli.options import given


@command
def improve(
    agent: AgentFile,
    config: ImproveConfig,
    source: LoadConfig,
    *,
    output: Output,
    no_vecnormalize: NoVecNormalize = False,
    force: Force = False,
    as_json: AsJson = False,
    console: Console,
) -> None:
    """Improve a linear or MLP agent by its return: evolution of its weights, from those that it has.

    For students that are too small to do as their teacher does: imitation ends at a compromise, and often much better
    weights of the same size exist.
    """
    from kdcli.api.improve import improve as run

    chosen = source.without_vecnormalize() if no_vecnormalize else source
    done = run(agent, output, force=force, progress=console.listener, **given(chosen, config))
    low, high = done.gain
    if as_json:
        console.answer_json("kdcli.improve/1", {"path": str(output), **done.measured()})
    else:
        told = f"mean return {done.before:.1f} before, {done.after:.1f} after, gain [{low:.1f}, {high:.1f}]"
        console.answer(f"{told} over {config.bench_episodes} paired episodes\n{output}")
