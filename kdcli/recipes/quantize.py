"""Quantization joined with distillation: what is trained as it will be quantized learns from a teacher."""

from __future__ import annotations

from kdcli.agents.agent import Acts, Agent
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import copy_agent
from kdcli.distillation.loop import Judge, distill
from kdcli.distillation.pool import Pool
from kdcli.progress import Listener, silent
from kdcli.quantization.fake import settle
from kdcli.quantization.work import Recover


def recovery(teacher: Acts, config: DistillConfig, pool: Pool, judge: Judge, listener: Listener = silent) -> Recover:
    """Training of a fake-quantized agent on a teacher's labels.

    What comes back is the best round by the return of what is settled, or the agent that was given where none is
    better: training must not cost what rounding has not.
    """

    def judged(found: Acts | None) -> float:
        return judge(settle(found) if isinstance(found, Agent) else found)

    def recover(agent: Agent) -> Agent:
        before, rounded = judged(agent), copy_agent(agent)
        done = distill(teacher, config, pool, judged, listener, start=agent)
        return done.student if max(r.mean_return for r in done.rounds) >= before else rounded

    return recover
