"""An ONNX file tried in a process of its own, with little memory and time, before it is let into this one.

A few hundred bytes of ONNX can ask for terabytes, run without end, or bring the runtime down, and nothing short of
running it tells.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

from kdcli.errors import RefusedError

# For loading and one decision, beside what the runtime itself takes; seconds are of work, patience is by the clock.
MEMORY, SECONDS, PATIENCE = 2**30, 4, 60.0
_REFUSED = 3
_TRIED: dict[bytes, str] = {}  # digest of a file tried in the life of this process -> what is wrong with it
_STARVED = re.compile("alloc|memory", re.IGNORECASE)


def try_out(data: bytes, source: str) -> None:
    """Let another process load the ONNX file `data` and decide once, on zeros; `source` is what errors call it.

    Raises:
        RefusedError: it cannot be loaded, wants more than a gigabyte of memory or four seconds, or breaks the runtime.
    """
    digest = hashlib.sha256(data).digest()
    if digest not in _TRIED:
        _TRIED[digest] = _fault(data)
    if _TRIED[digest]:
        what = f"onnxruntime cannot run {source}"
        raise RefusedError(what, _TRIED[digest], "export it again, or with a lower --opset")


def _fault(data: bytes) -> str:
    """What is wrong with the file, tried in another process; empty where nothing is."""
    words = [sys.executable, "-P", "-m", "kdcli.agents.onnx.sandbox"]
    try:
        ended = subprocess.run(words, input=data, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"one decision takes more than {PATIENCE:.0f} seconds"
    if ended.returncode == _REFUSED:
        said = ended.stdout.decode("utf-8", "replace")
        return f"more than {MEMORY} bytes for one decision" if _STARVED.search(said) else said
    if ended.returncode:
        return f"one decision takes more than {SECONDS} seconds, or breaks it (code {ended.returncode})"
    return ""


def _confine() -> None:
    """Take memory, time and the disk from this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as figures:
            taken = int(figures.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _decide(data: bytes) -> str:
    """Load the file and run it on zeros; what the runtime says against loading it, or that it starves."""
    import numpy as np
    import onnxruntime

    _confine()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return f"onnxruntime {onnxruntime.__version__}: {error or type(error).__name__}"
    kinds = {"float": "float32", "double": "float64"}
    given = {}
    for end in session.get_inputs():
        kind = end.type.removeprefix("tensor(").removesuffix(")")
        sizes = [size if isinstance(size, int) and size > 0 else 1 for size in end.shape]
        try:
            given[end.name] = np.zeros(sizes, kinds.get(kind, kind))
        except (TypeError, ValueError) as error:
            return f"its input {end.name} takes {end.type} {end.shape}: {error}"
    try:
        session.run(None, given)
    except Exception as error:  # zeros may be no observation of its env; that is for its reader to say
        return str(error) if _STARVED.search(str(error) or "memory") else ""
    return ""


def main() -> int:
    """Try the file on stdin; why it is refused is told to the process that started this one, with exit code 3."""
    try:
        said = _decide(sys.stdin.buffer.read())
    except MemoryError:
        said = "out of memory"
    os.write(1, said.splitlines()[0].encode("utf-8", "replace")[:500] if said else b"")
    return _REFUSED if said else 0


if __name__ == "__main__":
    sys.exit(main())
