"""Stable-Baselines3's own `predict`, on a policy built from what is in the zip: nothing in the file is run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdcli.benchmarks.program import Program
from kdcli.checkpoints.safe.pickles import Global, Record
from kdcli.checkpoints.safe.records import spelled
from kdcli.checkpoints.sb3.archive import Saved, read_saved
from kdcli.checkpoints.sb3.reader import POLICIES
from kdcli.checkpoints.sniff import sniff
from kdcli.envs.spaces import to_gymnasium
from kdcli.errors import RefusedError, UsageError
from kdcli.guard import within_memory
from kdcli.registry import load_target
from kdcli.runtimes.runtime import Runtime, RuntimeEntry
from kdcli.spec import MASK, OBS, Box, split_rows

_STATES = 64
_ALIKE = 0.95  # of the actions: another order of additions breaks a tie otherwise
_NEAR = 1e-3
_HEADROOM = 2**29  # bytes for building a policy, beside several copies of its weights
_CLASSES = ("torch.nn.modules.activation", "torch.nn.modules.linear", "stable_baselines3.common.torch_layers")
_TRAINING = ("optimizer_class", "optimizer_kwargs", "sde_net_arch")
Given = tuple[Any, Mapping[str, Any]]


def _program(entrant: RuntimeEntry) -> Program:
    path = entrant.entry.path
    if path is None or sniff(path) != "sb3":
        why = "only its own checkpoints can be asked as it asks them"
        raise UsageError(f"{entrant.entry.name} is not of Stable-Baselines3", why, "leave sb3 out for it")
    policy, given = _policy(read_saved(path, POLICIES)), _given(entrant)
    predict, empty, normalized = policy.predict, _empty(policy).predict, _normalized(entrant)

    def call(asked: Given) -> np.ndarray:
        return predict(normalized(asked[0]), deterministic=True, **asked[1])[0]

    _check(entrant, lambda obs: call(given(obs)))
    return Program(call, given, floor=Program(lambda asked: empty(asked[0], deterministic=True), given))


def _policy(saved: Saved) -> Any:
    """The policy with its weights, on the CPU.

    Raises:
        RefusedError: this version of Stable-Baselines3 does not build it.
    """
    if saved.own_class is not None:
        why = "a file does not say what is imported"
        raise RefusedError(f"{saved.name} is of the class {saved.own_class}", why, "leave sb3 out for it")
    module, name = saved.policy_class.rpartition(".")[0], _name(saved)
    kwargs = _arguments(saved)
    spaces = to_gymnasium(saved.observation), to_gymnasium(saved.action)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = load_target(f"{module}:{name}")
            if "ortho_init" in inspect.signature(made).parameters:
                kwargs["ortho_init"] = False  # takes minutes for wide layers, whose weights are then replaced
            size = sum(tensor.nbytes for tensor in saved.weights.state.values())
            with within_memory(_HEADROOM + 8 * size, _too_wide(saved)):
                policy = made(*spaces, **kwargs)
            policy.load_state_dict(saved.weights.state)
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0][:200]
        raise RefusedError(f"this Stable-Baselines3 does not build {saved.name}", why, "leave sb3 out for it") from None
    return policy.eval()


def _too_wide(saved: Saved) -> RefusedError:
    why = "the layers that it describes are far larger than the weights that it has"
    return RefusedError(f"Stable-Baselines3 cannot build {saved.name}", why, "leave sb3 out for it")


def _arguments(saved: Saved) -> dict[str, Any]:
    """What the policy's class is called with, beside the spaces; what only training needs is left out."""
    found = {key: _argument(value) for key, value in saved.kwargs.items() if key not in _TRAINING}
    arch = found.get("net_arch")
    if isinstance(arch, list) and len(arch) == 1 and isinstance(arch[0], dict):  # as it was until 1.7
        found["net_arch"] = arch[0]
    if saved.data.get("use_sde"):
        found["use_sde"] = True
    return found if _name(saved).startswith("ARS") else {"lr_schedule": lambda _: 0.0, **found}


def _name(saved: Saved) -> str:
    """The name of the policy's class, without its module."""
    return saved.policy_class.rpartition(".")[2]


def _argument(value: Any) -> Any:
    """A class by its name: torch's activations and Stable-Baselines3's extractors, nothing else that a file names.

    Raises:
        RefusedError: anything else.
    """
    if isinstance(value, Record) or (isinstance(value, Global) and value.module not in _CLASSES):
        why = f"it is made with {spelled(value)}, and a file does not say what is imported"
        raise RefusedError("Stable-Baselines3 does not build this policy here", why, "leave sb3 out for it")
    return load_target(f"{value.module}:{value.name}") if isinstance(value, Global) else value


def _given(entrant: RuntimeEntry) -> Callable[[np.ndarray], Given]:
    """Raw observations -> observations as the env gives them, and the masks that go beside them."""
    space = entrant.agent.observation

    def given(obs: np.ndarray) -> Given:
        columns = split_rows(space, obs.astype(space.dtype, copy=False))
        masks = {"action_masks": columns.pop(MASK)} if MASK in columns else {}
        return (next(iter(columns.values())) if OBS in columns else columns), masks

    return given


def _normalized(entrant: RuntimeEntry) -> Callable[[Any], Any]:
    """What VecNormalize does before each `predict`."""
    parts = entrant.agent.preprocess.parts
    norms = {name: part.normalizer for name, part in parts.items() if part.normalizer is not None}
    if not norms:
        return lambda obs: obs
    alone = norms.get(OBS)
    if alone is not None:
        return lambda obs: alone(obs).astype(np.float32)
    return lambda obs: {**obs, **{name: norm(obs[name]).astype(np.float32) for name, norm in norms.items()}}


def _empty(policy: Any) -> Any:
    """A policy of Stable-Baselines3's that gives zeros for whatever it sees."""
    import torch
    from stable_baselines3.common.policies import BasePolicy

    class Empty(BasePolicy):
        def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
            seen = next(iter(observation.values())) if isinstance(observation, dict) else observation
            return torch.zeros((len(seen), *(self.action_space.shape or ())))

    return Empty(policy.observation_space, policy.action_space, normalize_images=policy.normalize_images)


def _check(entrant: RuntimeEntry, act: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raise RefusedError unless it acts as the agent does on the first states, an episode beginning in each."""
    agent, obs = entrant.agent, entrant.states.observations[:_STATES]
    found, wanted = act(obs), agent.decode(agent.heads(obs))
    near = _NEAR if isinstance(agent.action, Box) else 0.0
    alike = np.abs(found.astype(np.float64) - wanted).reshape(len(obs), -1).max(1) <= near
    if alike.mean() < _ALIKE:
        why = f"its actions differ in {int((~alike).sum())} of {len(obs)} states"
        raise RefusedError(f"Stable-Baselines3 does not act as {entrant.entry.name}", why, "report it")


SB3 = Runtime(_program, ("stable_baselines3", "sb3_contrib"), "pip install 'kdcli[sb3]'")
