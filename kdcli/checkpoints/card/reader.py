"""Tensors with a card beside them, which `cards` describes, as an Agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from kdcli import artifact
from kdcli.agents.action import ActionRule, Squash
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, is_image
from kdcli.agents.policy import Policy, Signal
from kdcli.checkpoints import assembly
from kdcli.checkpoints import user_hints as asked
from kdcli.checkpoints.build_agent import finish
from kdcli.checkpoints.card.schema import SIGNALS, Card, read_card
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.containers import as_saved, is_state, read_bytes, unwrapped
from kdcli.checkpoints.safe.weights import Weights
from kdcli.checkpoints.user_hints import Place, channels_come_last, preprocess, statistics
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.layers import LAYERS, Shape
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.progress import Listener
from kdcli.spec import Box, Dict, EnvSpec, Space, handed, space_from_json

_CELLS = {"gru_cell": ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
_CELLS["lstm_cell"] = _CELLS["gru_cell"]
MAX_DEPTH = 8


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the tensors at `path`, as the card beside them describes it.

    Raises:
        UsageError: the card names no spaces and nothing names an env.
        RefusedError: file and card do not fit, or are damaged.
    """
    card = read_card(path)
    if card.sha256 is not None and card.sha256 != artifact.sha256(path):
        raise RefusedError(
            f"{path.name} is not the file its card describes", "its digest is another", "copy both again"
        )
    weights = Weights(_tensors(path, card), path.name)
    observation, action, env = _spaces(path, card, config, weights, listen)
    trunk = _trunk(card, weights, _groups(card, weights, read_bytes(path)[:2] == b"PK"))
    last = bool(trunk) and trunk[0].kind == "conv2d" and channels_come_last(observation, trunk[0].inputs, config)
    shape = assembly.image_shape(observation.shape, last)
    signal_head = card.head(*SIGNALS)
    assert signal_head is not None
    parts = [*trunk, assembly.linear(weights.linear(signal_head))]
    network = _network(shape, parts, path.name, env if card.observation is None else None)
    signal: Signal = card.heads[signal_head]  # type: ignore[assignment]
    policy = Policy(network, _rule(card, action, signal, path.name), signal, value=_value(card, weights))
    weights.refuse_leftovers(card.unused)
    known = statistics(config)
    own = _normalizer(card, observation.shape, path.name)
    normalizer = own if config.obs_stats is None else known.normalizer
    sees = preprocess(observation, normalizer, path.name, card.divided and _is_bytes(observation), last)
    facts = {
        "format": "card",
        "algorithm": None,
        "what": card.what[:200],
        "total_params": weights.count(),
        "critic_params": sum(weights.count(f"{name}.") for name, kind in card.heads.items() if kind == "value"),
        "obs_stats": known.sha256,
        "card": artifact.sha256(path.with_suffix(".json")),
    }
    return finish(path, sees, policy, env, facts)


def _network(shape: Shape, parts: Sequence[assembly.Part], what: str, env: EnvSpec | None) -> MLP | Stack:
    """The network; where it does not fit what an env gives, its wrappers may be missing."""
    try:
        return assembly.network(shape, parts, what)
    except RefusedError as error:
        if env is None:
            raise
        seen = " -> ".join([env.id, *env.wrappers])
        why = f"observations of {seen} are {shape}: {error.what.removeprefix(f'{what}: ')}, {error.why}"
        raise RefusedError(f"{what} does not fit its env", why, "give --wrapper, those it was trained in") from None


def _is_bytes(space: Space) -> bool:
    """Whether observations are bytes of an image, not yet divided."""
    return is_image(space) or (isinstance(space, Box) and space.dtype == "uint8")


def _tensors(path: Path, card: Card) -> Mapping[str, Tensor]:
    """Tensors by name, from either kind of file; what lies in dictionaries by the path to it, `model.actor.0.weight`.

    Of several state dicts only those are read that the card's heads are in. Names that a wrapper lengthened
    (`_orig_mod`, `module`) may be told with it or without.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = read_bytes(path)
    if content[:2] == b"PK" or content[:1] == b"\x80":
        saved = as_saved(path)
        return _meant(saved, card) if isinstance(saved, dict) else _refuse_stateless(path)
    artifact.read_header(path)
    try:
        state = {name: torch.from_numpy(array) for name, array in load(content).items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"{path.name} cannot be read", str(error)[:200], "copy it again") from None
    return state if is_state(state) else _refuse_stateless(path)


def _refuse_stateless(path: Path) -> NoReturn:
    raise RefusedError(
        f"{path.name} is not a state dict",
        "its card describes tensors by name",
        "torch.save(module.state_dict(), path), and give that",
    )


def _meant(saved: Mapping[Any, Any], card: Card) -> dict[str, Tensor]:
    """The tensors of the state dicts that the card's heads are in, by their paths."""
    found = dict(_states(saved, ""))
    for bare in (dict, unwrapped):
        states = [{f"{at}{name}": tensor for name, tensor in bare(state).items()} for at, state in found.items()]
        named = [state for state in states if any(f"{head}.weight" in state for head in card.heads)]
        if named:
            return {name: tensor for state in named for name, tensor in state.items()}
    return {name: tensor for at, state in found.items() for name, tensor in ((f"{at}{k}", v) for k, v in state.items())}


def _states(value: Any, at: str, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary with tensors by name, with the path to it; other things beside them are left out."""
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        return
    tensors = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}
    if tensors:
        yield at, tensors
    for name, item in value.items():
        yield from _states(item, f"{at}{name}.", depth + 1)


def _spaces(
    path: Path, card: Card, config: LoadConfig, weights: Weights, listen: Listener
) -> tuple[Space, Any, EnvSpec | None]:
    """The card's own spaces, or those of the env that the user, the card or the files beside it name."""
    named = config.named_env() or _env(card)
    if card.observation is not None and card.action is not None:
        action = space_from_json(card.action)
        if isinstance(action, Dict):
            raise RefusedError(f"{path.name}: its card tells actions of a Dict", "kdcli knows single actions")
        return space_from_json(card.observation), handed(action), named
    found = _place(path, config, named, listen)
    return found.observation, found.action, found.env


def _place(path: Path, config: LoadConfig, named: EnvSpec | None, listen: Listener) -> Place:
    """The env that was named, with its spaces."""
    if config.env is None and named is not None:
        kwargs = {**named.kwargs, **config.kwargs()}
        env = replace(named, kwargs=kwargs, wrappers=config.wrappers(named.wrappers))
        return asked.place(env.said(config.texts()))
    return asked.need_place(path, config, 0, listen)


def _env(card: Card) -> EnvSpec | None:
    """The env the card names."""
    return None if card.env is None else EnvSpec.from_json(card.env.model_dump())


def _trunk(card: Card, weights: Weights, names: Sequence[str]) -> list[assembly.Part]:
    """The layers with their tensors; `names` of those that have some, in order."""
    groups = iter(names)
    parts: list[assembly.Part] = []
    for name, options in card.trunk:
        if name not in LAYERS and name not in ACTIVATIONS:
            known = ", ".join([*LAYERS, *ACTIVATIONS])
            raise RefusedError(f"{weights.what}: its card names the layer {name[:40]!r}", f"known: {known}", "")
        wanted = _wanted(name, options)
        group = next(groups, None) if wanted else None
        if wanted and group is None:
            raise RefusedError(f"{weights.what} has fewer layers than its card", f"none is left for {name}", "")
        tensors = {key: weights.take(f"{group}.{key}") for key in wanted}
        parts.append(assembly.Part(name, {"bias": True, **options} if name == "linear" else options, tensors))
    return parts


def _wanted(name: str, options: Mapping[str, Any]) -> Sequence[str]:
    """The tensors of a layer, under torch's names."""
    if name in _CELLS:
        return _CELLS[name][: 4 if options.get("bias", True) else 2]
    if name in ("linear", "conv2d"):
        return ("weight", "bias") if options.get("bias", True) else ("weight",)
    return ("weight", "bias") if name == "layer_norm" else ()


def _groups(card: Card, weights: Weights, ordered: bool) -> list[str]:
    """Names of the layers that have tensors, in the order they are used, without the heads."""
    listed = [name for name in card.tensors or weights.state if not name.startswith(card.unused)]
    groups = list(dict.fromkeys(name.rpartition(".")[0] for name in listed))
    inside = [group for group in groups if group not in card.heads]
    if not card.tensors and not ordered and len(inside) > 1:
        raise UsageError(
            f"{weights.what} does not keep the order of its layers",
            f"it holds {', '.join(inside[:6])}",
            'list them in the card, in order: "tensors": {"fc1.weight": [64, 4], ...}',
        )
    return inside


def _rule(card: Card, action: Any, signal: str, what: str) -> ActionRule:
    if isinstance(action, Box) != (signal == "mean"):
        raise UsageError(f"{what} gives {signal}", f"the action space is {action}", "see heads in the card, and --env")
    squash: Squash = card.squash or "clip"
    if signal == "mean" and card.squash is None:
        raise UsageError(
            f"the card of {what} does not say how a mean becomes an action", "", '"squash": "clip" or "tanh"'
        )
    return ActionRule(action, squash)


def _value(card: Card, weights: Weights) -> nn.Linear | None:
    """The critic, where it is one layer on the trunk."""
    name = card.head("value")
    if name is None:
        return None
    layer = weights.linear(name)
    made = nn.Linear(layer.weight.shape[1], len(layer.weight), layer.bias is not None, device="meta")
    made.weight = nn.Parameter(layer.weight)
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias)  # type: ignore[assignment]
    return made


def _normalizer(card: Card, shape: tuple[int, ...], what: str) -> Normalizer | None:
    try:
        return None if card.normalizer is None else card.normalizer.normalizer(shape)
    except ValueError as error:
        raise RefusedError(f"the card of {what} cannot be used", str(error), "") from None
