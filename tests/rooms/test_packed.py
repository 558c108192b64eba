"""Weights on few levels: their codes take the bytes they should, and come back as they were or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, observations

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.folding import can_fold, deployed
from kdcli.agents.packed_weights import held
from kdcli.errors import RefusedError
from kdcli.graph.trace import trace
from kdcli.networks.packed_weights import Packed, pack_bits, packed_size, unpack_bits

ONE = np.float32(0.5)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("n", [1, 7, 8, 64, 1001])
def test_codes_take_the_bytes_they_should(bits: int, n: int) -> None:
    """Law: n codes of b bits are exactly ceil(n b / 8) bytes, and come back as they were."""
    codes = np.random.default_rng(bits).integers(0, 1 << bits, n)
    data = pack_bits(codes, bits)
    assert data.dtype == np.uint8
    assert len(data) == packed_size(n, bits) == -(-n * bits // 8)
    assert np.array_equal(unpack_bits(data, n, bits), codes)


FORMS: dict[str, dict[str, Any]] = {
    "linear": {"bits": 8, "scale": np.array(ONE)},
    "rows": {"bits": 3, "scale": np.array([0.5, 2.0, 1.0], np.float32), "zero": np.array([1, -2, 0], np.int32)},
    "table": {"bits": 4, "levels": np.linspace(-1, 1, 11).astype(np.float32)},
    "float16": {"bits": 16, "half": "float16"},
    "bfloat16": {"bits": 16, "half": "bfloat16"},
}


def made(form: str, shape: tuple[int, ...] = (3, 5)) -> Packed:
    """Codes drawn from all there are; finite halves."""
    options = FORMS[form]
    low, high = (0, 10) if form == "table" else (0, 1 << 14) if form.endswith("16") else (-4, 3)
    return Packed(np.random.default_rng(0).integers(low, high + 1, shape), **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 2, 3)])
def test_every_form_comes_back(form: str, shape: tuple[int, ...]) -> None:
    """Law: what a file is told of packed weights is enough to decode the very same numbers."""
    packed = made(form, shape)
    again = Packed.from_arrays(packed.describe(), packed.arrays())
    assert np.array_equal(again.decoded(), packed.decoded())
    assert again.decoded().dtype == np.float32
    assert packed.n_bytes == sum(array.nbytes for array in packed.arrays().values())


def test_what_codes_stand_for() -> None:
    """Law: (code - zero) * scale by rows, levels[code], or the bits of a half float."""
    linear = Packed(
        np.array([[1, 2], [3, -4]]), 3, scale=np.array([0.5, 2.0], np.float32), zero=np.array([1, -4], "i4")
    )
    assert linear.decoded().tolist() == [[0.0, 0.5], [14.0, 0.0]]
    table = Packed(np.array([2, 0]), 2, levels=np.array([-1, 0, 7], np.float32))
    assert table.decoded().tolist() == [7.0, -1.0]
    weights = np.array([[1.5, -0.75, 3e-3]], np.float32)
    half = Packed(weights.astype(np.float16).view(np.uint16), 16, half="float16")
    assert half.decoded().tolist() == weights.astype(np.float16).astype(np.float32).tolist()
    brain = Packed((weights.view(np.uint32) >> 16).astype(np.uint16), 16, half="bfloat16")
    assert brain.decoded()[0, 0] == 1.5
    assert np.allclose(brain.decoded(), weights, rtol=1e-2)


BAD: dict[str, dict[str, Any]] = {
    "a code beyond its bits": {"codes": np.array([[4]]), "bits": 3, "scale": np.array(ONE)},
    "a code beyond the levels": {"codes": np.array([[3]]), "bits": 4, "levels": np.zeros(3, np.float32)},
    "no form": {"codes": np.array([[1]]), "bits": 4},
    "two forms": {"codes": np.array([[1]]), "bits": 4, "scale": np.array(ONE), "levels": np.zeros(9, np.float32)},
    "no bits": {"codes": np.array([[0]]), "bits": 0, "scale": np.array(ONE)},
    "more levels than bits": {"codes": np.array([[0]]), "bits": 1, "levels": np.zeros(3, np.float32)},
    "a level that is no number": {"codes": np.array([[0]]), "bits": 1, "levels": np.array([np.nan], np.float32)},
    "a scale of 0": {"codes": np.array([[0]]), "bits": 8, "scale": np.array(0, np.float32)},
    "a scale of another shape": {"codes": np.array([[0]]), "bits": 8, "scale": np.ones(2, np.float32)},
    "a scale in float64": {"codes": np.array([[0]]), "bits": 8, "scale": np.array(0.5)},
    "a zero alone": {"codes": np.array([[0]]), "bits": 8, "levels": np.ones(1, np.float32), "zero": np.array(0, "i4")},
    "a zero that is no code": {"codes": np.array([[0]]), "bits": 4, "scale": np.array(ONE), "zero": np.array(9, "i4")},
    "a half of 8 bits": {"codes": np.array([[0]]), "bits": 8, "half": "float16"},
    "an unknown half": {"codes": np.array([[0]]), "bits": 16, "half": "float8"},
    "real codes": {"codes": np.array([[0.5]]), "bits": 8, "scale": np.array(ONE)},
}


@pytest.mark.parametrize("what", BAD)
def test_nonsense_is_refused(what: str) -> None:
    """Law: packed weights that make no sense do not exist."""
    with pytest.raises(ValueError, match=r"."):
        Packed(**BAD[what])


@pytest.mark.parametrize(
    "told",
    [
        {"shape": [1 << 40, 1 << 40]},
        {"shape": [1 << 27, 2]},
        {"shape": [-3, -5]},
        {"shape": []},
        {"shape": [3, 6]},
        {"bits": 64},
        {"bits": 0},
        {"bits": 7},
    ],
)
def test_claims_are_looked_at_first(told: dict[str, Any]) -> None:
    """Law: a file that claims other sizes than it has is refused before anything of that size is made."""
    packed = made("table")
    with pytest.raises(ValueError, match=r"."):
        Packed.from_arrays({**packed.describe(), **told}, packed.arrays())


def test_nothing_after_the_last_code() -> None:
    """Law: equal codes are equal bytes: what fills up the last byte is zeros."""
    data = pack_bits(np.array([1, 2, 3]), 3)
    data[-1] |= 0x80
    with pytest.raises(ValueError, match="after the last"):
        unpack_bits(data, 3, 3)


PACKED = ("quantized", "quantized_image")


@pytest.mark.parametrize("name", PACKED)
def test_an_agent_file_holds_the_codes(name: str, tmp_path: Path) -> None:
    """Law: on disk there are codes instead of floats; what is read acts the same and is packed the same."""
    agent = POLICIES[name]()
    path = store.save(tmp_path / "a.safetensors", agent, {})
    again, (record, tensors) = store.load(path), artifact.read_tensors(path)
    obs = observations(agent, 64)
    assert np.array_equal(agent.act(obs), again.act(obs))
    assert record["schema"] == 3
    assert held(again.policy).keys() == held(agent.policy).keys() != set()
    assert not {f"policy.{key}" for key in held(agent.policy)} & tensors.keys()
    assert store.save(tmp_path / "b.safetensors", again, {}).read_bytes() == path.read_bytes()


def test_weights_that_changed_are_floats_again(tmp_path: Path) -> None:
    """Law: a packing is believed only of weights that are what it says: nothing trained on is lost."""
    agent = POLICIES["quantized"]()
    with torch.no_grad():
        agent.policy.network.head.weight[0, 0] += 0.001
    assert "network.head.weight" not in held(agent.policy)
    again = store.load(store.save(tmp_path / "a.safetensors", agent, {}))
    assert np.array_equal(again.act(observations(agent, 64)), agent.act(observations(agent, 64)))
    assert "weight" not in trace(agent).ops[-2].packed


@pytest.mark.parametrize("name", PACKED)
def test_a_graph_says_what_weights_lie_on(name: str) -> None:
    """Law: an operation's packed weights decode to its weights; every packed parameter is in the graph."""
    agent = POLICIES[name]()
    found = [(packed, op.weights[key]) for op in trace(agent).ops for key, packed in op.packed.items()]
    assert len(found) == len(held(agent.policy))
    assert all(np.array_equal(packed.decoded(), weight) for packed, weight in found)


def test_no_normalizer_is_folded_into_packed_weights() -> None:
    """Law: a normalizer stays apart from weights that lie on few levels: divided by it, they would leave them."""
    agent = POLICIES["sees_unclipped"]()
    assert can_fold(agent)
    weight = agent.policy.network.linears()[0].weight.numpy(force=True)  # type: ignore[union-attr]
    codes = np.clip(np.round(weight / ONE), -8, 7).astype(np.int8)
    packed = agent.packed({"network.trunk.0.weight": Packed(codes, 4, scale=np.array(ONE))})
    assert not can_fold(packed)
    assert deployed(packed) is packed
    assert not np.array_equal(packed.act(observations(agent, 64)), agent.act(observations(agent, 64)) + 1)


@pytest.mark.parametrize("key", ["codes", "levels", "scale"])
def test_a_damaged_packing_is_refused(key: str, tmp_path: Path) -> None:
    """Law: an agent file whose packed weights do not belong together ends in a refusal."""
    path = store.save(tmp_path / "a.safetensors", POLICIES["quantized"](), {})
    record, tensors = artifact.read_tensors(path)
    name = next(name for name in tensors if name.endswith(f".{key}") and name.startswith("packed."))
    for broken in ({n: a for n, a in tensors.items() if n != name}, {**tensors, name: np.zeros(3, np.float64)}):
        artifact.write_tensors(path, record, broken, force=True)
        with pytest.raises(RefusedError):
            store.load(path)


def test_only_parameters_are_packed() -> None:
    """Law: a name that is no parameter, or another shape, is a mistake."""
    agent, packed = POLICIES["tanh"](), made("table")
    for name in ("network.nothing.weight", "network.trunk.0", "network.trunk.0.weight", "atoms"):
        with pytest.raises(ValueError, match="packed weights"):
            agent.packed({name: packed})
    assert replace(agent).policy.packing == {}
