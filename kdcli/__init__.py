"""kdcli compresses trained reinforcement-learning agents: smaller policies, statistically verified to match.

    import kdcli

    result = kdcli.compress("agent.zip", budget="5m")
    result.student.predict(obs)

Each verb is also a command: `kdcli.distill(...)` is `kdcli distill ...`. See docs/python.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcli.api.bench import bench as bench
    from kdcli.api.compress import compress as compress
    from kdcli.api.distill import distill as distill
    from kdcli.api.distill_many import distill_many as distill_many
    from kdcli.api.export import export as export
    from kdcli.api.improve import improve as improve
    from kdcli.api.load import inspect as inspect
    from kdcli.api.load import load as load
    from kdcli.api.prune import prune as prune
    from kdcli.api.quantize import quantize as quantize
    from kdcli.api.rollout import rollout as rollout
    from kdcli.api.study import study as study
    from kdcli.api.verify import verify as verify
    from kdcli.errors import KdcliError as KdcliError
    from kdcli.errors import RefusedError as RefusedError
    from kdcli.errors import UsageError as UsageError
    from kdcli.recipes.run import run as run

# Resolved on first use, so that `import kdcli` loads no torch.
_PUBLIC = {
    "load": "kdcli.api.load",
    "inspect": "kdcli.api.load",
    "rollout": "kdcli.api.rollout",
    "distill": "kdcli.api.distill",
    "distill_many": "kdcli.api.distill_many",
    "improve": "kdcli.api.improve",
    "prune": "kdcli.api.prune",
    "quantize": "kdcli.api.quantize",
    "export": "kdcli.api.export",
    "bench": "kdcli.api.bench",
    "compress": "kdcli.api.compress",
    "study": "kdcli.api.study",
    "verify": "kdcli.api.verify",
    "run": "kdcli.recipes.run",
    "KdcliError": "kdcli.errors",
    "UsageError": "kdcli.errors",
    "RefusedError": "kdcli.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kdcli")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kdcli' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
