"""The summary of a run in Markdown: the finding first, then the tables, what was tried, and how to use the file."""

from __future__ import annotations

from kdcli.escapes import markdown as escaped
from kdcli.reports.markdown import markdown
from kdcli.spec import Json

_USE = """```python
import onnxruntime

policy = onnxruntime.InferenceSession("{file}")
action = policy.run(["action"], {{"obs": obs[None]}})[0][0]  # obs as the env gives it; action as env.step takes it
```"""


def times(ratio: float) -> str:
    """3.81x, 43.0x, 1,920x."""
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def headline(answer: Json) -> str:
    """The finding in a sentence."""
    params = answer["params"]
    if answer["minimal"]:
        return f"{answer['teacher']} is linear, {params[0]:,} parameters: already minimal, exported as it is"
    score = answer["score"]
    numbers = "no score"
    if score["score"] is not None:
        numbers = f"score {score['score']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    targets = [
        f"{one['target']} {'met' if one['holds'] else 'missed'} ({one['value']:,.4g})" for one in answer["targets"]
    ]
    return ", ".join([_found(answer, numbers), *targets])


def _found(answer: Json, numbers: str) -> str:
    params, score = answer["params"], answer["score"]
    return (
        f"{answer['student']}, {params[1]:,} of {params[0]:,} parameters "
        f"({times(answer['times_fewer'])} fewer): {numbers}, "
        f"{answer['verdict']} at {score['min_score']:g} over {score['n']} paired episodes"
    )


def summary(answer: Json, record: Json) -> str:
    """The whole page."""
    file = "teacher.onnx" if answer["minimal"] else "student.onnx"
    parts = [
        f"# {escaped(answer['teacher'])}",
        f"{escaped(headline(answer))}.",
        markdown(record).strip(),
        _tried(answer),
        _proofs(answer),
        "### Use it",
        _USE.format(file=file),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tried(answer: Json) -> str:
    if not answer["tried"]:
        return ""
    lines = ["### What was tried", "", "| student | parameters | score in screening | labels | seconds | |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | --- |")
    for row in answer["tried"]:
        seen, word = row["screening"], "promising" if row["promising"] else "not enough"
        score = "-" if seen["score"] is None else f"{seen['score']:.3f} [{seen['low']:.3f}, {seen['high']:.3f}]"
        labels = row["distill"]["labels"]
        lines.append(
            f"| {escaped(row['student'])} | {row['params']:,} | {score} | {labels:,} | {row['seconds']:.0f} | {word} |"
        )
    return "\n".join(lines)


def _proofs(answer: Json) -> str:
    """What was proven or not, on fresh episodes, at confidences that are worth one verdict together."""
    if not answer["proofs"]:
        return ""
    lines = ["### What was proven", "", "| student | score on fresh episodes | confidence | episodes | verdict |"]
    lines.append("| --- | ---: | ---: | ---: | --- |")
    for row in answer["proofs"]:
        seen = row["comparison"]
        score = "-" if seen["score"] is None else f"{seen['score']:.3f} [{seen['low']:.3f}, {seen['high']:.3f}]"
        share = f"{100 * seen['confidence']:.4g} %"
        lines.append(f"| {escaped(row['student'])} | {score} | {share} | {seen['n']} | {row['verdict']} |")
    return "\n".join(lines)
