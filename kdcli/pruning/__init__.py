"""Pruning: an agent to one with fewer numbers, first without changing an action, then with recovery."""

from kdcli.registry import Registry

LOSSLESS = Registry(
    "lossless step",
    {
        "heads": ("kdcli.pruning.lossless:heads", "critics, spreads and quantiles, which choose no greedy action"),
        "inputs": ("kdcli.pruning.lossless:inputs", "numbers of the observation that never vary, or are not read"),
        "units": ("kdcli.pruning.lossless:units", "hidden units that are dead, constant, or not read"),
        "linear": ("kdcli.pruning.lossless:linear", "linear layers with nothing between them, as one"),
    },
)
