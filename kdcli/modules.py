"""Modules that the user names: installed ones, else those in the current folder."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


def reach(name: str) -> Path | None:
    """Make the module `name` importable from the current folder; its file or folder there, where it was needed.

    The folder comes last on Python's path, so that no file in it takes the place of a module that is installed.
    """
    top = name.partition(".")[0]
    try:
        if not top.isidentifier() or find_spec(top) is not None:
            return None
    except ValueError:  # a module without a spec was put into sys.modules: it is there
        return None
    here = Path.cwd()
    found = next((path for path in (here / f"{top}.py", here / top) if path.exists()), None)
    if found is not None:
        sys.path.append(str(here))
        importlib.invalidate_caches()
    return found


def import_named(name: str) -> ModuleType:
    """Import a module that the user named.

    Raises:
        ImportError: there is none, installed or in the current folder.
    """
    reach(name)
    return importlib.import_module(name)
