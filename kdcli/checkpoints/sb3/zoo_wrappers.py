"""What the wrappers in RL Zoo's config.yml are called here. Pure data: nothing that a file names is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

ResolvedRecipe = Mapping[str, Any]
Said = str | None  # a wrapper as kdcli writes it, "" where none is needed, None where there is no equal


def translated(target: str, told: ResolvedRecipe) -> Said:
    """The wrapper for the class at the dotted name `target` with the arguments `told`."""
    known = _KNOWN.get(target.rpartition(".")[2])
    try:
        return None if known is None else known(told)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    """A number or a truth value as an option is written."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return repr(value)


def _named(
    name: str, keys: Mapping[str, str], told: ResolvedRecipe, fixed: str = "", unused: tuple[str, ...] = ()
) -> str:
    """`name` with the arguments renamed: `keys` maps theirs to ours, "" being the value; `unused` ones change nothing.

    Raises:
        ValueError: an argument that is none of these.
    """
    values: dict[str, str] = {}
    for key, value in told.items():
        if key in keys:
            values[keys[key]] = _text(value)
        elif key not in unused:
            raise ValueError(f"unknown argument {key!r}")
    first = [values.pop("")] if "" in values else []
    options = [*first, *(f"{key}={value}" for key, value in values.items()), *([fixed] if fixed else [])]
    return f"{name}:{','.join(options)}" if options else name


def _row(name: str, fixed: str = "", unused: tuple[str, ...] = (), **keys: str) -> Callable[[ResolvedRecipe], Said]:
    return partial(
        _named, name, {key: "" if ours == "value" else ours for key, ours in keys.items()}, fixed=fixed, unused=unused
    )


def _resize(told: ResolvedRecipe) -> Said:
    [shape] = [told[key] for key in told]
    sides = [shape, shape] if isinstance(shape, int) else list(shape)
    height, width = map(_text, sides)
    return f"resize:{height}x{width}"


def _gray(kind: str, told: ResolvedRecipe) -> Said:
    if set(told) - {"keep_dim"}:
        return None
    return kind if told.get("keep_dim", False) else f"{kind}{',' if ':' in kind else ':'}flat=true"


def _preprocessing(told: ResolvedRecipe) -> Said:
    """gymnasium's AtariPreprocessing, where it gives gray bytes."""
    if told.get("scale_obs", False) or not told.get("grayscale_obs", True):
        return None
    flat = "" if told.get("grayscale_newaxis", False) else ",flat=true"
    rest = {key: value for key, value in told.items() if key not in ("scale_obs", "grayscale_obs", "grayscale_newaxis")}
    keys = {"screen_size": "", "noop_max": "noop", "frame_skip": "skip"}
    return _named("atari", keys, rest, f"style=gymnasium{flat}", ("terminal_on_life_loss",))


def _stacked(told: ResolvedRecipe) -> Said:
    """gymnasium's FrameStackObservation, or FrameStack as it was called."""
    n = _text(told["stack_size"] if "stack_size" in told else told["num_stack"])
    padding = told.get("padding_type", "reset")
    if padding not in ("reset", "zero"):
        return None
    return f"frame-stack:{n},axis=new{',pad=first' if padding == 'reset' else ''}"


def _nothing(_: ResolvedRecipe) -> Said:
    return ""


_KNOWN: dict[str, Callable[[ResolvedRecipe], Said]] = {
    "TimeFeatureWrapper": _row("time-feature", max_steps="fallback", test_mode="test"),
    "AtariWrapper": _row(
        "atari",
        unused=("terminal_on_life_loss", "clip_reward"),  # of training: what is measured are whole games
        screen_size="value",
        noop_max="noop",
        frame_skip="skip",
        action_repeat_probability="sticky",
    ),
    "AtariPreprocessing": _preprocessing,
    "FrameSkip": _row("frame-skip", skip="value"),
    "HistoryWrapper": _row("history", horizon="value"),
    "HistoryWrapperObsDict": _row("history", horizon="value"),
    "MaskVelocityWrapper": _row("mask-velocity"),
    "FlattenObservation": _row("flatten"),
    "ResizeObservation": _resize,
    "YAMLCompatResizeObservation": _resize,
    "GrayScaleObservation": partial(_gray, "grayscale:cv2"),  # as it was spelled when it was OpenCV's
    "GrayscaleObservation": partial(_gray, "grayscale"),
    "FrameStackObservation": _stacked,
    "FrameStack": _stacked,
    "VecFrameStack": _row("frame-stack", n_stack="value"),
    "RescaleAction": _row("rescale-action", min_action="low", max_action="high", a="low", b="high"),
    "ClipAction": _row("clip-action"),
    "StickyAction": _row("sticky", repeat_action_probability="value"),
    "TimeLimit": _row("time-limit", max_episode_steps="value"),
    # These change no observation, no action and no end of an episode.
    "Monitor": _nothing,
    "VecMonitor": _nothing,
    "RecordEpisodeStatistics": _nothing,
    "DelayedRewardWrapper": _nothing,
    "ClipReward": _nothing,
    "NormalizeReward": _nothing,
    # kdcli looks at how the env gives its images, and moves the channels itself.
    "VecTransposeImage": _nothing,
}
