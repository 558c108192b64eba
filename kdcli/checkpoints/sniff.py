"""What kind of file it is, told by its content and never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.checkpoints import FORMATS
from kdcli.checkpoints.safe.containers import container, read_bytes
from kdcli.checkpoints.safe.zips import open_zip
from kdcli.errors import RefusedError
from kdcli.files import open_file

_ONNX, _PICKLE, _ZIP = b"\x08", b"\x80", b"PK"
_SHAPE = '{"trunk": [...], "heads": {...}}'
_CARD = f"describe it in a card beside it, of the same name and .json: {_SHAPE}"
_EXPORT = "export the policy to ONNX where it was trained"


def sniff(path: Path) -> str:
    """The name of the file's format, one of `FORMATS`.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: none kdcli reads.
    """
    with open_file(path, None) as handle:
        head = handle.read(16)
    if head[:2] == _ZIP:
        return _sniff_zip(path)
    if artifact.is_ours(path):
        return "native"
    if _is_safetensors(path):  # before ONNX: the length of its header may begin with any byte
        return _with_card(path)
    if head[:1] == _ONNX:  # such a file begins with its version
        return _sniff_onnx(path)
    if head[:1] == _PICKLE:
        return _sniff_pickle(path)
    raise _refusal(path, head)


def _sniff_zip(path: Path) -> str:
    with open_zip(path) as members:
        names = {name.partition("/")[2] for name in members.names} | set(members.names)
    if "data" in names:
        return "sb3"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "torch_export"
    if "data.pkl" in names:
        return _sniff_container(path)
    raise RefusedError(f"{path.name} is a zip without Stable-Baselines3's members", _known(), "give the saved model")


def _sniff_container(path: Path) -> str:
    """Which library's containers it is; the card of a file that has one comes first."""
    from kdcli.checkpoints import cleanrl, rsl_rl, skrl
    from kdcli.checkpoints.card import schema as cards
    from kdcli.checkpoints.sb3 import archive as sb3

    if cards.beside(path):
        return "card"
    if sb3.is_policy(path):
        return "sb3_policy"
    saved = container(path)
    kinds = {"rsl_rl": rsl_rl.is_rsl_rl, "skrl": skrl.is_skrl, "cleanrl": cleanrl.is_cleanrl}
    found = next((name for name, matches in kinds.items() if matches(saved)), None)
    if found is None:
        raise RefusedError(
            f"{path.name} is a PyTorch file of a layout kdcli does not know", _shown(saved), _way_in(saved, path)
        )
    return found


def _way_in(saved: Any, path: Path) -> str:
    """What makes a file of it that can be described: a card tells about one state dict."""
    from kdcli.checkpoints.safe.containers import is_state

    if is_state(saved):
        return _CARD
    inside = [key for key, part in saved.items() if is_state(part)] if isinstance(saved, dict) else []
    if not inside:
        return _EXPORT
    cut = f"torch.save(torch.load({path.name!r})[{inside[0]!r}], 'policy.pt')"
    return f"{cut}, and describe that in policy.json beside it: {_SHAPE}"


def _shown(saved: Any) -> str:
    inside = [str(name)[:40] for name in saved] if isinstance(saved, dict) else []
    return f"it holds {', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''}" if inside else _known()


def _sniff_pickle(path: Path) -> str:
    """A d3rlpy file is one dictionary; an old torch file is several pickles; anything else is no checkpoint."""
    from kdcli.checkpoints.d3rlpy import reader as d3rlpy

    content = read_bytes(path)
    if d3rlpy.is_d3rlpy(content, path.name):
        return "d3rlpy"
    if b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in content[:32]:  # torch's magic number
        return _sniff_container(path)
    fix = "give the zip, and this file with --vecnormalize"
    raise RefusedError(f"{path.name} is a bare pickle", "statistics alone are not an agent", fix)


def _sniff_onnx(path: Path) -> str:
    """Whether it was exported by kdcli, whose name such a file carries."""
    from kdcli.agents.onnx.session import KEY

    return "onnx" if KEY.encode() in read_bytes(path) else "onnx_policy"


def _is_safetensors(path: Path) -> bool:
    try:
        header = artifact.read_header(path)
    except RefusedError:
        return False
    return isinstance(header, dict) and any(isinstance(v, dict) and "data_offsets" in v for v in header.values())


def _with_card(path: Path) -> str:
    from kdcli.checkpoints.card import schema as cards

    if not cards.beside(path):
        raise RefusedError(f"{path.name} holds tensors alone", "it does not say what its weights mean", _CARD)
    return "card"


def _refusal(path: Path, head: bytes) -> RefusedError:
    if not head:
        return RefusedError(f"{path.name} is empty", "", "copy it again")
    return RefusedError(f"{path.name} is of no kind kdcli reads", _known(), _EXPORT)


def _known() -> str:
    return f"known: {', '.join(FORMATS.names())}"
