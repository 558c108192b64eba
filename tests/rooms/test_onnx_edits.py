"""An exported ONNX file that somebody edited is still used, with notes; one whose numbers were changed is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from sample_policies import POLICIES, observations, plain

from kdcli.agents.in_batches import InBatches
from kdcli.agents.onnx import session as runtime
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read_any
from kdcli.errors import RefusedError
from kdcli.progress import Note

NAMES = ("discrete", "tanh_each", "sees_normalized", "gru_dict", "stack_image", "masked_discrete")
Edit = Callable[[onnx.ModelProto], object]


def _license(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="license", value="CC-BY-4.0")


def _described(model: onnx.ModelProto) -> None:
    model.doc_string, model.producer_name, model.graph.doc_string = "of the robot", "somebody", "walks"


def _fixed(size: int) -> Edit:
    def fix(model: onnx.ModelProto) -> None:
        for end in (*model.graph.input, *model.graph.output):
            end.type.tensor_type.shape.dim[0].dim_value = size

    return fix


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model)


def _renamed_nodes(model: onnx.ModelProto) -> None:
    for k, node in enumerate(model.graph.node):
        node.name = f"node_{k}"


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """By onnxruntime, which folds what is constant and joins operations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    path = Path(_FOLDER[0], "simplified.onnx")
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def _stored_otherwise(model: onnx.ModelProto) -> None:
    """Numbers as a list of floats rather than raw bytes, as some tools write them."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values)


_FOLDER = ["."]
EDITS: dict[str, Edit] = {
    "license": _license,
    "described": _described,
    "batch of 1": _fixed(1),
    "batch of 4": _fixed(4),
    "shapes inferred": _inferred,
    "nodes renamed": _renamed_nodes,
    "simplified": _simplified,
    "stored otherwise": _stored_otherwise,
}


def edited(data: bytes, edit: Edit) -> bytes:
    """The file after an edit."""
    model = onnx.load_model_from_string(data)
    found = edit(model)
    return (found if isinstance(found, onnx.ModelProto) else model).SerializeToString()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", NAMES)
def test_an_edited_file_is_used(name: str, edit: str, tmp_path: Path) -> None:
    """Law: what people do to files leaves an agent that acts as before, and is said."""
    _FOLDER[0] = str(tmp_path)
    made, obs = plain(name), observations(POLICIES[name](), 11)
    found = runtime.from_bytes(edited(made.data, EDITS[edit]), "policy.onnx")
    assert found.edits
    assert "acts as recorded" in " ".join(found.edits)
    state = np.random.default_rng(0).normal(size=(11, found.state_size)).astype(np.float32)
    for ours, theirs in zip(found.step(obs, state), made.agent.step(obs, state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert isinstance(found.session, InBatches) == edit.startswith("batch")
    assert ("at a time" in " ".join(found.edits)) == edit.startswith("batch")
    assert ("weights and operations are as recorded" in found.edits[0]) == (edit != "simplified")


def test_an_intact_file_has_nothing_to_say() -> None:
    """Law: notes are of edited files alone."""
    assert plain("discrete").agent.edits == ()


def test_the_reader_says_so(tmp_path: Path) -> None:
    """Law: whoever reads an edited file is told once, by name."""
    path, heard = tmp_path / "mine.onnx", []
    path.write_bytes(edited(plain("discrete").data, _license))
    read_any(path, LoadConfig(), heard.append)
    (note,) = heard
    assert isinstance(note, Note)
    assert "mine.onnx was edited since its export" in note.text


def _other_number(place: int) -> Edit:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[place]
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[-1] += 1
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return change


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_refused_as_such(name: str) -> None:
    """Law: one other number in any tensor is refused, and the tensor is named."""
    data = plain(name).data
    for place, tensor in enumerate(onnx.load_model_from_string(data).graph.initializer):
        with pytest.raises(RefusedError, match="does not have the weights it was exported with") as caught:
            runtime.from_bytes(edited(data, _other_number(place)), "policy.onnx")
        assert tensor.name in caught.value.why


def _attribute(model: onnx.ModelProto) -> None:
    (node,) = (node for node in model.graph.node if node.op_type == "ArgMax")
    helper.get_node_attr_value(node, "axis")
    node.attribute[1].i += 1


def _other_operation(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.op_type = {"Relu": "Sigmoid", "Tanh": "Sin"}.get(node.op_type, node.op_type)


def _other_record(model: onnx.ModelProto) -> None:
    (entry,) = (entry for entry in model.metadata_props if entry.key == runtime.KEY)
    entry.value = entry.value.replace('"squash":"clip"', '"squash":"tanh"')


def _record_without_parts(model: onnx.ModelProto) -> None:
    import json

    (entry,) = (entry for entry in model.metadata_props if entry.key == runtime.KEY)
    record = json.loads(entry.value)
    del record["parts"]
    entry.value = json.dumps(record)


@pytest.mark.parametrize("change", [_attribute, _other_operation, _other_record, _record_without_parts])
def test_other_numbers_and_records_are_refused(change: Edit) -> None:
    """Law: where settings, operations in place or the record are others, it is no edit but damage."""
    with pytest.raises(RefusedError):
        runtime.from_bytes(edited(plain("discrete").data, change), "policy.onnx")


def test_an_edit_that_acts_otherwise_is_said() -> None:
    """Law: with operations added, the file is another policy, which is used as what it is."""

    def doubled(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["before" if one == "action" else one for one in node.output]
        model.graph.initializer.append(numpy_helper.from_array(np.full(1, 0.5, np.float32), "joint_scale"))
        model.graph.node.append(helper.make_node("Mul", ["before", "joint_scale"], ["action"]))

    made = plain("tanh_each")
    found = runtime.from_bytes(edited(made.data, doubled), "policy.onnx")
    assert "acts otherwise than recorded" in found.edits[1]
    obs = observations(POLICIES["tanh_each"](), 5)
    np.testing.assert_allclose(found.act(obs), made.agent.act(obs) / 2, atol=1e-6)
