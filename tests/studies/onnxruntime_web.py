"""Exported policies in onnxruntime-web, run by Node: whether a browser gives the same actions.

python tests/studies/onnxruntime_web.py [CHECKPOINT...]     needs node and npm; installs onnxruntime-web in a new folder

Without checkpoints, the untrained policies of every kind that the tests export.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "rooms"))

from sample_policies import POLICIES, observations

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.checkpoints.read import read
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import gather
from kdcli.exporters.step import convert

N = 64


def listed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON values."""
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.reshape(-1).tolist()}


def example(name: str, agent: Agent, states: States, folder: Path) -> dict[str, Any]:
    """One policy with inputs, and the outputs that onnxruntime gives."""
    made = convert(agent, states, ExportConfig())
    path = made.save(folder / f"{name}.onnx")
    obs = states.observations[:N]
    inputs = made.agent.inputs(obs, np.ones((len(obs), made.agent.state_size), np.float32))
    found = made.agent.session.run(None, inputs)
    outputs = dict(zip(made.agent.outputs, map(listed, found), strict=True))
    return {"name": name, "file": str(path), "inputs": {k: listed(v) for k, v in inputs.items()}, "outputs": outputs}


def main(paths: list[Path]) -> None:
    """Export, run in Node, print the largest difference of each."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["npm", "install", "--silent", "onnxruntime-web"], cwd=folder, check=True)
    agents = {path.stem: read(path) for path in paths} or {name: make() for name, make in POLICIES.items()}
    cases = [
        example(name, agent, gather(agent, N, 0) if paths else States(observations(agent, N)), folder)
        for name, agent in agents.items()
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    script = Path(__file__).with_suffix(".mjs")
    done = subprocess.run(["node", script, "cases.json"], cwd=folder, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for row in found:
        print(f"{row['name']:28s} {row['worst']:.2e}")
    print(f"{len(found)} of {len(cases)} policies ran; largest difference {max(row['worst'] for row in found):.2e}")


if __name__ == "__main__":
    main([Path(text) for text in sys.argv[1:]])
