"""Options made from a config: each is defined once, there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from fake_commands import TuneConfig
from pydantic import BaseModel, Field
from ran import Ran

from kdcli.cli.console import Console
from kdcli.cli.options import command

Kdcli = Callable[..., Ran]


def tuned(kdcli: Kdcli, *options: str) -> dict[str, object]:
    ran = kdcli("tune", "teacher.zip", "--env", "CartPole-v1", *options)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_defaults_are_those_of_the_config(kdcli: Kdcli) -> None:
    """Law: without options a command works with the config that Python would build."""
    default = TuneConfig(env="CartPole-v1").model_dump(mode="json")
    assert tuned(kdcli) == {"schema": "fake.tune/1", "teacher": "teacher.zip", **default}


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (("--n-steps", "3"), "n_steps", 3),
        (("--rate", "1e-3"), "rate", 1e-3),
        (("--loss", "mse"), "loss", "mse"),
        (("--bits", "4"), "bits", 4),
        (("--budget", "1h30m"), "budget", 5400.0),
        (("--patience", "90s"), "patience", 90.0),
        (("--cache", "a/b"), "cache", "a/b"),
        (("--no-shuffle",), "shuffle", False),
        (("--shuffle",), "shuffle", True),
        (("--tags", "a", "--tags", "b"), "tags", ["a", "b"]),
        (("--layers", "8"), "layers", [8]),
    ],
)
def test_an_option_sets_its_field(kdcli: Kdcli, options: tuple[str, ...], field: str, value: object) -> None:
    """Law: every kind of field can be set, and only that field changes."""
    assert tuned(kdcli, *options) == {**tuned(kdcli), field: value}


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (("--n-steps", "0"), ["invalid value for --n-steps: '0'", "greater than 0"]),
        (("--n-steps", "many"), ["invalid value for --n-steps: 'many'", "valid integer"]),
        (("--rate", "x"), ["invalid value for --rate: 'x'", "valid number"]),
        (("--bits", "5"), ["invalid value for --bits: '5'", "4 or 8"]),
        (("--budget", "5x"), ["invalid value for --budget: '5x'", "90s, 5m or 1h30m"]),
        (("--layers", "8", "--layers", "x"), ["invalid value for --layers: 'x'", "valid integer"]),
        (("--loss", "msee"), ["unknown value for --loss: 'msee'", "known: kl, mse", "did you mean 'mse'?"]),
        (("--seed", "13"), ["these options do not go together", "seed 13 is out of the question"]),
        (("--stepz", "3"), ["No such option: --stepz"]),
        (("--rate",), ["Option '--rate' requires an argument."]),
    ],
)
def test_a_bad_value_names_its_option(kdcli: Kdcli, options: tuple[str, ...], lines: list[str]) -> None:
    """Law: a value the config refuses is exit 2 in at most three lines, the first with the option and the value."""
    ran = kdcli("tune", "teacher.zip", "--env", "x", *options)
    assert (ran.code, ran.out) == (2, "")
    said = ran.err.splitlines()
    assert len(said) <= 3
    for line, part in zip(said, lines, strict=False):
        assert part in line


def test_a_field_without_default_is_required(kdcli: Kdcli) -> None:
    """Law: what the config requires the command line requires, by the option's name."""
    ran = kdcli("tune", "teacher.zip")
    assert ran.code == 2
    assert ran.err.startswith("kdcli: Missing option '--env'")


def test_the_help_says_what_the_config_says(kdcli: Kdcli, capsys: pytest.CaptureFixture[str]) -> None:
    """Law: a page of help has each field's name, kind, description and default, brackets and all."""
    assert kdcli("tune", "--help").code == 0
    page = " ".join(capsys.readouterr().out.split())
    for said in (
        "Usage: kdcli tune [OPTIONS] {teacher}",
        "Who teaches.",
        "--env <str> Where to play. [required]",
        "--n-steps <int> How long, in [steps]. [default: 10]",
        "--rate <float> How fast. [default: 0.0003]",
        "--layers <int> How wide. [default: 64, 32]",
        "--tags <str> What to call it. --loss",
        "--loss <kl|mse> How far off. [default: kl]",
        "--bits <4|8>",
        "--budget <duration> How much time. [default: 5m]",
        "--patience <duration> How much more. --cache",
        "--cache <path>",
        "--shuffle / --no-shuffle Whether to mix. [default: true]",
        "--seed <int> Where chance starts. [default: 0]",
    ):
        assert said in page
    described = {field.description for field in TuneConfig.model_fields.values()}
    assert all(re.search(re.escape(text or "?"), page) for text in described)


def test_a_field_no_option_can_hold_is_refused() -> None:
    """Law: a config that cannot be typed is found when the command is made, not when it is used."""

    class Nested(BaseModel):
        where: dict[str, int] = Field(default_factory=dict)

    def bad(config: Nested, *, console: Console) -> None: ...

    bad.__annotations__ = {"config": Nested, "console": Console}
    with pytest.raises(TypeError, match="no option can hold"):
        command(bad)


def test_an_option_is_defined_once() -> None:
    """Law: a parameter that repeats a field of the config is refused."""

    def bad(env: str, config: TuneConfig) -> None: ...

    bad.__annotations__ = {"env": str, "config": TuneConfig}
    with pytest.raises(ValueError, match="duplicate parameter name: 'env'"):
        command(bad)
