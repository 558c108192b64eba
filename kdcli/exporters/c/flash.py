"""What a policy's C files take of a machine: constants and workspace as written, and code as a compiler makes it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli.exporters.c.files import HEADER, SOURCE
from kdcli.exporters.c.stamp import contract

# A microcontroller with a floating-point unit and one without, where their compiler is installed.
_ARM = "arm-none-eabi-"
TARGETS: Mapping[str, str] = {
    "cortex-m4": "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "cortex-m3": "-mcpu=cortex-m3 -mthumb",
}


def memory(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Bytes of flash and RAM: `constants`, `work`, and `code` by processor, empty without a compiler for it.

    Code is what `-Os` makes of the policy alone; what it calls of the compiler's own library is not in it.
    """
    terms = contract(files)
    code = {cpu: _code(files, terms, flags) for cpu, flags in TARGETS.items()} if _has_compiler() else {}
    return {"constants": terms["constant_bytes"], "work": terms["work_bytes"], "code": code}


def _has_compiler() -> bool:
    return all(shutil.which(f"{_ARM}{tool}") for tool in ("gcc", "size"))


def _code(files: Mapping[str, bytes], terms: Mapping[str, Any], flags: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "policy.c").write_bytes(files[SOURCE])
        Path(folder, terms["header"]).write_bytes(files[HEADER])
        compiler = [f"{_ARM}gcc", *shlex.split(flags), "-std=c99", "-Os", "-ffreestanding", "-c", "policy.c"]
        subprocess.run(compiler, cwd=folder, check=True, capture_output=True)
        sections = subprocess.run([f"{_ARM}size", "-A", "policy.o"], cwd=folder, check=True, capture_output=True)
    found = re.findall(r"^\.text\S* +(\d+)", sections.stdout.decode(), re.MULTILINE)
    return sum(map(int, found))
