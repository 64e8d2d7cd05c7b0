"""The benchmark job: every method on every suite, number of shots and seed; one record per run.

    python -m jax_promptmtl.benchmark --config=configs/benchmark.py

A run is done when its record is on disk, written in one move. A rerun does what is missing. Several processes share a
grid through claims. Task groups are learned once per suite, shots and seed, for all methods that want them.
"""

import sys

from jax_promptmtl import main as command_line


def main() -> int:
    """Run and return the exit code."""
    return command_line.main(verb="benchmark", doc=__doc__)


if __name__ == "__main__":
    sys.exit(main())
