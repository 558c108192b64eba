"""Environments: made from a description, stepped in batches. The only room that knows gymnasium."""

from kdcli.registry import Registry

WRAPPERS = Registry(
    "env wrapper",
    {
        "pad": ("kdcli.envs.wrappers:pad", "append N zeros to the observation, pad:84 (inputs that were always 0)"),
        "time-feature": ("kdcli.envs.wrappers:time_feature", "append the share of the episode left, 1 - t/1000"),
    },
)
