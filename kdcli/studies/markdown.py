"""The table of a study in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kdcli.escapes import markdown as escaped
from kdcli.reports.markdown import table as as_markdown
from kdcli.reports.table import ABSENT, Table, number
from kdcli.spec import EnvSpec, Json


def page(answer: Json) -> str:
    """Title, how it was measured, a table a teacher, one over all of them."""
    parts = [f"# {escaped(answer['name'])}", how(answer)]
    for teacher in answer["teachers"]:
        parts += [f"## {escaped(teacher['name'])}", escaped(about(teacher)), as_markdown(students(teacher, answer))]
        parts += [f"- {escaped(line.removeprefix('- '))}" for line in others(teacher)]
    if answer["overall"]:
        parts += ["## Over all teachers", as_markdown(over_all(answer))]
    return "\n\n".join(parts) + "\n"


def how(answer: Json) -> str:
    """What was done, and how to read it."""
    base = ", ".join(escaped(f"{key} = {json.dumps(value)}") for key, value in answer["base"].items())
    there, total = answer["cells"]["there"], answer["cells"]["total"]
    state = "" if there == total else f" {there} of {total} students are measured so far."
    return (
        f"{answer['seeds']} students of each variant, seeds 0 to {answer['seeds'] - 1}, measured on the same "
        f"{answer['episodes']} initial states, on which nothing was chosen.{state} Base: {base or 'the defaults'}.\n"
        f"Score: 0 is random play, 1 the teacher. Brackets: {100 * answer['confidence']:g}% t intervals over seeds. "
        "The difference is that of the same seeds' scores from the base's; a variant is shown to be better or worse "
        "where its interval does not hold 0, which chance alone does to one in "
        f"{1 / (1 - answer['confidence']):.0f}; the best is the one with the highest score among the better ones."
    )


def about(teacher: Json) -> str:
    """A teacher in a line."""
    params = f"{teacher['params']:,} parameters, " if teacher["params"] else ""
    env = EnvSpec.from_json(teacher["env"])
    return f"{env}: {params}return {number(teacher['return'])}, random play {number(teacher['random'])}."


def students(teacher: Json, answer: Json) -> Table:
    """One teacher's variants: those that apply to it and have a student."""
    level = f"[{100 * answer['confidence']:g}%]"
    columns = ("variant", f"score {level}", f"difference {level}", "agree", "params", "fewer", "labels", "s", "shown")
    return Table(columns, [_line(row, teacher["params"]) for row in teacher["rows"] if row["score"]])


def _line(row: Json, params: int | None) -> tuple[str, ...]:
    fewer = f"{params / row['params']:,.1f}x" if params and row["params"] else ABSENT
    return (
        row["variant"],
        _estimate(row["score"]),
        _estimate(row["difference"]),
        ABSENT if row["agreement"] is None else f"{row['agreement']:.3f}",
        _count(row["params"]),
        fewer,
        _count(row["labels"]),
        number(row["seconds"]),
        _shown(row),
    )


def _shown(row: Json) -> str:
    failed = f"{row['failed']} of {row['score']['n']} diverged" if row["failed"] else ""
    return ", ".join(word for word in (row["mark"], failed) if word)


def others(teacher: Json) -> list[str]:
    """The variants that do not apply to a teacher, and why."""
    return [f"- {row['variant']}: not applicable: {row['reason']}" for row in teacher["rows"] if row["reason"]]


def over_all(answer: Json) -> Table:
    """Every variant beside the base, the differences averaged over teachers."""
    level = f"[{100 * answer['confidence']:g}%]"
    found: Sequence[Json] = [row for row in answer["overall"] if row["difference"]]
    lines = [(row["variant"], _estimate(row["difference"]), str(row["teachers"]), row["mark"]) for row in found]
    return Table(("variant", f"difference {level}", "teachers", "shown"), lines)


def _estimate(found: Json | None) -> str:
    if found is None:
        return ABSENT
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"
