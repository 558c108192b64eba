"""What a file exported by kdcli still is after somebody edited it.

People add a license, fix the batch, or simplify the graph. Such a file acts as it did, and is used; what no longer
matches its record is said. One whose numbers are others than those it was exported with is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.errors import RefusedError

if TYPE_CHECKING:
    import onnx

    Node = onnx.NodeProto
    Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

PARTS = "parts"
_NUMBERS = 256  # of what a policy does in the probes, so that a file of some weights stays small
_SIZES = (1, 1, 10, 1000)  # of the numbers in one probe after the other
_TOLERANCE = 1e-2  # of an action, beside its size: tools may fold weights, or store them as halves


def with_parts(record: Mapping[str, Any], model: onnx.ModelProto, run: Run) -> dict[str, Any]:
    """The record of a model, with what its parts are known by and what it does for some observations."""
    nodes = list(model.graph.node)
    parts = {
        "tensors": {tensor.name: _digest_of(tensor) for tensor in model.graph.initializer},
        "nodes": _digest(_shapes_of(model, nodes)),
        "attributes": _digest(_attributes(nodes)),
        "n_nodes": len(nodes),
        "actions": _rounded(run(probes(record))["action"]),
    }
    content = {**record, PARTS: parts}
    return {**record, PARTS: {**parts, "record": _digest([_text(content)])}}


def check_parts(model: onnx.ModelProto, record: Mapping[str, Any], source: str) -> str:
    """What is to be said of a model that is not, byte for byte, what its record was written for.

    Raises:
        RefusedError: the record does not know its parts or was changed, or numbers of the policy were.
    """
    try:
        parts = dict(record[PARTS])
        told = parts.pop("record")
        content = {key: value for key, value in record.items() if key not in ("digest", "kind", "schema")}
        is_whole = _digest([_text({**content, PARTS: parts})]) == told
        tensors, nodes, attributes = parts["tensors"], parts["nodes"], parts["attributes"]
    except (AttributeError, KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise RefusedError(f"{source} was changed or damaged", "its bytes do not match its digest", "export it again")
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    same = [name for name in tensors if name in found]
    for name in same:
        if _same_kind(tensors[name], _digest_of(found[name])) and tensors[name] != _digest_of(found[name]):
            what = f"{source} does not have the weights it was exported with"
            raise RefusedError(what, f"{name[:80]} holds other numbers than its record says", "export it again")
    own = list(model.graph.node)
    if _digest(_shapes_of(model, own)) != nodes:
        return f"its operations are not those of its record ({len(own)} for {parts['n_nodes']})"
    if _digest(_attributes(own)) != attributes or len(same) != len(tensors):
        what = f"{source} does not have the numbers it was exported with"
        raise RefusedError(what, "the settings of its operations are others than its record says", "export it again")
    return "its weights and operations are as recorded, what else is in it (metadata, names, batch) is not"


def check_actions(model: onnx.ModelProto, record: Mapping[str, Any], run: Run, source: str) -> str:
    """How an edited model acts beside what its record says, where its operations are others; as words.

    Raises:
        RefusedError: it has as many operations, and acts otherwise: it was not edited but damaged.
    """
    wanted = np.asarray(record[PARTS]["actions"])
    found = np.asarray(_finite(run(probes(record))["action"]), np.float64).reshape(wanted.shape)
    far = np.abs(found - wanted) > _TOLERANCE * np.maximum(1.0, np.abs(wanted))
    n_other = int(far.reshape(len(far), -1).any(1).sum())
    if not n_other:
        return f"it acts as recorded in {len(far)} states"
    if len(model.graph.node) == record[PARTS]["n_nodes"]:
        why = f"it acts otherwise in {n_other} of {len(far)} states, by as many operations"
        raise RefusedError(f"{source} was changed or damaged", why, "export it again")
    return f"it acts otherwise than recorded in {n_other} of {len(far)} states, so nothing measured before is its own"


def probes(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Some inputs by name, (B, *shape), always the same ones for one record.

    Real numbers are of several sizes, so that what clips the large ones is seen to be there.
    """
    size = int(np.prod([*next(port["shape"][1:] for port in record["outputs"] if port["name"] == "action"), 1]))
    n, rng = min(max(_NUMBERS // size, 4), 32), np.random.default_rng(0)
    return {port["name"]: _drawn(rng, (n, *port["shape"][1:]), port["dtype"]) for port in record["inputs"]}


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        sizes = np.resize(_SIZES, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        return (rng.standard_normal(shape) * sizes).astype(dtype)
    return rng.integers(0, 256 if dtype == "uint8" else 2, shape).astype(dtype)


def _rounded(array: np.ndarray) -> list[Any]:
    """The array as lists of JSON, real numbers to six digits."""
    if array.dtype.kind != "f":
        return array.astype(int).tolist()
    return np.vectorize(lambda x: float(f"{x:.6g}"), otypes=[float])(_finite(array)).tolist()


def _finite(array: np.ndarray) -> np.ndarray:
    """The numbers as JSON has them: enormous weights make infinities of the largest probes."""
    return np.nan_to_num(array, nan=0.0, posinf=1e38, neginf=-1e38) if array.dtype.kind == "f" else array


def _digest_of(tensor: onnx.TensorProto) -> str:
    """A tensor's type, shape and content, however it is stored."""
    from onnx import numpy_helper

    array = np.ascontiguousarray(numpy_helper.to_array(tensor))
    kind = f"{tensor.data_type}:{'x'.join(map(str, tensor.dims))}"
    return f"{kind}:{hashlib.sha256(array.tobytes()).hexdigest()[:8]}"


def _same_kind(a: str, b: str) -> bool:
    """Whether two digests are of tensors of one type and shape: one that a tool made anew may have taken a name."""
    return a.rpartition(":")[0] == b.rpartition(":")[0]


def _shapes_of(model: onnx.ModelProto, nodes: list[Node]) -> Iterator[str]:
    """What is done to what, and by whose rules."""
    yield from (f"{entry.domain}:{entry.version}" for entry in model.opset_import)
    yield from (f"{node.domain}:{node.op_type}:{list(node.input)}:{list(node.output)}" for node in nodes)


def _attributes(nodes: list[Node]) -> Iterator[str]:
    """The settings of the operations, one after the other."""
    for node in nodes:
        kept = sorted(node.attribute, key=lambda attribute: attribute.name)
        yield "".join(attribute.SerializeToString(deterministic=True).hex() for attribute in kept)


def _digest(texts: Any) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
