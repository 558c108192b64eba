"""OpenVINO on one thread of the CPU, in float32, on the ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdcli.benchmarks.program import Program, empty_graph, inputs
from kdcli.errors import RefusedError
from kdcli.runtimes.runtime import Runtime, RuntimeEntry

_SETTINGS = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
}
_NEAR = 1e-3
Feed = Mapping[str, np.ndarray]


def _start(data: bytes) -> Callable[[Feed], list[np.ndarray]]:
    """The model, compiled for each batch size when it is first met: what never changes is quicker than what may.

    Inputs are copied into tensors that are there, and outputs are read in place: half the time of `compiled(inputs)`.
    """
    import openvino

    core, requests = openvino.Core(), {}

    def call(given: Feed) -> list[np.ndarray]:
        n = len(next(iter(given.values())))
        if n not in requests:
            requests[n] = _request(core, data, given)
        infer, into, out = requests[n]
        for name, array in given.items():
            into[name][...] = array
        infer()
        return out

    return call


def _request(core: Any, data: bytes, given: Feed) -> tuple[Callable[[], None], Feed, list[np.ndarray]]:
    """What runs the model, the arrays it reads, and those it writes."""
    request = _compiled(core, data, given).create_infer_request()
    into = {name: request.get_tensor(name).data for name in given}
    return request.infer, into, [tensor.data for tensor in request.output_tensors]


def _compiled(core: Any, data: bytes, given: Feed) -> Any:
    try:
        model = core.read_model(data)
        model.reshape({name: list(array.shape) for name, array in given.items()})
        return core.compile_model(model, "CPU", _SETTINGS)
    except RuntimeError as error:
        raise RefusedError("OpenVINO does not take the file", str(error).splitlines()[0], "leave it out") from None


def _program(entrant: RuntimeEntry) -> Program:
    player = entrant.entry.player
    given, call = inputs(player.observation, player.state_size), _start(entrant.onnx)
    _check(entrant, given, call)
    floor = Program(_start(empty_graph(player.observation, player.state_size)), given)
    return Program(call, given, floor=floor)


def _check(entrant: RuntimeEntry, given: Callable[[np.ndarray], Feed], call: Callable[[Feed], Any]) -> None:
    """Raise RefusedError unless it acts as onnxruntime does on the first states, an episode beginning in each."""
    file, obs = entrant.entry.exported, entrant.states.observations[:64]
    if file is None:
        return
    found, wanted = call(given(obs))[0], file.run(obs)["action"]
    far = np.abs(found.astype(np.float64) - wanted).reshape(len(obs), -1).max(1) > _NEAR
    if far.mean() > 0.02:
        why = f"its actions differ in {far.sum()} of {len(obs)} states"
        raise RefusedError(f"OpenVINO does not act as {entrant.entry.name}", why, "leave it out")


OPENVINO = Runtime(_program, ("openvino",), "pip install 'kdcli[openvino]'", "onnx")
