"""Foreign files to Agents. Pickle content is interpreted by us from an allow-list: no code runs from a file.

read            any file -> Agent, by its content
step            any file -> agent file
config          what the user may say about a checkpoint
sb3             a Stable-Baselines3 zip; policy networks: actor_critic, off_policy, ars
vecnormalize    the observation statistics beside it
zoo, env_ids    what the files around it tell, and which of today's environments is meant
pickles, arrays, allowed, spaces, weights, zips     bytes -> checked values
"""

from kdcli.registry import Registry

FORMATS = Registry(
    "checkpoint format",
    {
        "sb3": ("kdcli.checkpoints.sb3:read", "Stable-Baselines3 and sb3-contrib zip, with its vecnormalize.pkl"),
        "native": ("kdcli.checkpoints.read:native", "agent file written by kdcli"),
        "onnx": ("kdcli.checkpoints.read:onnx", "ONNX file exported by kdcli"),
    },
)
