"""What can be said about quantization before it begins."""

from __future__ import annotations

from kdcli.applies import Applies, given_fields, refuse_idle
from kdcli.errors import UsageError, option
from kdcli.quantization.config import QuantizeConfig
from kdcli.quantization.plan import Plan

_WAYS = f"{option('auto')} tries schemes of its own"
_FLOATS = "activations stay floats"
RULES: tuple[Applies[QuantizeConfig], ...] = (
    Applies("scheme mixed activations inputs", lambda c: not c.auto, _WAYS),
    Applies("scheme", lambda c: not c.mixed, f"{option('mixed')} chooses a scheme for each matrix"),
    Applies("inputs", lambda c: c.activations > 0, _FLOATS, f"give {option('activations')}"),
    Applies(
        "calibration",
        lambda c: c.target == "latency" if c.auto else c.activations > 0,
        _FLOATS,
        f"give {option('activations')}",
    ),
    Applies("target batch", lambda c: c.auto, "one way is made, and none chosen", f"give {option('auto')}"),
    Applies("batch", lambda c: c.target == "latency", "no time is asked for", f"give {option('target', 'latency')}"),
)


def check_quantization(config: QuantizeConfig, teacher: bool = False) -> None:
    """Say all that can be said of the options, and of whether a teacher is given.

    Raises:
        UsageError: a text cannot be read, options exclude each other, or one would change nothing.
    """
    Plan.parse(config.scheme, config.activations, config.inputs, config.calibration)
    refuse_idle(given_fields(config), RULES, config)
    if teacher and not config.updates:
        what, fix = f"{option('teacher')} would change nothing", f"give {option('updates')}, or leave it out"
        raise UsageError(what, "without training nobody is taught", fix)
