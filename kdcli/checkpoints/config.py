"""What the user may say about a checkpoint, defined once: the command line, recipes and the record read this."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.spec import EnvSpec


class LoadConfig(BaseModel):
    """How a checkpoint is read; what is not said is looked up beside the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = Field(default=None, description="gymnasium id of the env; default: what the files beside it say")
    env_kwargs: tuple[str, ...] = Field(default=(), description="argument of the env, name=value; repeatable")
    wrapper: tuple[str, ...] = Field(default=(), description="env wrapper, inner first: pad:84, time-feature; or none")
    envs: int | None = Field(default=None, ge=1, description="1: no more than one env is open at a time")
    vecnormalize: str = Field(default="auto", description="VecNormalize's file; auto: the one beside it; none")
    obs_stats: str | None = Field(default=None, description="its observation statistics, x.npz: mean, var; or none")
    activation: str | None = Field(default=None, description="activation, where the file does not say: elu, tanh, ...")
    squash: Literal["clip", "tanh"] | None = Field(default=None, description="how its mean becomes an action")
    signal: Literal["action", "logits", "q", "mean"] | None = Field(
        default=None, description="what a foreign program puts out"
    )
    output_name: str | None = Field(default=None, description="the output of a foreign ONNX file that is meant")
    critics: bool | None = Field(
        default=None, description="read what SAC, TQC, TD3 or DDPG says an action is worth: a teacher of --loss value"
    )
    trust: bool = Field(default=False, description="run the code in a TorchScript or torch.export program")
    channels_last: bool | None = Field(
        default=None, description="images arrive as (height, width, channels); default: as the env gives them"
    )

    def kwargs(self) -> dict[str, Any]:
        """`env_kwargs` as values: JSON where it is JSON (`true`, `3`, `[1, 2]`), else text.

        Raises:
            UsageError: one without a name or without '='.
        """
        return dict(map(_parse, self.env_kwargs))

    def named_env(self) -> EnvSpec | None:
        """The env that `env` names, with its arguments and wrappers; None when it names none."""
        from kdcli.spec import EnvSpec  # brings numpy, which no help page needs

        return None if self.env is None else EnvSpec(self.env, self.kwargs(), self.wrappers(), alone=self.envs == 1)

    def wrappers(self, told: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Those that `wrapper` names, `none` being none; where it names nothing, those that files have `told`."""
        return tuple(text for text in self.wrapper if text != "none") if self.wrapper else told

    def texts(self) -> list[str]:
        """What it says of the env: its id, arguments that are text, wrappers."""
        said = [] if self.env is None else [self.env]
        return [*said, *(value for value in self.kwargs().values() if isinstance(value, str)), *self.wrapper]

    def without_vecnormalize(self) -> LoadConfig:
        """The same, with observations said not to be normalised.

        Raises:
            UsageError: a file of statistics is named.
        """
        if self.vecnormalize not in ("auto", "none"):
            raise UsageError("--vecnormalize and --no-vecnormalize", "they contradict each other", "give one of them")
        return self.model_copy(update={"vecnormalize": "none"})

    def recorded(self) -> dict[str, Any]:
        """JSON values for the record of how a file was made: what was said; of a path only the file's name."""
        said = self.model_dump(mode="json", exclude_none=True, exclude={"trust"})
        paths: dict[str, Any] = {name: Path(said[name]).name for name in ("vecnormalize", "obs_stats") if name in said}
        return {**said, **paths}


def _parse(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=" if "=" in text else ":")  # RL Zoo writes name:value
    if not separator or not name.strip().isidentifier():
        raise UsageError(f"cannot read the env argument {text!r}", "it is name=value", "e.g. continuous=true")
    try:
        return name.strip(), json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return name.strip(), value
