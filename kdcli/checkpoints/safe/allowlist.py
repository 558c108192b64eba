"""The names a pickle may mention. A name stays a name: nothing here is imported or called."""

from __future__ import annotations

import re

from kdcli.checkpoints.safe.arrays import BUILDERS

# Everything that lives under these becomes an inert record.
_ROOTS = (
    "gym.spaces",
    "gymnasium.spaces",
    "gym.utils.seeding",
    "gymnasium.utils.seeding",
    "numpy.random",
    "sb3_contrib",
    "stable_baselines3",
    "torch.nn.modules",
    "torch.optim",
)
_SCALARS = ("bool_", "bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
_FLOATS = ("float16", "float32", "float64")
_NAMES = {
    "builtins.bool",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.set",
    "collections.OrderedDict",
    "numpy.ndarray",
    "torch.device",
    *(f"numpy.{name}" for name in (*_SCALARS, *_FLOATS)),
    *BUILDERS,
}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def is_name(module: str, name: str) -> bool:
    """Whether `module.name` could be the name of anything; of a function inside another, too."""
    return bool(_IDENTIFIER.fullmatch(f"{module}.{name}".replace(".<locals>.", ".")))


def is_allowed(module: str, name: str) -> bool:
    """Whether a pickle may mention `module.name`."""
    full = f"{module}.{name}"
    if not _IDENTIFIER.fullmatch(full):
        return False
    return full in _NAMES or any(module == root or module.startswith(root + ".") for root in _ROOTS)
