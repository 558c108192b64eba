"""`kdcli.quantize`: an agent on fewer bits, measured in the file that is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.api.result import Result
from kdcli.options import build
from kdcli.progress import Listener, silent
from kdcli.quantization.config import QuantizeConfig

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.benchmarks.verdict import Verdict
    from kdcli.compression.quantization import Way


def check(config: QuantizeConfig, *, teacher: bool = False, agent: Agent | None = None) -> None:
    """Say all that can be said before work begins; more, once the agent is there.

    Raises:
        UsageError: a text cannot be read, options exclude each other, one would change nothing, no env is known, or the
            agent is quantized already.
    """
    from kdcli.quantization.checks import check_quantization

    check_quantization(config, teacher)
    if agent is not None:
        from kdcli.agents.actor import env_of
        from kdcli.quantization.qat import check_floats

        env_of(agent)
        check_floats(agent)


def quantize(
    agent: Any,
    output: Path | str | None = None,
    *,
    teacher: Any = None,
    force: bool = False,
    progress: Listener = silent,
    **options: Any,
) -> QuantizeResult:
    """Quantize an agent: its weights to few levels and, where asked for, its activations; then compare it.

    Args:
        agent: A path, a kdcli agent, or a Stable-Baselines3 model.
        output: Where to write the quantized agent as safetensors. None: it is in the result alone.
        teacher: Who labels states where `updates` trains the agent as it will be; by default the agent itself.
        force: Overwrite `output`.
        progress: Called with `kdcli.progress.Event` and `Note`.
        **options: Fields of `kdcli.quantization.config.QuantizeConfig`, and of `kdcli.checkpoints.config.LoadConfig`,
            which says how the files are read.

    Raises:
        UsageError: no env, an option that cannot be read or would change nothing, an agent that is quantized already,
            or an output that cannot be written.
        RefusedError: a file is damaged, unsafe or unsupported.
    """
    from kdcli import artifact
    from kdcli.agents.threads import one_thread
    from kdcli.api.agents import find, find_whole
    from kdcli.api.envs import with_env_id
    from kdcli.checkpoints.config import LoadConfig
    from kdcli.compression.quantization import run

    source, config = build(with_env_id(options), LoadConfig, QuantizeConfig)
    check(config, teacher=teacher is not None)
    if output is not None:
        output = Path(output)
        artifact.refuse_existing(output, force)
    floats = find_whole(agent, source, progress)
    check(config, teacher=teacher is not None, agent=floats.agent)
    guide = None if teacher is None else find(teacher, source, progress)
    with one_thread():
        done = run(floats.agent, config, None if guide is None else guide.agent, progress)
    record = {
        "command": "quantize",
        "config": config.model_dump(mode="json"),
        "way": done.kept.name,
        "versions": artifact.versions("torch", "numpy", "onnxruntime"),
        "parents": [dict(one.parent) for one in (floats, guide) if one is not None],
    }
    result = QuantizeResult(done.ways, done.kept, record, output)
    if output is not None:
        result.save(output, force)
    return result


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeResult(Result):
    """A quantized agent, beside the floats and whatever else was tried.

    Attributes:
        ways: What was measured, the floats first: bits, sizes, times, scores, verdicts.
        kept: The one that is kept; with `auto` the floats where nothing helps.
        record: How it was made, as its file says it.
        path: Where it was written, if it was.
    """

    ways: tuple[Way, ...]
    kept: Way
    record: Mapping[str, Any]
    path: Path | None = None

    @property
    def agent(self) -> Agent:
        """The agent that is kept."""
        return self.kept.agent

    @property
    def verdict(self) -> Verdict:
        """Whether it holds `min_score` of the floats: holds, fails or undecided."""
        assert self.kept.verdict is not None  # what is kept was played
        return self.kept.verdict

    def save(self, path: Path | str, force: bool = False) -> Path:
        """Write the agent that is kept as safetensors, with the record of how it was made.

        Raises:
            UsageError: the file exists (without `force`) or cannot be written.
        """
        from kdcli.agents import store

        return store.save(Path(path), self.agent, self.record, force)

    def summary(self) -> dict[str, Any]:
        """What is kept, and all that was measured, as JSON values."""
        return {"kept": self.kept.name, "ways": [_json(way) for way in self.ways]}

    def facts(self) -> Mapping[str, Any]:
        """What is kept, its bits a weight, score and verdict."""
        score, low, high = self.kept.score
        facts = {"kept": self.kept.name, "bits": self.kept.bits, "score": score, "low": low, "high": high}
        facts |= {"verdict": self.verdict, "onnx_bytes": self.kept.cost.onnx_bytes}
        return facts if self.path is None else {**facts, "path": self.path}


def _json(way: Way) -> dict[str, Any]:
    told = {key: value for key, value in vars(way).items() if key not in ("agent", "file", "cost", "score")}
    score, low, high = way.score
    cost = {"onnx_bytes": way.cost.onnx_bytes, "latency_us": way.cost.latency_us}
    times = {"faster": way.cost.faster[1], "faster_256": way.cost.faster[256]}
    return {**told, **cost, **times, "score": score, "low": low, "high": high}
