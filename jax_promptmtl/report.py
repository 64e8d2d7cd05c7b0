"""The report of a benchmark, from its records alone: report.md with pictures, the same as one HTML file, CSV, LaTeX.

    python -m jax_promptmtl.report RUNS_DIR [--out=FOLDER] [--pack=FILE]

RUNS_DIR is a folder of runs or a file that --pack wrote, which holds all records (.jsonl or .jsonl.gz).
"""

import pathlib
import sys
from collections.abc import Sequence

from jax_promptmtl.core import command


def start(argv: Sequence[str]) -> None:
    """Parse the options and write the report or the packed records."""
    parser = command.parser("report", __doc__)
    parser.usage = "%(prog)s RUNS_DIR [options]"
    parser.add_argument("place", metavar="RUNS_DIR", type=pathlib.Path, help="folder of runs, or a packed file")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the report; by default RUNS_DIR/report")
    parser.add_argument("--pack", type=pathlib.Path, help="also write all records into one file, .jsonl or .jsonl.gz")
    options = parser.parse_args(argv)
    from jax_promptmtl.reporting import benchmark, records  # imported late: --help needs neither numerics nor figures

    beside = options.place if options.place.is_dir() else options.place.parent
    folder = options.out or beside / "report"
    for line in benchmark.write_benchmark(options.place, folder):
        print(line, file=sys.stderr)
    if options.pack:
        found, _ = records.read_all(options.place)
        records.pack(options.pack, found)
        print(f"{options.pack}: {len(found)} records, {options.pack.stat().st_size / 1024:,.0f} KiB")
    print(f"{folder / 'report.md'} has tables and pictures, report.html all in one file; .tex and .csv lie beside it.")


if __name__ == "__main__":
    sys.exit(command.run(start))
