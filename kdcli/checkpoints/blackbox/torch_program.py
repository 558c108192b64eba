"""TorchScript and torch.export programs as black boxes: turned into ONNX once, and checked against themselves.

Loading such a file can run code in it, so it is done only where the user trusts the file.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.agents.onnx.session import OnnxAgent, start
from kdcli.checkpoints.blackbox import onnx_policy as foreign_onnx
from kdcli.checkpoints.blackbox.onnx_file import Opened, open_bytes
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.containers import read_bytes
from kdcli.checkpoints.safe.zips import open_zip
from kdcli.checkpoints.user_hints import Place, need_place
from kdcli.errors import KdcliError, RefusedError
from kdcli.progress import Listener
from kdcli.said import refuse_unallowed
from kdcli.spec import Box, Dict, EnvSpec, Part, parts, space_from_json

SCRIPT, EXPORTED = "torchscript", "torch_export"
OPSET, PROBES, TOLERANCE = 17, 16, 1e-4
_RECORD = "/extra/kdcli.json"
MAX_RECORD = 2**24
_ELSE = "export it to ONNX where it was trained"


def read(path: Path, config: LoadConfig, listen: Listener) -> OnnxAgent:
    """The policy in the program at `path`; one that kdcli exported knows its spaces, others need an env.

    Raises:
        UsageError: env, output or signal are not named where they cannot be told, or do not fit; or only a recipe or a
            study trusts it.
        RefusedError: it is not trusted, damaged, remembers between its calls, or cannot be turned into ONNX.
    """
    if not config.trust:
        why = "loading a program of torch can run code that is in the file"
        raise RefusedError(f"{path.name} is not read without being trusted", why, f"--trust if you made it, or {_ELSE}")
    refuse_unallowed(path)
    record = own_record(path)
    place = _own_place(record, config) or need_place(path, config, 0, listen)
    kind = program_kind(path)
    program = _loaded(path, kind)
    given = _own_inputs(record) if record else _inputs(place)
    names = [port["name"] for port in record["outputs"]] if record else []
    _refuse_memory(program, list(given.values()), path.name)
    opened = _as_onnx(program, given, names, path.name)
    _check(program, opened, list(given.values()), path.name)
    if record is not None and config.signal is None:
        config = config.model_copy(update={"signal": "action", "output_name": config.output_name or "action"})
    return foreign_onnx.agent(path, opened, place, config, listen, kind)


def program_kind(path: Path) -> str:
    """Which of the two it is: TorchScript keeps code in its zip.

    Raises:
        RefusedError: it is not a zip.
    """
    with open_zip(path) as members:
        return SCRIPT if any("/code/" in name for name in members.names) else EXPORTED


def own_record(path: Path) -> dict[str, Any] | None:
    """What kdcli wrote into a program that it exported."""
    with open_zip(path) as members:
        name = next((name for name in members.names if name.endswith(_RECORD)), None)
        if name is None:
            return None
        try:
            found = json.loads(members.read(name, MAX_RECORD))
            _ = found["observation"], found["action"], found["outputs"], _own_inputs(found)
        except (KeyError, TypeError, ValueError, RecursionError):
            return None
        return found


def _own_place(record: dict[str, Any] | None, config: LoadConfig) -> Place | None:
    if record is None:
        return None
    told = record.get("env")
    env = config.named_env() or (EnvSpec.from_json(told) if told else None)
    action = space_from_json(record["action"])
    return None if isinstance(action, Dict) else Place(env, space_from_json(record["observation"]), action)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch warns of the age of TorchScript, and of what it notices while tracing."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _loaded(path: Path, kind: str) -> nn.Module:
    """The program as a module on the CPU."""
    data = io.BytesIO(read_bytes(path))
    try:
        with _quiet():
            if kind == SCRIPT:
                return torch.jit.load(data, map_location="cpu").eval()
            return torch.export.load(data).module()
    except Exception as error:  # whatever the code in the file raises
        raise RefusedError(f"{path.name} cannot be loaded", _first_line(error), "save it again") from None


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[0][:200]


def _inputs(place: Place) -> dict[str, np.ndarray]:
    """Some observations of each part (N, *shape), as float32 where they are real."""
    return {name: _rows(part.shape, _dtype(part)) for name, part in parts(place.observation).items()}


def _dtype(part: Part) -> str:
    return "float32" if isinstance(part, Box) and np.dtype(part.dtype).kind == "f" else part.dtype


def _own_inputs(record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Some rows for each input of a program that kdcli exported, its state among them."""
    return {port["name"]: _rows(port["shape"][1:], port["dtype"]) for port in record["inputs"]}


def _rows(shape: Sequence[int], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal((PROBES, *shape)).astype(dtype)
    return rng.integers(0, 2, (PROBES, *shape)).astype(dtype)


def _refuse_memory(program: nn.Module, rows: Sequence[np.ndarray], name: str) -> None:
    """Raise RefusedError for a program that answers differently when asked again, or not at all."""
    one = [torch.from_numpy(array[:1]) for array in rows]
    first, second = (_ask(program, one, name) for _ in range(2))
    if any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        why = "asked the same twice, it answers differently: a memory inside, or chance"
        raise RefusedError(f"{name} cannot be used as a policy", why, f"{_ELSE}, with its state as input and output")


def _ask(program: Callable[..., Any], inputs: Sequence[Tensor], name: str) -> list[Tensor]:
    """Every tensor the program puts out."""
    try:
        with _quiet():
            found = program(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise RefusedError(f"{name} does not take observations of {shapes}", _first_line(error), "see --env") from None
    flat = (
        list(found.values()) if isinstance(found, dict) else list(found) if isinstance(found, tuple | list) else [found]
    )
    if not flat or not all(isinstance(tensor, Tensor) for tensor in flat):
        raise RefusedError(f"{name} puts out other things than tensors", f"{type(found).__name__}", _ELSE)
    return [tensor.clone() for tensor in flat]


def _as_onnx(program: nn.Module, given: Mapping[str, np.ndarray], outputs: list[str], name: str) -> Opened:
    """The program as ONNX: for any batch where it allows that, else for one row."""
    rows = list(given.values())
    found = _ask(program, [torch.from_numpy(array[:1]) for array in rows], name)
    outputs = outputs or (["output"] if len(found) == 1 else [f"output_{i}" for i in range(len(found))])
    last: Exception | None = None
    for batch in (2, 1):
        tensors = tuple(torch.from_numpy(array[:batch]) for array in rows)
        try:
            return open_bytes(_written(program, tensors, list(given), outputs, batch > 1), name)
        except KdcliError:
            raise
        except Exception as error:  # torch's own kinds have no common base but this
            last = error
    assert last is not None
    raise RefusedError(f"{name} cannot be turned into ONNX", _first_line(last), _ELSE)


def _written(
    program: nn.Module, given: tuple[Tensor, ...], inputs: list[str], outputs: list[str], open_batch: bool
) -> bytes:
    """The program as the bytes of an ONNX file."""
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if open_batch else {}
    buffer = io.BytesIO()
    with _quiet():
        scripted = isinstance(program, torch.jit.ScriptModule)
        traced = program if scripted else torch.jit.trace(program, given, check_trace=False)
        torch.onnx.export(
            traced,
            given,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def _check(program: nn.Module, opened: Opened, rows: Sequence[np.ndarray], name: str) -> None:
    """Raise RefusedError unless the ONNX program gives what the program gives."""
    session = start(opened.model.SerializeToString(), name)
    for at in range(PROBES):
        given = [array[at : at + 1] for array in rows]
        theirs = _ask(program, [torch.from_numpy(array) for array in given], name)
        ours = session.run(None, dict(zip((end.name for end in opened.inputs), given, strict=True)))
        for a, b in zip(ours, theirs, strict=True):
            if not np.allclose(a, b.numpy(), atol=TOLERANCE, rtol=TOLERANCE):
                raise RefusedError(f"{name} acts otherwise as ONNX", "torch could not translate all of it", _ELSE)
