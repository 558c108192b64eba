"""What the files around a checkpoint tell: RL Zoo's folders and YAML, Hub downloads, names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.env_ids import Inputs, today
from kdcli.checkpoints.sb3.zoo_wrappers import translated
from kdcli.errors import RefusedError
from kdcli.files import is_file, read_bytes
from kdcli.progress import Listener, Note
from kdcli.spec import EnvSpec, n_features

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.onnx.session import OnnxAgent

MAX_YAML = 2**16
STATISTICS = ("vecnormalize.pkl", "vec_normalize.pkl")
_ENV_ID = re.compile(r"[A-Za-z][\w./-]*-v\d+", re.ASCII)
# As files are named: ppo-CartPole-v1, CartPole-v1_1, sac_Hopper-v3_best, CartPole-v1-dqn-seed1.
_NAME = re.compile(r"(?:[a-z0-9_]+[-_])??(?P<id>[A-Z][\w.]*(?:-[A-Za-z][\w.]*)*?-v\d+)(?:[-_.].*)?", re.ASCII)
_AWAY = "repair it, or move it away and give --env"
MAX_ALIASES = 16
_STEPS = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")
_NOT_NORMALIZED = re.compile(r"norm_obs['\"]?\s*[=:]\s*False|^\s*False")
_ORDERED = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"


@dataclass(frozen=True)
class Surroundings:
    """The statistics file, and the content of args.yml (with env_kwargs.yml) and config.yml, where they exist."""

    vecnormalize: Path | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def normalized(self) -> bool:
        """Whether config.yml says that observations were normalised."""
        value = self.config.get("normalize", False)
        return value is True or (isinstance(value, str) and not _NOT_NORMALIZED.search(value))


def read_surroundings(path: Path) -> Surroundings:
    """What lies beside the checkpoint at `path`: in <its name>/, in the one folder with an args.yml, or with it.

    Raises:
        RefusedError: a YAML file that cannot be read safely.
    """
    folders = list(_folders(path))
    args, config, kwargs = (_yaml(folders, name) for name in ("args.yml", "config.yml", "env_kwargs.yml"))
    if kwargs:
        args = {**args, "env_kwargs": kwargs}
    return Surroundings(_statistics(path, folders), args, config)


def _folders(path: Path) -> Iterator[Path]:
    yield path.with_suffix("")
    if not path.with_suffix("").is_dir():
        told = [args.parent for args in sorted(path.parent.glob("*/args.yml"))]
        if len(told) == 1:
            yield told[0]
    yield path.parent


def _statistics(path: Path, folders: list[Path]) -> Path | None:
    """The statistics of the same moment (as CheckpointCallback names them), else those of the folder."""
    candidates = [folder / name for folder in folders for name in STATISTICS]
    if steps := _STEPS.fullmatch(path.stem):
        candidates.insert(0, path.with_name(f"{steps['prefix']}_vecnormalize_{steps['steps']}_steps.pkl"))
    return next((file for file in candidates if is_file(file)), None)


class _Loader(yaml.SafeLoader):
    """YAML's plain values, and the one Python tag that RL Zoo writes."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose, with few aliases: nested in each other they grow without end, too."""
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MAX_ALIASES:
            raise yaml.YAMLError(f"more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        """Leave merge keys alone, so that they are refused: nested in each other they grow without end."""


def _ordered(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    """`!!python/object/apply:collections.OrderedDict [[[key, value], ...]]` as a dict."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("an OrderedDict that is not a sequence")
    [pairs] = loader.construct_sequence(node, deep=True) or [[]]
    return dict(pairs)


_Loader.add_constructor(_ORDERED, _ordered)


def _yaml(folders: list[Path], name: str) -> dict[str, Any]:
    """The mapping in the first file of that name; empty without one."""
    path = next((folder / name for folder in folders if is_file(folder / name)), None)
    if path is None:
        return {}
    try:
        found = yaml.load(read_bytes(path, MAX_YAML), _Loader)
    except RefusedError as error:
        raise RefusedError(f"{path} cannot be read safely", error.why, _AWAY) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError, KeyError, IndexError) as error:
        why = " ".join(str(error).split())[:200]
        raise RefusedError(f"{path} cannot be read safely", why, _AWAY) from None
    return found if isinstance(found, dict) else {}


def find_env(path: Path, config: LoadConfig, around: Surroundings, inputs: Inputs, listen: Listener) -> EnvSpec | None:
    """The env the agent was trained on: as `config` says, else args.yml, else by the names of file and folder.

    An id of the past is mapped to today's. What was chosen is told to `listen`.
    """
    wrappers = config.wrappers() if config.wrapper else _wrappers(around, listen)
    given = config.named_env()
    if given is not None:
        return told(*today(replace(given, wrappers=wrappers), inputs), listen)
    named = _named(path, around, listen)
    if named is None:
        listen(Note("the file does not say which env it was trained on: name it with --env"))
        return None
    read = EnvSpec.from_json({"id": named, "kwargs": _env_kwargs(around), "wrappers": wrappers})
    kwargs = {**read.kwargs, **config.kwargs()}
    env = replace(read, kwargs=kwargs, wrappers=wrappers, alone=config.envs == 1).said(config.texts())
    return told(*today(env, inputs), listen)


def told(env: EnvSpec, said: Sequence[str], listen: Listener) -> EnvSpec:
    """The env, once `listen` knows what was `said` about it."""
    for text in said:
        listen(Note(text))
    return env


def asked_env(config: LoadConfig, agent: Agent | OnnxAgent, listen: Listener) -> EnvSpec | None:
    """The env of an agent that is complete: as `config` says, under today's id, else its own.

    Arguments and wrappers may be given to its own env, too.
    """
    env, kwargs = config.named_env(), config.kwargs()
    if env is None and agent.env is not None and (kwargs or config.wrapper):
        wrappers = config.wrappers(agent.env.wrappers)
        env = replace(agent.env, kwargs={**agent.env.kwargs, **kwargs}, wrappers=wrappers).said(config.texts())
    return agent.env if env is None else told(*today(env, Inputs(n_features(agent.observation))), listen)


def _named(path: Path, around: Surroundings, listen: Listener) -> str | None:
    told = around.args.get("env")
    # The module in `module:Env-v0` would be imported, and a file must not decide what is.
    if isinstance(told, str) and _ENV_ID.fullmatch(told.rpartition(":")[2]):
        if packages := around.args.get("gym_packages"):
            listen(Note(f"args.yml names packages, {str(packages)[:80]}: for an env of one, --env package:{told[:80]}"))
        return told.rpartition(":")[2]
    for name in (path.stem, path.absolute().parent.name):
        if found := _NAME.fullmatch(name):
            listen(Note(f"taking the env from the name {name!r}: {found['id']}"))
            return found["id"]
    return None


def _env_kwargs(around: Surroundings) -> dict[str, Any]:
    kwargs = around.args.get("env_kwargs") or {}
    try:
        if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
            raise ValueError("not names with values")
        return json.loads(json.dumps(kwargs, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise RefusedError("args.yml: env_kwargs cannot be read", str(error), "give --env and --env-kwargs") from None


def _wrappers(around: Surroundings, listen: Listener) -> tuple[str, ...]:
    """The wrappers that config.yml names, inner first, as kdcli's; tells of each what becomes of it."""
    found = []
    for target, told in _entries(around.config):
        said = translated(target, told)
        name = target[:80]
        if said is None:
            how = "name all wrappers with --wrapper, one of your own as package.module:Class"
            listen(Note(f"config.yml names {name}, which kdcli does not have: the env may observe otherwise; {how}"))
        elif said:
            found.append(said)
            listen(Note(f"config.yml names {name}: the env gets the wrapper {said}"))
    return tuple(found)


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted names of wrapper classes with their arguments, in the order in which RL Zoo applies them."""
    for key in ("env_wrapper", "vec_env_wrapper"):
        told = config.get(key) or []
        for entry in told if isinstance(told, list) else [told]:
            pairs = entry.items() if isinstance(entry, dict) else [(entry, None)]
            for target, arguments in pairs:
                # Arguments of another kind are as unknown as a name that nobody has.
                yield str(target), arguments if isinstance(arguments, dict) else {} if arguments is None else {"?": 0}
    if (frames := config.get("frame_stack")) is not None:
        yield "VecFrameStack", {"n_stack": frames}
