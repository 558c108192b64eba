"""What some tests need beside `pip install -e '.[test]'`, and how to get it: the only place where a test is skipped."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

ZOO = Path(os.environ.get("KDCLI_ZOO", "/nonexistent"))
TEACHERS = Path(os.environ.get("KDCLI_TEACHERS", "/nonexistent"))
ARM = ("arm-none-eabi-gcc", "qemu-system-arm")


def _needs(there: bool, what: str, how: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=f"needs {what}: {how}")


def _programs(*names: str) -> bool:
    return all(shutil.which(name) is not None for name in names)


# The requirements of MinAtar are for plotting, and no env needs them.
minatar = _needs(find_spec("minatar") is not None, "minatar", "pip install --no-deps -c constraints.txt minatar")
c_compiler = _needs(_programs("cc"), "a C compiler", "apt install gcc libc6-dev")
cortex_m = _needs(_programs(*ARM), "a Cortex-M", "apt install gcc-arm-none-eabi qemu-system-arm")
zoo = _needs(ZOO.is_dir(), "agents of others", "set KDCLI_ZOO to a clone of DLR-RM/rl-trained-agents")
teachers = _needs(TEACHERS.is_dir(), "image and recurrent teachers", "set KDCLI_TEACHERS to their folder")


def compiler(name: str) -> pytest.MarkDecorator:
    """A test that compiles with the compiler `name`."""
    return _needs(_programs(name), name, f"apt install {name.replace('clang++', 'clang')}")


python38 = _needs("KDCLI_PYTHON38" in os.environ, "Python 3.8 with NumPy", "set KDCLI_PYTHON38 to its interpreter")
dev_full = _needs(os.path.exists("/dev/full"), "/dev/full", "run it on Linux")
