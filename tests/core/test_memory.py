"""The peak of memory, in a process of its own: this one may fill a large block from what it has freed."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from jax_promptmtl.core.memory import peak_memory, reset_peak
reset_peak()
before = peak_memory()
block = b"x" * 2**26
assert peak_memory() > before + 2**25, "a block of 64 MiB must show"
del block
reset_peak()
assert peak_memory() < before + 2**25, "the block must be forgotten"
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux can forget a peak")
def test_the_peak_is_that_since_the_reset():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
