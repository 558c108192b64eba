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

IMPORTANCE = Registry(
    "importance",
    {
        "disagreement": (
            "kdcli.pruning.importance:disagreement",
            "how far actions move on real states when the unit is replaced by its mean, measured one by one",
        ),
        "taylor": ("kdcli.pruning.importance:taylor", "the same to first order, by gradients (Molchanov et al. 2017)"),
        "activation": ("kdcli.pruning.importance:activation", "how far the sums behind move without it"),
        "magnitude": ("kdcli.pruning.importance:magnitude", "the norm of all its weights (Li et al. 2017)"),
        "movement": (
            "kdcli.pruning.importance:movement",
            "how far training moved it from 0 (Sanh et al. 2020)",
        ),
        "random": ("kdcli.pruning.importance:random", "nothing: what the others must beat"),
    },
)

PACES = Registry(
    "pace",
    {
        "geometric": ("kdcli.pruning.sparsity_schedule:geometric", "in each round the same share of what is left"),
        "linear": ("kdcli.pruning.sparsity_schedule:linear", "in each round as many"),
        "cubic": ("kdcli.pruning.sparsity_schedule:cubic", "many at first, few in the end (Zhu and Gupta 2017)"),
    },
)

BUDGETS = Registry(
    "pruning budget",
    {
        "params": ("kdcli.pruning.size_targets:params", "weights and biases of the network that acts"),
        "macs": ("kdcli.pruning.size_targets:macs", "multiply-adds of one decision"),
        "nonzeros": ("kdcli.pruning.size_targets:nonzeros", "weights and biases that are not zero"),
    },
)
