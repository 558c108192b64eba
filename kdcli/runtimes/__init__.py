"""What can run a policy: the agent itself, and the runtimes of its exports, each with its own empty call.

A row makes a `Program` of an `RuntimeEntry`; `lab` gives contenders the programs of the runtimes that are asked for.
"""

from __future__ import annotations

from kdcli.registry import Registry

_HERE = "kdcli.runtimes"
RUNTIMES = Registry(
    "runtime",
    {
        "sb3": (f"{_HERE}.sb3:SB3", "Stable-Baselines3's own predict; for its checkpoints, pip install 'kdcli[sb3]'"),
        "torch": (f"{_HERE}.agents:TORCH", "the agent itself, PyTorch operation by operation"),
        "torchscript": (f"{_HERE}.exports:TORCHSCRIPT", "the .pt file, loaded by torch"),
        "onnxruntime": (f"{_HERE}.agents:ONNXRUNTIME", "the ONNX file, by session.run"),
        "openvino": (
            f"{_HERE}.openvino:OPENVINO",
            "the ONNX file, by OpenVINO; pip install 'kdcli[openvino]'",
        ),
        "numpy": (f"{_HERE}.exports:NUMPY", "the .npz file, by the page of NumPy that comes with it"),
        "c": (f"{_HERE}.c:C", "the C files, cc -O3, called in a loop as a C program calls them"),
        "c_native": (f"{_HERE}.c:C_NATIVE", "the same for this machine alone: cc -O3 -march=native"),
    },
    group="kdcli.runtimes",
)
