"""The last step of every reader of a foreign file: its parts, checked against each other, as one Agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocessor
from kdcli.agents.policy import Policy
from kdcli.agents.store import check_sizes
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import EnvSpec


def finish(path: Path, sees: Preprocessor, policy: Policy, env: EnvSpec | None, facts: Mapping[str, Any]) -> Agent:
    """The agent of the file at `path`; `facts` say where it came from (format, algorithm, ...).

    Raises:
        RefusedError: the network does not fit the spaces, or squashed actions have no bounds.
    """
    try:
        check_sizes(policy, sees.n_features)
    except ValueError as error:
        fix = "name the env it was trained on with --env, and its wrappers with --wrapper"
        kind = RefusedError if env is None else UsageError  # an env that was named may be the wrong one
        raise kind(f"{path.name} does not fit {env or 'its own spaces'}", str(error), fix) from None
    if policy.rule.squash != "clip" and not policy.rule.bounded:
        raise RefusedError(f"{path.name}: squashed actions need finite bounds", f"the space is {policy.rule.space}")
    return Agent(sees, policy.eval(), path.stem, env, {**facts, "sha256": artifact.sha256(path)})
