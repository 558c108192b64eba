"""Runs a policy from its .npz file; needs Python 3.8, NumPy 1.20 and nothing else.

    policy = Policy("policy.npz")
    action = policy(obs)                           # a batch of raw observations -> a batch of actions for the env
    action = policy(image=images, vector=vectors)  # several observations, by name; or one mapping of them
    action, state = policy(obs, state)             # with memory: no state, or rows of zeros, where an episode begins

The file holds the policy's numbers and a list of operations; each is one line of OPERATIONS below.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def gelu(x: Any) -> Any:
    """x (1 + erf(x / sqrt(2))) / 2, the error function by Abramowitz and Stegun 7.1.26; error below 2e-7."""
    t = 1 / (1 + 0.3275911 * 0.5**0.5 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * x * series * np.exp(-0.5 * np.square(x))
    return np.where(x > 0, x - tail, tail)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """(B, I) -> (B, O), weight (O, I)."""
    return x @ weight.T if bias is None else x @ weight.T + bias


def windows(o: Any, x: Any, kernel: Any, edge: float) -> Any:
    """(B, C, H, W) -> what lies under a moving window, (B, C, H', W', h, w), `edge` where it sticks out."""
    (rows, cols), (down, right) = o["padding"], o["stride"]
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (cols, cols)), constant_values=edge)
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3))[:, :, ::down, ::right]


def conv2d(o: Any, x: Any) -> Any:
    """(B, C, H, W) -> (B, O, H', W'), weight (O, C, h, w), or with groups (O, C / groups, h, w)."""
    patches = windows(o, x, o["weight"].shape[2:], 0.0)
    if "groups" in o:
        n, _, rows, cols, *kernel = patches.shape
        apart = patches.reshape(n, o["groups"], -1, rows, cols, *kernel)
        weight = o["weight"].reshape(o["groups"], -1, *o["weight"].shape[1:])
        y = np.einsum("ngchwij,gocij->ngohw", apart, weight).reshape(n, -1, rows, cols)
        return y + o["bias"][:, None, None] if "bias" in o else y
    patches = patches.transpose(0, 2, 3, 1, 4, 5)
    y = linear(patches.reshape(-1, o["weight"][0].size), o["weight"].reshape(len(o["weight"]), -1), o.get("bias"))
    return y.reshape(*patches.shape[:3], -1).transpose(0, 3, 1, 2)


def gru_cell(o: Any, x: Any, h: Any) -> Any:
    """Cho et al. 2014: (B, I), h (B, H) -> h (B, H)."""
    a_r, a_z, a_n = np.split(linear(x, o["weight_ih"], o.get("bias_ih")), 3, axis=1)
    b_r, b_z, b_n = np.split(linear(h, o["weight_hh"], o.get("bias_hh")), 3, axis=1)
    r, z = sigmoid(a_r + b_r), sigmoid(a_z + b_z)
    return (1 - z) * np.tanh(a_n + r * b_n) + z * h


def lstm_cell(o: Any, x: Any, h: Any, c: Any) -> Any:
    """Hochreiter and Schmidhuber 1997: (B, I), h and c (B, H) -> h and c (B, H)."""
    sums = linear(x, o["weight_ih"], o.get("bias_ih")) + linear(h, o["weight_hh"], o.get("bias_hh"))
    i, f, g, out = np.split(sums, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(out) * np.tanh(c), c


def attention(o: Any, q: Any, k: Any, v: Any, bias: Any = 0, valid: Any = True) -> Any:
    """Vaswani et al. 2017, eq. 1: q (B, M, D), k and v (B, N, D) -> (B, M, D), each head on its part of D."""
    q, k, v = (x.reshape(*x.shape[:2], o["heads"], -1).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) * np.float32(q.shape[3] ** -0.5) + bias
    scores = np.where(valid if valid is True else valid[:, None, None] != 0, scores, np.float32(-1e8))
    p = np.exp(scores - scores.max(3, keepdims=True))
    return (p / p.sum(3, keepdims=True) @ v).swapaxes(1, 2).reshape(len(q), *o["shape"])


def dynamic_quantize(o: Any, x: Any) -> Any:
    """(B, ...), each sample on a grid of its own, its largest |number| on the last code."""
    most = np.float32(o["high"] - o["zero"])
    scale = np.maximum(np.abs(x).max(tuple(range(1, x.ndim)), keepdims=True) / most, np.float32(1e-12))
    return np.round(x / scale).clip(o["low"] - o["zero"], o["high"] - o["zero"]) * scale


def expectation(o: Any, x: Any) -> Any:
    """(B, A * N) -> (B, A): softmax over each N, times the atoms (N,)."""
    y = x.reshape(len(x), -1, o["atoms"].size)
    p = np.exp(y - y.max(2, keepdims=True))
    return p @ o["atoms"] / p.sum(2)


def one_hot(o: Any, x: Any) -> Any:
    """(B,) or (B, groups) -> (B, sum of sizes): 1 at each one's place, else 0."""
    columns = x.reshape(len(x), -1, 1).swapaxes(0, 1)
    found = [columns[k] == o["start"] + np.arange(n) for k, n in enumerate(o["sizes"])]
    return np.concatenate(found, axis=1).astype(o["dtype"])


def mask(o: Any, x: Any, allowed: Any) -> Any:
    """(B, P) where it is allowed, else -1e8; with bits, two numbers allow 0 and 1 of each."""
    if o["bits"]:
        return x + np.float32(1e8) * (allowed[:, 1::2].astype("float32") - allowed[:, ::2].astype("float32"))
    return np.where(allowed != 0, x, np.float32(-1e8))


# o holds an operation's settings and numbers, and the shape and dtype of what it gives; x is (B, ...).
OPERATIONS: dict[str, Any] = {
    "add": lambda o, x, y: x + y,
    "argmax": lambda o, x: x.argmax(1) + o["start"],
    "attention": attention,
    "cast": lambda o, x: x.astype(o["dtype"]),
    "channels_first": lambda o, x: x.transpose(0, 3, 1, 2),
    "clip": lambda o, x: np.minimum(np.maximum(x, o["low"]), o["high"]),
    "concat": lambda o, *xs: np.concatenate([x.reshape(len(x), -1) for x in xs], axis=1),
    "conv2d": conv2d,
    "dynamic_quantize": dynamic_quantize,
    "elu": lambda o, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "expectation": expectation,
    "flatten": lambda o, x: x.reshape(len(x), -1),
    "gelu": lambda o, x: gelu(x),
    "gemm": lambda o, x: linear(x, o["weight"], o.get("bias")),
    "group_argmax": lambda o, x: np.stack([y.argmax(1) for y in np.split(x, np.cumsum(o["sizes"])[:-1], 1)], 1),
    "gru_cell": gru_cell,
    "gsde": lambda o, x: 0.5 * np.log(np.square(x) @ o["variance"] + 1e-6),
    "hardshrink": lambda o, x: np.where(np.abs(x) > 0.5, x, 0 * x),
    "hardsigmoid": lambda o, x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda o, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hardtanh": lambda o, x: np.clip(x, -1, 1),
    "identity": lambda o, x: x,
    "layer_norm": lambda o, x: (
        (x - x.mean(-1)[..., None]) / np.sqrt(x.var(-1)[..., None] + o["eps"]) * o["weight"] + o["bias"]
    ),
    "leaky_relu": lambda o, x: np.where(x > 0, x, 0.01 * x),
    "log_sigmoid": lambda o, x: -np.logaddexp(-x, np.float32(0)),
    "lstm_cell": lstm_cell,
    "mask": mask,
    "max_pool2d": lambda o, x: windows(o, x, o["kernel"], -np.inf).max((4, 5)),
    "mean": lambda o, x: x.reshape(len(x), o["groups"], -1).mean(1),
    "mish": lambda o, x: x * np.tanh(np.logaddexp(x, np.float32(0))),
    "normalize": lambda o, x: np.clip((x - o["mean"]) / o["scale"], -o.get("clip", np.inf), o.get("clip", np.inf)),
    "one_hot": one_hot,
    "quantize": lambda o, x: np.round(x / o["scale"]).clip(o["low"] - o["zero"], o["high"] - o["zero"]) * o["scale"],
    "relu": lambda o, x: np.maximum(x, 0),
    "relu6": lambda o, x: np.clip(x, 0, 6),
    "rrelu": lambda o, x: np.where(x > 0, x, 11 / 48 * x),
    "repeat": lambda o, x: np.broadcast_to(o["value"], (len(x), *o["shape"])),
    "reshape": lambda o, x: x.reshape(len(x), *o["shape"]),
    "scale": lambda o, x: x / o["divisor"],
    "selu": lambda o, x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "sigmoid": lambda o, x: sigmoid(x),
    "silu": lambda o, x: x * sigmoid(x),
    "slice": lambda o, x: x[:, o["start"] : o["stop"]],
    "softplus": lambda o, x: np.logaddexp(x, np.float32(0)),
    "softshrink": lambda o, x: x - np.clip(x, -0.5, 0.5),
    "softsign": lambda o, x: x / (1 + np.abs(x)),
    "take": lambda o, x: x[:, o["places"]],
    "tanh": lambda o, x: np.tanh(x),
    "tanhshrink": lambda o, x: x - np.tanh(x),
    "threshold": lambda o, x: sigmoid(x).round(),
    "unscale": lambda o, x: x * o["half"] + o.get("middle", 0),
}


class Policy:
    """A policy from its file; `inputs` and `outputs` say what goes in and out: name, shape without the batch, dtype."""

    def __init__(self, file: Any) -> None:
        with np.load(file, allow_pickle=False) as content:
            graph = json.loads(content["graph"].item())
            for operation in graph["operations"]:
                for key, (name, dtype) in operation["numbers"].items():
                    operation["settings"][key] = content[name].astype(dtype)
        self.operations, self.inputs, self.outputs = graph["operations"], graph["inputs"], graph["outputs"]
        self.state_size = next((port["shape"][0] for port in self.inputs if port["name"] == "state_in"), 0)

    def run(self, inputs: Any) -> Any:
        """Inputs by name, (B, *shape) -> outputs by name, (B, *shape)."""
        values = {port["name"]: np.asarray(inputs[port["name"]], port["dtype"]) for port in self.inputs}
        for operation in self.operations:
            x = [values[name] for name in operation["inputs"]]
            found = OPERATIONS[operation["kind"]](operation["settings"], *x)
            made = found if isinstance(found, tuple) else (found,)
            values.update({name: made[k] for k, name in enumerate(operation["outputs"])})
        return {port["name"]: values[port["name"]] for port in self.outputs}

    def __call__(self, obs: Any = None, state: Any = None, **named: Any) -> Any:
        """Actions for a batch of observations; with memory, actions and the next state."""
        names = [port["name"] for port in self.inputs if port["name"] != "state_in"]
        many = hasattr(obs, "keys") or getattr(getattr(obs, "dtype", None), "names", None)
        inputs = {name: obs[name] for name in names} if many else {**named, **({} if obs is None else {"obs": obs})}
        if not self.state_size:
            return self.run(inputs)["action"]
        state = np.zeros((len(inputs[names[0]]), self.state_size), np.float32) if state is None else state
        found = self.run({**inputs, "state_in": state})
        return found["action"], found["state_out"]
