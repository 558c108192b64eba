"""Foreign files to Agents. Pickle content is interpreted by us from an allow-list: no code runs from a file.

read, sniff     any file -> Agent, by its content
step            any file -> agent file
config, asked   what the user may, and where a file does not tell must, say about a checkpoint
sb3, saved      a Stable-Baselines3 zip; networks: extractors, then actor_critic, off_policy, crossq or ars; observed
vecnormalize    the observation statistics beside it
cleanrl, rsl_rl, skrl, d3rlpy(_layers)          other libraries' files
card, cards                                     tensors with a card that describes them
containers, assembly, finish                    file -> tensors in order -> network -> Agent
foreign_onnx, onnx_file, graft, torch_program   programs as black boxes
zoo, env_ids    what the files around it tell, and which of today's environments is meant
pickles, torch_files, arrays, allowed, spaces, weights, zips        bytes -> checked values
"""

from kdcli.registry import Registry

FORMATS = Registry(
    "checkpoint format",
    {
        "sb3": (
            "kdcli.checkpoints.sb3.reader:read",
            "Stable-Baselines3 and sb3-contrib zip, with its vecnormalize.pkl",
        ),
        "sb3_policy": ("kdcli.checkpoints.sb3.reader:read_policy", "what policy.save(...) of Stable-Baselines3 writes"),
        "cleanrl": ("kdcli.checkpoints.cleanrl:read", "CleanRL's .cleanrl_model and state dicts of its scripts"),
        "rsl_rl": ("kdcli.checkpoints.rsl_rl:read", "rsl_rl's model_*.pt"),
        "skrl": ("kdcli.checkpoints.skrl:read", "skrl's agent_*.pt and best_agent.pt"),
        "d3rlpy": ("kdcli.checkpoints.d3rlpy.reader:read", "d3rlpy's .d3"),
        "card": ("kdcli.checkpoints.card.reader:read", "state dict or safetensors, with a JSON card that describes it"),
        "onnx_policy": ("kdcli.checkpoints.blackbox.onnx_policy:read", "ONNX policy of any exporter, as a black box"),
        "torchscript": (
            "kdcli.checkpoints.blackbox.torch_program:read",
            "TorchScript policy, as a black box; needs --trust",
        ),
        "torch_export": (
            "kdcli.checkpoints.blackbox.torch_program:read",
            "torch.export policy, as a black box; needs --trust",
        ),
        "native": ("kdcli.checkpoints.read:native", "agent file written by kdcli"),
        "onnx": ("kdcli.checkpoints.read:onnx", "ONNX file exported by kdcli"),
    },
    group="kdcli.formats",
)
