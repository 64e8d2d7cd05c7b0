"""Peak resident memory of this process, per run where the system can reset its counter."""

import contextlib
import pathlib
import re
import resource
import sys


def reset_peak() -> None:
    """Reset the peak counter, which only Linux supports."""
    with contextlib.suppress(OSError):  # then the peak is that of the whole process, an upper bound
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the peak of resident memory in bytes, since `reset_peak` on Linux, else of the whole process.

    >>> peak_memory() > 2**20
    True
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
