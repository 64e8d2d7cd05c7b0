"""Look at the data of a config before training on it: counts, missing and broken files, pictures that train and test.

    python -m jax_promptmtl.check_data --config=configs/video_full.py:ucf101 --config.data.root=UCF101
    python -m jax_promptmtl.check_data --config=configs/mmap_vit_b16.py --config.suite.root=photos

Every file is opened; with --fast it only has to be there, and with --full every frame of videos is decoded: what that
finds is kept, so that it can be stopped and goes on. Nothing is downloaded. Exit codes: 0 all is well; 2 problems,
which are listed.
"""

import argparse
import sys
from collections.abc import Sequence

from jax_promptmtl import main as command_line
from jax_promptmtl.core import command
from jax_promptmtl.core.errors import UserError


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return this command's options, and the arguments of the config."""
    parser = command.parser("check_data", __doc__)
    parser.usage = "%(prog)s --config=FILE[:PRESET] [--config.KEY=VALUE ...] [options]"
    parser.add_argument("--fast", action="store_true", help="do not open the files")
    parser.add_argument("--full", action="store_true", help="decode every frame of video files")
    parser.add_argument("--kept", default="check_data.jsonl", help="file of what --full has found, to go on from")
    return parser.parse_known_args(argv)


def run(argv: Sequence[str]) -> None:
    """Check and print; any problem is a user error."""
    options, rest = parse(argv[1:])
    if options.fast and options.full:
        raise UserError("--fast opens no file and --full decodes all of each; give one of them.")
    from jax_promptmtl.experiments.check_data import check

    config = command_line.parse([argv[0], *rest])
    found = check(config, fast=options.fast, full=options.kept if options.full else "")
    for line in found.text:
        print(line)
    for remark in found.remarks:
        print(f"note: {remark}")
    for problem in found.problems:
        print(f"problem: {problem}")
    if found.problems:
        raise UserError(f"The data has problems ({len(found.problems)} listed above).")
    print("No problem found." if not options.fast else "No problem found; without --fast every file is opened too.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    return command.guard(lambda: run(sys.argv if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
