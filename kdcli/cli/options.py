"""A command from a function: the fields of its config become options, so each option is defined once.

    @command
    def distill(teacher: Path, config: DistillConfig, *, output: Output, console: Console) -> None:
        "Distill a teacher into a smaller student."

A parameter annotated with a pydantic model is replaced by one option a field and arrives built; a `Console` is
handed over; every other parameter is typer's (no default: a positional argument). A command may return an
exit code; None is done.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdcli.cli.console import Console
from kdcli.durations import format_duration
from kdcli.said import ALLOW, hearing

Json = Mapping[str, Any]

Output = Annotated[Path, typer.Option("--output", "-o", metavar="<path>", help="Where to write.")]
OptionalOutput = Annotated[Path | None, typer.Option("--output", "-o", metavar="<path>", help="Where to write.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        ALLOW, metavar="<module:name>", help="Code, or a program, that the file names and that may run; repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]

_LABELS = {"integer": "int", "number": "float", "string": "str", "boolean": "true|false"}


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Turn `function` into what the table of commands names; typer reads the signature made here."""
    hints = get_type_hints(function, include_extras=True)
    configs = {name: hint for name, hint in hints.items() if _is_a(hint, BaseModel)}
    consoles = [name for name, hint in hints.items() if _is_a(hint, Console)]
    own = [p for p in inspect.signature(function).parameters.values() if p.name not in (*configs, *consoles)]

    @wraps(function)
    def run(typer_context: typer.Context, **given: Any) -> int | None:
        arguments = {p.name: given[p.name] for p in own}
        arguments |= {name: _build(config, given) for name, config in configs.items()}
        console: Console = typer_context.obj
        options = [p.name for p in typer_context.command.params if p.param_type_name == "option"]
        said = [text for name in options for text in _texts(given[str(name)])]
        with console.keep_stdout(), hearing(said, (given["allow"] or ()) if "allow" in options else None):
            return function(**arguments, **dict.fromkeys(consoles, console))

    context = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    positional = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own]
    options = [option for config in _holders(configs.values()) for option in _options(*config)]
    run.__signature__ = inspect.Signature([context, *positional, *options])  # type: ignore[attr-defined]
    return run


def _texts(value: Any) -> list[str]:
    """The text or texts of one option."""
    return (
        [value]
        if isinstance(value, str)
        else [text for text in value if isinstance(text, str)]
        if isinstance(value, list)
        else []
    )


def _is_a(hint: Any, kind: type) -> bool:
    return isinstance(hint, type) and issubclass(hint, kind)


def _holders(configs: Collection[type[BaseModel]]) -> list[tuple[type[BaseModel], list[str]]]:
    """Each config with the fields it tells about: one that several share is one option, of the first with a default."""
    holder: dict[str, type[BaseModel]] = {}
    for config in configs:
        for name, field in config.model_fields.items():
            if name not in holder or holder[name].model_fields[name].default is None is not field.default:
                holder[name] = config
    return [(config, [name for name in config.model_fields if holder[name] is config]) for config in configs]


def _options(config: type[BaseModel], names: Iterable[str]) -> list[inspect.Parameter]:
    return [_option(name, config.model_fields[name], _schemas(config)[name]) for name in names]


@cache
def _schemas(config: type[BaseModel]) -> Json:
    """JSON schema of each field: one plain description of what types, literals and optionals allow."""
    return config.model_json_schema()["properties"]


def _option(name: str, field: FieldInfo, schema: Json) -> inspect.Parameter:
    """One field as one option. Values stay text: the config alone checks them, and knows its defaults."""
    kind = _kind(schema)
    flag = name.replace("_", "-")
    info = typer.Option(
        ... if field.is_required() else None,
        f"--{flag}/--no-{flag}" if kind == "boolean" else f"--{flag}",
        help=f"{field.description or ''}{_default(field, schema)}",
        metavar=f"<{_label(schema)}>",
        show_default=False,
    )
    annotation = {"boolean": bool | None, "array": list[str] | None}.get(kind, str | None)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def _branches(schema: Json) -> list[Json]:
    """What a value may be, leaving out "not given"."""
    return [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]


def _kind(schema: Json) -> str:
    kinds = {branch.get("type", "object") for branch in _branches(schema)}
    if "object" in kinds or ("array" in kinds and len(kinds) > 1):
        raise TypeError(f"no option can hold the field {schema.get('title')!r}: {schema}")
    return kinds.pop() if len(kinds) == 1 else "string"


def _label(schema: Json) -> str:
    """What to write after the option: `int`, `path`, `kl|mse`."""
    branches = _branches(schema)
    if len(branches) > 1:
        return "|".join(map(_label, branches))
    [only] = branches
    if only["type"] == "array":
        return _label(only["items"])
    return "|".join(map(str, _members(only))) or only.get("format") or _LABELS[only["type"]]


def _members(schema: Json) -> list[Any]:
    """The values of a Literal."""
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _default(field: FieldInfo, schema: Json) -> str:
    default = field.default
    if field.is_required() or field.default_factory or default is None or default is False or default in ((), ""):
        return ""
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    if _label(schema) == "duration" and isinstance(default, float):
        default = format_duration(default)
    return f"  [default: {str(default).lower() if default is True else default}]"


def _build(config: type[BaseModel], given: Json) -> BaseModel:
    """The config from the options that were typed; the others keep their defaults."""
    typed = {name: _member(schema, given[name]) for name, schema in _schemas(config).items() if given[name] is not None}
    return config.model_validate(typed)


def _member(schema: Json, value: Any) -> Any:
    """The member of a Literal that is written `value`: pydantic does not take the text "8" for 8."""
    return next((m for branch in _branches(schema) for m in _members(branch) if str(m) == value), value)
