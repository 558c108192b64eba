"""Every option of an export, defined once: the command line, recipes and the file's record read this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kdcli.names import Names

OUTPUTS = ("action", "logits", "q", "mean", "log_std", "value")


def _with_action(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once, the action first: a file that does not act is no policy."""
    for name in names:
        if name not in OUTPUTS:
            raise ValueError(f"there is no output {name!r}; known: {', '.join(OUTPUTS)}")
    return tuple(dict.fromkeys(("action", *names)))


class ExportConfig(BaseModel):
    """How an agent is written for another runtime."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field("auto", description="one of: kdcli list exporters; auto: by the output's suffix")
    outputs: Annotated[Names, AfterValidator(_with_action)] = Field(
        ("action",), description="outputs, joined by commas; besides action: logits, q, mean, log_std, value"
    )
    precision: Literal["fp32", "fp16"] = Field("fp32", description="of the weights in the file; arithmetic is fp32")
    opset: int = Field(17, ge=13, description="ONNX operator set, 13 or newer")
    states: int = Field(1000, ge=1, description="observations on which file and agent must act alike")
    seed: int = Field(0, ge=0, description="where these observations start")
