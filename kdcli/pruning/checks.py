"""What can be said about pruning before it begins."""

from __future__ import annotations

from kdcli.applies import Applies, given_fields, refuse_idle
from kdcli.errors import UsageError, option
from kdcli.pruning import IMPORTANCE, PACES
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.masks import check_judges_weights
from kdcli.pruning.size_targets import Budget

_LOSSLESS = f"with {option('lossless')} only that goes which changes no action"
_CUTTING = "to pattern importance allocation rounds pace recover labels lr min_score episodes importance_states"
RULES: tuple[Applies[PruneConfig], ...] = (
    Applies(_CUTTING, lambda c: not c.lossless, _LOSSLESS),
    Applies("to", lambda c: not c.block, "N of M weights stay, which is a size already"),
    Applies("allocation", lambda c: not c.block, "N of M weights stay in every layer"),
    Applies("rounds", lambda c: not c.block, "N of M weights are chosen at once"),
    Applies("pace", lambda c: not c.block and c.rounds > 1, "all goes in one round"),
    Applies("labels lr", lambda c: c.recover > 0, "nothing is distilled back", f"give {option('recover')}"),
)


def check_pruning(config: PruneConfig) -> None:
    """Say all that can be said of the options.

    Raises:
        UsageError: nothing is asked for, a text names nothing or cannot be read, options exclude each other, or one
            would change nothing.
    """
    config.check()
    refuse_idle(given_fields(config), RULES, config)
    IMPORTANCE.load(config.importance)
    PACES.load(config.pace)
    if config.importance == "movement" and not config.recover:
        raise UsageError("movement needs training", "the weights do not move", f"give {option('recover')}")
    if config.pattern != "units" and not config.lossless:
        check_judges_weights(config.importance)
    if config.to is None:
        return
    budget = Budget.parse(config.to, {"latency_us": lambda _: 0.0})
    if config.pattern == "weights" and budget.name != "nonzeros":
        why, fix = "the shapes stay", f"give {option('to', 'nonzeros<=...')}"
        raise UsageError(f"zeros do not change {budget.name}", why, fix)
