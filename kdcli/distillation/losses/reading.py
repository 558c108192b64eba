"""What losses read of heads: the signal they need, or an error that says what there is instead."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.errors import UsageError, option

# A temperature: one number, or one for each sample (B, 1).
Tau = float | Tensor
# Heads of the student, heads of the teacher, temperature -> one number a sample (B,).
Loss = Callable[[Heads, Heads, Tau], Tensor]


def need(heads: Heads, name: str, who: str) -> Tensor:
    """The signal called `name`.

    Raises:
        UsageError: these heads do not have it.
    """
    tensor: Tensor | None = getattr(heads, name)
    if tensor is None:
        has = ", ".join(heads.present()) or "nothing of the kind"
        fix = f"leave {option('loss')} out, for one that fits"
        if name == "value" and who == "teacher":
            fix += f"; a SAC, TQC, TD3 or DDPG checkpoint has values with {option('critics')}"
        raise UsageError(f"this loss needs the {who}'s {name}", f"it gives {has}", fix)
    return tensor


def scores(heads: Heads, who: str) -> Tensor:
    """Logits (B, A); of a teacher that has none, its Q-values (Rusu et al. 2015, section 3.2)."""
    return heads.logits if heads.logits is not None else need(heads, "q", who)


def groups(values: Tensor, heads: Heads) -> list[Tensor]:
    """The independent choices of values (B, A), side by side."""
    return list(values.split(list(heads.groups), dim=1)) if len(heads.groups) > 1 else [values]
