"""How much memory may be asked for by what a file describes and nobody can bound beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcli.errors import KdcliError, out_of_memory

_STATM = Path("/proc/self/statm")


@contextmanager
def within_memory(most: int, refusal: KdcliError) -> Iterator[None]:
    """Let the work inside take at most `most` bytes more than this process has; raise `refusal` where it asks for more.

    The system does the counting, so that what is asked for is never taken. Where it does not count (Windows, macOS),
    the work is not bounded.
    """
    with _limited(most) as limited:
        try:
            yield
        except Exception as error:
            if not limited or out_of_memory(error) is None:
                raise
            refusal.within_bounds = True
            raise refusal from None


@contextmanager
def _limited(most: int) -> Iterator[bool]:
    """Whether the address space of this process is limited."""
    try:
        import resource

        taken = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield False
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [n for n in (taken + most, soft, hard) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
