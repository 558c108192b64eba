"""Toy environments that a policy learns in a second: what tests and demonstrations run on."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete


class Reach(gymnasium.Env):
    """Push a point on a line to the origin: observation (position, velocity), force in [-1, 1], 50 steps.

    Reward is minus the squared distance; it is well played by -(1.5 x + 1.5 v).
    """

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._state = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._state = self.np_random.uniform(-1.0, 1.0, 2)
        return self._state.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one action; see `gymnasium.Env.step`."""
        x, v = self._state
        v += 0.2 * float(np.clip(action, -1.0, 1.0)[0])
        self._state = np.array([x + 0.2 * v, v])
        return self._state.copy(), -float(self._state[0] ** 2), False, False, {}


class _Guess(gymnasium.Env):
    """Each step shows something drawn anew and rewards the right answer to it; subclasses say what and which."""

    def _show(self) -> Any:
        """Draw a question; what is seen of it."""
        raise NotImplementedError

    def _worth(self, action: Any) -> float:
        """The reward of an answer to the question shown last."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self._worth(action)
        return self._show(), reward, False, False, {}


class Choose(_Guess):
    """Name the largest of three noisy signals: observation (3,), three actions, reward 1 when right, 20 steps."""

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = Discrete(3)
        self._signals = np.zeros(3, np.float32)

    def _show(self) -> np.ndarray:
        self._signals = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self._signals

    def _worth(self, action: Any) -> float:
        return float(int(action) == int(self._signals.argmax()))


def _square(random: np.random.Generator, size: int, where: int) -> np.ndarray:
    """A dark noisy image (size, size, 1) with a bright square in quarter `where`: bit 1 below, bit 0 right."""
    image = random.integers(0, 60, (size, size, 1), np.uint8)
    half, side = size // 2, size // 4
    top, left = random.integers(0, half - side + 1, 2) + half * np.array([where // 2, where % 2])
    image[top : top + side, left : left + side] = 255
    return image


class See(_Guess):
    """Say in which quarter of an image the bright square is: observation uint8 (size, size, 1), 36 as NatureCNN needs.

    Four actions, reward 1 when right, 20 steps. With `channels_first` the image is (1, size, size).
    """

    def __init__(self, size: int = 36, channels_first: bool = False) -> None:
        self._size, self._first, self._where = size, channels_first, 0
        self.observation_space = Box(0, 255, (1, size, size) if channels_first else (size, size, 1), np.uint8)
        self.action_space = Discrete(4)

    def _show(self) -> np.ndarray:
        self._where = int(self.np_random.integers(4))
        image = _square(self.np_random, self._size, self._where)
        return image.transpose(2, 0, 1) if self._first else image

    def _worth(self, action: Any) -> float:
        return float(int(action) == self._where)


class Both(_Guess):
    """An image and numbers together: observation Dict{image: uint8 (size, size, 1), vector: float32 (2,)}.

    Four actions: 2 (the square is in the lower half) + (vector[0] > vector[1]); half a reward for each, 20 steps.
    """

    def __init__(self, size: int = 36) -> None:
        self._size, self._right = size, 0
        image, vector = Box(0, 255, (size, size, 1), np.uint8), Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = Dict({"image": image, "vector": vector})
        self.action_space = Discrete(4)

    def _show(self) -> dict[str, np.ndarray]:
        where, vector = int(self.np_random.integers(4)), self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        self._right = 2 * (where // 2) + int(vector[0] > vector[1])
        return {"image": _square(self.np_random, self._size, where), "vector": vector}

    def _worth(self, action: Any) -> float:
        wrong = int(action) ^ self._right
        return 1.0 - 0.5 * (wrong // 2 + wrong % 2)


class Remember(gymnasium.Env):
    """Repeat the signal shown first: observation float32 (2,): the signal, 1 or -1, then 0; and 1 where it is first.

    Two actions (0 answers -1), reward 1 when right, 10 steps. Without memory, half of the later answers are wrong.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = Discrete(2)
        self._signal = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._signal = int(self.np_random.integers(2))
        return np.array([2 * self._signal - 1, 1], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one action; see `gymnasium.Env.step`."""
        return np.zeros(2, np.float32), float(int(action) == self._signal), False, False, {}


class Allowed(_Guess):
    """Name the largest of four signals among those allowed: observation float32 (4,), four actions, 20 steps.

    `action_masks()` (4,) says which are allowed, as sb3-contrib asks; reward 1 when right, -1 for one not allowed.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = Discrete(4)
        self._signals, self._mask = np.zeros(4, np.float32), np.ones(4, bool)

    def action_masks(self) -> np.ndarray:
        """(4,) which actions are allowed now; at least one is."""
        return self._mask

    def _show(self) -> np.ndarray:
        self._signals = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        self._mask = self.np_random.random(4) < 0.5
        self._mask[self.np_random.integers(4)] = True
        return self._signals

    def _worth(self, action: Any) -> float:
        if not self._mask[int(action)]:
            return -1.0
        return float(int(action) == int(np.where(self._mask, self._signals, -np.inf).argmax()))


class Levers(_Guess):
    """Set two levers: observation float32 (5,), MultiDiscrete([3, 2]) actions, 20 steps.

    The first goes where the largest of signals 0 to 2 is, the second to that of 3 and 4; half a reward for each.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (5,), np.float32)
        self.action_space = MultiDiscrete([3, 2])
        self._signals = np.zeros(5, np.float32)

    def _show(self) -> np.ndarray:
        self._signals = self.np_random.uniform(-1.0, 1.0, 5).astype(np.float32)
        return self._signals

    def _worth(self, action: Any) -> float:
        right = (int(self._signals[:3].argmax()), int(self._signals[3:].argmax()))
        return sum(0.5 for did, best in zip(action, right, strict=True) if int(did) == best)


class Switches(_Guess):
    """Switch on where the signal is positive: observation float32 (3,), MultiBinary(3) actions, 20 steps.

    A third of a reward for each switch that is right.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = MultiBinary(3)
        self._signals = np.zeros(3, np.float32)

    def _show(self) -> np.ndarray:
        self._signals = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self._signals

    def _worth(self, action: Any) -> float:
        return float(np.mean(np.asarray(action, bool) == (self._signals > 0)))


class Crowd(_Guess):
    """Say on which side the largest of five things is: observation float32 (5, 2), a row (place, size) for each.

    Two actions (0 is left, a place below 0), reward 1 when right, 20 steps. The order of the rows says nothing.
    """

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (5, 2), np.float32)
        self.action_space = Discrete(2)
        self._things = np.zeros((5, 2), np.float32)

    def _show(self) -> np.ndarray:
        self._things = self.np_random.uniform(-1.0, 1.0, (5, 2)).astype(np.float32)
        return self._things

    def _worth(self, action: Any) -> float:
        place, _ = self._things[self._things[:, 1].argmax()]
        return float(int(action) == int(place > 0))


gymnasium.register("kdcli/Reach-v0", "kdcli.envs.toys:Reach", max_episode_steps=50)
gymnasium.register("kdcli/Choose-v0", "kdcli.envs.toys:Choose", max_episode_steps=20)
gymnasium.register("kdcli/See-v0", "kdcli.envs.toys:See", max_episode_steps=20)
gymnasium.register("kdcli/Both-v0", "kdcli.envs.toys:Both", max_episode_steps=20)
gymnasium.register("kdcli/Remember-v0", "kdcli.envs.toys:Remember", max_episode_steps=10)
gymnasium.register("kdcli/Allowed-v0", "kdcli.envs.toys:Allowed", max_episode_steps=20)
gymnasium.register("kdcli/Levers-v0", "kdcli.envs.toys:Levers", max_episode_steps=20)
gymnasium.register("kdcli/Crowd-v0", "kdcli.envs.toys:Crowd", max_episode_steps=20)
gymnasium.register("kdcli/Switches-v0", "kdcli.envs.toys:Switches", max_episode_steps=20)
