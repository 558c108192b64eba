"""Several copies of an env stepped side by side, each episode with a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from kdcli.envs.alone import Alone
from kdcli.envs.boundary import code_of
from kdcli.envs.conformity import MisfitError, check_env, check_observation, check_step
from kdcli.envs.make import DEFAULT_LIMIT, make, to_action, to_space
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray]
_SUCCESS = ("is_success", "success")


class Vector:
    """`n` slots, each an env. Only the slots named are stepped, so finished ones cost nothing.

    gymnasium's vector envs cannot give each episode its seed without stepping finished slots along.
    `obs` (n, *shape) holds what each slot observes now; of a Dict it is structured, (n,) with a field a part.
    `success` (n,) is 1 or 0 where the info of a slot's last episode ended with `is_success` or `success`, else nan.
    An env that stands `alone` has one slot, however many are asked for.

    Raises:
        UsageError: the env cannot be made, raises, or does not keep gymnasium's contract: one step is tried at once.
    """

    def __init__(self, spec: EnvSpec, n: int) -> None:
        self.spec = spec
        first = self._made()
        env = first.env if isinstance(first, Alone) else first
        self.observation, self.action = to_space(env.observation_space), to_action(env.action_space)
        self._space, self._renewed = env.observation_space, _remembers(env.spec)
        self.cap: int = env.spec.max_episode_steps if env.spec and env.spec.max_episode_steps else DEFAULT_LIMIT
        self._envs = [first]
        try:
            check_env(spec, env)
            self._add(0 if spec.alone else n - 1)
        except BaseException:
            self.close()
            raise
        self._seed, self._t = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        self.success = np.full(len(self), np.nan)
        self.obs = np.zeros((len(self), *self.observation.shape), self.observation.dtype)
        self._columns = {name: self.obs[name] for name in self.obs.dtype.names or ()}

    def __len__(self) -> int:
        return len(self._envs)

    def _made(self) -> gymnasium.Env | Alone:
        return Alone(self.spec) if self.spec.alone else make(self.spec)

    def _add(self, n: int) -> None:
        """Open so many more."""
        try:
            for _ in range(n):
                self._envs.append(self._made())
        except UsageError as error:
            fix = "--envs 1 opens no more than one at a time, if it is that"
            raise UsageError(f"a second one beside the first: {error.what}", error.why, fix) from error

    def reset(self, slot: int, seed: int) -> None:
        """Start an episode in `slot` from the initial state that `seed` gives.

        Raises:
            UsageError: the env raises, or does not give an observation.
        """
        with code_of(self.spec.id, "reset"):
            if self._renewed:
                self._envs[slot].close()
                self._envs[slot] = self._made()
            found = self._envs[slot].reset(seed=seed)
        self.success[slot], self._seed[slot], self._t[slot] = np.nan, seed, 0
        self._show(slot, found[0])
        self._refuse_nan([slot], "reset")

    def step(self, slots: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step slots with actions (b, *shape) -> reward, terminated, truncated, each (b,); updates `obs`.

        An env is handed its row as it is, a choice as NumPy's integer: so do the libraries that agents come from.

        Raises:
            UsageError: the env raises, or gives what is no observation or no reward.
        """
        reward = np.empty(len(slots))
        terminated, truncated = np.empty(len(slots), bool), np.empty(len(slots), bool)
        with code_of(self.spec.id, "step"):
            for row, slot in enumerate(slots):
                found = self._envs[slot].step(actions[row])
                try:
                    obs, reward[row], terminated[row], truncated[row], info = found
                except (TypeError, ValueError):
                    self._refuse(partial(check_step, found, self._space), "step")
                    raise
                self._show(slot, obs)
                if terminated[row] or truncated[row]:
                    self.success[slot] = next((float(np.all(info[key])) for key in _SUCCESS if key in info), np.nan)
        self._t[slots] += 1
        if not np.isfinite(reward).all():
            row = int(np.flatnonzero(~np.isfinite(reward))[0])
            why = f"the reward is {reward[row]}, {self._when(slots[row])}"
            raise MisfitError(why, "look for a division by zero in the reward").told(self.spec.id, "step")
        self._refuse_nan(slots, "step")
        return reward, terminated, truncated

    def _show(self, slot: int, obs: Any) -> None:
        """Keep what a slot observes; numpy would spread one number over all places."""
        try:
            if self._columns:
                for name, column in self._columns.items():
                    if np.shape(obs[name]) != column.shape[1:]:
                        raise ValueError(name)
                    column[slot] = obs[name]
            elif np.shape(obs) == self.observation.shape:
                self.obs[slot] = obs
            else:
                raise ValueError("shape")
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            self._refuse(partial(check_observation, obs, self._space), "step")
            raise

    def _refuse(self, check: Callable[[], None], doing: str) -> None:
        """Say what `check` finds as the env's own error."""
        try:
            check()
        except MisfitError as misfit:
            raise misfit.told(self.spec.id, doing) from None

    def _refuse_nan(self, slots: Sequence[int], doing: str) -> None:
        for name, column in (self._columns or {"the observation": self.obs}).items():
            # The least of numbers is nan where one of them is.
            if column.dtype.kind == "f" and column.size and np.isnan(column[slots].min()):
                told = f"the part {name!r} of the observation" if self._columns else name
                slot = next(slot for slot in slots if np.isnan(column[slot]).any())
                why = f"{told} is nan, {self._when(slot)}"
                raise MisfitError(why, "look for a division by zero in the observation").told(self.spec.id, doing)

    def _when(self, slot: int) -> str:
        return f"{self._t[slot]} steps after reset(seed={self._seed[slot]})"

    def close(self) -> None:
        """Close every env."""
        with code_of(self.spec.id, "close"):
            for env in self._envs:
                env.close()


def _remembers(known: Any) -> bool:
    """Whether episodes depend on those before, so that a seed alone does not fix them.

    Box2D's walkers carry contacts over a reset, MinAtar the action that may stick.
    """
    return known is not None and any(name in str(known.entry_point) for name in ("box2d", "minatar"))
