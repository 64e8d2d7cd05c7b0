"""Put two runs side by side: what differs in their configs, and by how much their results differ.

    python -m jax_promptmtl.compare runs/mmap runs/clip_maple
    python -m jax_promptmtl.compare runs/benchmark/records/mmap-a.json runs/benchmark/records/coop-b.json

RUN_A and RUN_B are work directories, or record files of a benchmark. Differences are B minus A in points, with a paired
bootstrap interval (2,000 resamples of the test drawings, 95 %) where both answered the same test images. Of videos the
metrics are compared, without intervals.
"""

import sys
from collections.abc import Sequence

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import pick

FORMATS = ("table", "json")


def start(argv: Sequence[str]) -> None:
    """Read the options and both runs, and print what differs."""
    parser = command.parser("compare", __doc__)
    parser.usage = "%(prog)s RUN_A RUN_B [options]"
    parser.add_argument("runs", metavar="RUN", nargs=2, help="work directory or record file")
    parser.add_argument("--format", default="table", help="table (default) or json")
    options = parser.parse_args(argv)
    form = pick(options.format, FORMATS, "format")
    from jax_promptmtl.reporting import compare  # imported late: --help needs no numerics

    text = compare.comparison_json if form == "json" else compare.comparison_text
    print(text(*map(compare.read_run, options.runs)))


if __name__ == "__main__":
    sys.exit(command.run(start))
