"""The cells of a study: which teacher, which variant, which seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from kdcli.distillation.checks import check_distillation
from kdcli.distillation.config import DistillConfig
from kdcli.errors import UsageError
from kdcli.studies.config import BASE, Options, Study, StudyTeacher
from kdcli.toml_config import built

MAX_VARIANTS = 10_000


@dataclass(frozen=True)
class Cell:
    """One student: of a teacher, under a variant, with a seed."""

    teacher: StudyTeacher
    variant: str
    config: DistillConfig

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.teacher.name}.{self.variant}.{self.config.seed}"


def variants(study: Study) -> dict[str, Options]:
    """Name -> what a variant sets; the base, which sets nothing, comes first.

    Raises:
        UsageError: two share a name.
    """
    alone = [(variant.name, variant.options) for variant in study.variant]
    found = [(BASE, {}), *(_combined(study) if study.grid == "full" else _one_by_one(study)), *alone]
    _refuse_twice([name for name, _ in found], "variants")
    return dict(found)


def _one_by_one(study: Study) -> list[tuple[str, Options]]:
    return [(f"{axis.name}={name}", options) for axis in study.axis for name, options in axis.variants.items()]


def _combined(study: Study) -> list[tuple[str, Options]]:
    """Each axis at one of its variants, or left as the base has it."""
    choices = [[None, *axis.variants] for axis in study.axis]
    if (n := prod(map(len, choices))) > MAX_VARIANTS:
        raise UsageError(f"the full grid has {n:,} variants", f"at most {MAX_VARIANTS:,}", 'set grid = "one"')
    found = []
    for picks in product(*choices):
        chosen = [(axis, pick) for axis, pick in zip(study.axis, picks, strict=True) if pick is not None]
        merged = {key: value for axis, pick in chosen for key, value in axis.variants[pick].items()}
        if chosen:
            found.append((",".join(f"{axis.name}={pick}" for axis, pick in chosen), merged))
    return found


def cells(study: Study) -> list[Cell]:
    """Every cell, all of a seed before the next: a study that is stopped has all variants at the same seeds.

    Raises:
        UsageError: names that are used twice, or options that `kdcli distill` does not take.
    """
    _refuse_twice([teacher.name for teacher in study.teacher], "teachers")
    chosen = variants(study)
    for name, options in [("base", study.base), *((f"teacher {t.name}", t.options) for t in study.teacher)]:
        _refuse_seed(name, options)
    configs = {
        (teacher.name, name): _config(study.base | teacher.options, options, f"{teacher.name}, {name}")
        for teacher in study.teacher
        for name, options in chosen.items()
    }
    return [
        Cell(teacher, name, configs[teacher.name, name].model_copy(update={"seed": seed}))
        for seed in range(study.seeds)
        for teacher in study.teacher
        for name in chosen
    ]


def _config(inherited: Options, own: Options, where: str) -> DistillConfig:
    _refuse_seed(where, own)
    config = built(DistillConfig, inherited | own, where)
    try:
        # What a variant sets must have an effect; what it inherits from the base may lose its own by that.
        check_distillation(config, given=own)
    except UsageError as error:
        raise error.within(where) from None
    return config


def _refuse_seed(where: str, options: Options) -> None:
    if "seed" in options:
        raise UsageError(f"{where} sets a seed", "a study gives each variant the same seeds", "set seeds = 5 instead")


def _refuse_twice(names: Sequence[str], noun: str) -> None:
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"two {noun} are called {twice[0]!r}", "each needs a name of its own", "rename one")
