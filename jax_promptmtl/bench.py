"""Measure this project against PyTorch on the same work: `python -m jax_promptmtl.bench`.

    pip install -e '.[bench]'
    python -m jax_promptmtl.bench                              # all sections, about an hour on two cores
    python -m jax_promptmtl.bench --sections=growth,memory     # adds to what was measured before
    python -m jax_promptmtl.bench --model=small --quick        # tries everything out in minutes

Every side of a cell runs in a process of its own, built once; the driver lets them run in turns, so that no two run at
the same time and ratios are of neighbours in time. Results go to <out>/performance.json after every cell, and after
every section to performance.md and its figures.
"""

import argparse
import sys
from collections.abc import Sequence

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import pick
from jax_promptmtl.speed import SECTIONS, TASKS


def integers(text: str) -> list[int]:
    """Parse "4,16"."""
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """Parse "steps,growth"."""
    return text.split(",")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
      UserError: an unknown section or method.
    """
    parser = command.parser("bench", __doc__)
    parser.add_argument("--model", default="vit_b16", help="vit_b16, or small to try it out")
    parser.add_argument("--out", default="docs", help="folder of performance.md, performance.json and figures")
    parser.add_argument("--sections", type=words, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--methods", type=words, default=list(TASKS), help=f"some of {','.join(TASKS)}")
    parser.add_argument("--batches", type=integers, default=[4, 16], help="images per training step")
    parser.add_argument("--classes", type=int, default=65, help="class texts per task")
    parser.add_argument("--test_batch", type=int, default=100, help="images of an evaluation pass")
    parser.add_argument("--seconds", type=float, default=20, help="per cell; two rounds take as long as they take")
    parser.add_argument("--limit", type=float, default=25, help="longest torch step of the growth section, in seconds")
    parser.add_argument("--quick", action="store_true", help="one round per cell")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    options = parser.parse_args(argv)
    for section in options.sections:
        pick(section, SECTIONS, "section")
    for method in options.methods:
        pick(method, TASKS, "method")
    return options


def start(argv: Sequence[str]) -> None:
    """Run the requested sections."""
    options = parse(argv)
    from jax_promptmtl.speed import cells, driver  # imported late: --help and user errors do not wait for JAX

    pick(options.model, cells.MODELS, "model")
    driver.run(options)


if __name__ == "__main__":
    sys.exit(command.run(start))
