"""Where numbers were measured: latencies hold on one machine only."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from kdcli import artifact

_RUNTIMES = ("torch", "onnxruntime", "openvino", "stable-baselines3", "numpy")
PACKAGES = (*_RUNTIMES, "gymnasium", "mujoco", "box2d-py", "box2d", "ale-py")


def machine() -> dict[str, Any]:
    """CPU model, cores that this process may use, system, and how loaded it was (1-minute load average)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": _cpu(), "cores": _cores(), "system": platform.system(), "load": load and round(load, 1)}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, environments included."""
    return artifact.versions(*PACKAGES)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
