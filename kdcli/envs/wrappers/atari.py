"""Atari's screen as DQN and its successors see it (Mnih et al. 2015), for evaluation: whole games, true scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import MAX_SIDE, flag, number, whole, word
from kdcli.envs.wrappers.images import need_cv2
from kdcli.errors import UsageError

NOOP = 0


@dataclass(frozen=True)
class Screening:
    """How a game is begun and seen.

    Attributes:
        size: height and width of a frame.
        noop: at most so many frames without action begin a game.
        skip: frames that an action is held; the last two are one, each pixel the greater.
        sticky: with this probability a frame's action is the last one's.
        style: whose order of things: `sb3`, `gymnasium` or `ale`.
        flat: frames (size, size), without an axis for the one channel.
        inner: frames for which the game itself holds an action, all of them one frame here; 1 but by mistake.
    """

    size: int
    noop: int
    skip: int
    sticky: float
    style: str
    flat: bool
    inner: int


class _Atari(gymnasium.Wrapper):
    """Frames (size, size, 1) of bytes. Talks to the emulator itself, since the frames between need not be drawn."""

    def __init__(self, env: gymnasium.Env, how: Screening) -> None:
        super().__init__(env)
        self._ale, self._how, self._cv2 = env.unwrapped.ale, how, need_cv2()  # type: ignore[attr-defined]
        self._moves = env.unwrapped._action_set  # type: ignore[attr-defined]
        self._fire = "FIRE" in env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        colours = (3,) if how.style == "sb3" else ()
        self._draw = self._ale.getScreenRGB if colours else self._ale.getScreenGrayscale
        self._frames = np.zeros((2, *self._ale.getScreenDims(), *colours), np.uint8)
        self._last = NOOP
        self.observation_space = Box(0, 255, (how.size, how.size, 1)[: 3 - how.flat], np.uint8)

    def _frame(self, action: int) -> float:
        """One frame, or `inner` of them -> the reward."""
        if not self._how.sticky or self.np_random.random() >= self._how.sticky:
            self._last = action
        return sum(self._ale.act(self._moves[self._last]) for _ in range(self._how.inner))

    def _held(self, action: int) -> tuple[float, bool, bool]:
        """An action held for `skip` frames -> reward, terminated, truncated."""
        reward, terminated, truncated = 0.0, False, False
        for left in reversed(range(self._how.skip)):
            reward += self._frame(action)
            terminated, truncated = self._ale.game_over(with_truncation=False), self._ale.game_truncated()
            if left < 2:
                self._draw(self._frames[left])
            if terminated or truncated:
                break
        return reward, terminated, truncated

    def _seen(self, frame: np.ndarray) -> np.ndarray:
        gray = self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame
        sides = (self._how.size, self._how.size)
        small = self._cv2.resize(gray, sides, interpolation=self._cv2.INTER_AREA)
        return small if self._how.flat else small[..., None]

    def _latest(self) -> np.ndarray:
        """What is seen after an action was held."""
        return self._seen(self._frames[0] if self._how.skip == 1 else np.maximum(self._frames[0], self._frames[1]))

    def _begin(self) -> None:
        """The frames before the first decision; no game is so short that it ends in them."""
        random, noop = self.unwrapped.np_random, self._how.noop
        if self._how.style == "ale":
            drawn = int(random.integers(noop)) if noop else 0
            moves = [1] * self._fire + [NOOP] * (drawn - self._fire)
        else:
            moves = [NOOP] * (int(random.integers(1, noop + 1)) if noop else 0)
        for action in moves:
            self._frame(action)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        _, info = self.env.reset(**kwargs)
        self._last = NOOP
        self._begin()
        if self._how.style == "sb3" and self._fire:
            self._held(1)
            self._held(2)
            return self._latest(), info
        self._draw(self._frames[0])
        return self._seen(self._frames[0]), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = self._held(int(action))
        return self._latest(), reward, terminated, truncated, {}


def atari(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Gray frames of an Atari game, each of the last two of `skip`.

    `style=sb3` is Stable-Baselines3's AtariWrapper without episodic life and clipped rewards, `gymnasium` is
    AtariPreprocessing (no FIRE to begin), `ale` is ale_py's AtariVectorEnv (FIRE, then no-ops; stack by frame-stack:4).

    Raises:
        UsageError: not an Atari game, or one that skips frames itself.
    """
    choice.only("noop", "skip", "sticky", "style", "flat", "inner")
    inner, own = whole(choice, "inner", 1), getattr(env.unwrapped, "_frameskip", None)
    if own is None or not hasattr(env.unwrapped, "ale"):
        raise UsageError(
            "the wrapper atari needs an Atari game",
            f"{env} is none",
            "--wrapper none, or name others",
        )
    if own != inner:
        fix = f"--env-kwargs frameskip={inner}"
        raise UsageError("the game skips frames, as the wrapper atari does", f"its frameskip is {own}", fix)
    size, noop, skip = (
        whole(choice, default=84, most=MAX_SIDE),
        whole(choice, "noop", 30, least=0, most=10**4),
        whole(choice, "skip", 4),
    )
    style, flat = word(choice, "style", ("sb3", "gymnasium", "ale")), flag(choice, "flat")
    return _Atari(env, Screening(size, noop, skip, number(choice, "sticky", 0.0), style, flat, inner))
