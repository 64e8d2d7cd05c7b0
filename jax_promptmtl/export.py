"""Export what was trained: classifiers that run with jax alone, and the prompts as safetensors.

    python -m jax_promptmtl.export runs/mmap --out=classifier

Each task becomes <task>.stablehlo: preprocessed images of any number in, logits and probabilities out; backbone,
prompts and class features are inside. prompts.safetensors and config.json load again with jax_promptmtl.load. README.md
in the folder shows how to use both. All is read back and compared before the command says that it is done.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jax_promptmtl.core import command
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.inference import LEGAL, PLATFORMS
from jax_promptmtl.predict import add_options, names


def parse(argv: Sequence[str]) -> Any:
    """Read the options."""
    parser = command.parser("export", __doc__)
    parser.usage = "%(prog)s WORKDIR --out=DIR [options]"
    parser.add_argument("workdir", metavar="WORKDIR", type=pathlib.Path, help="work directory of a finished training")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--task", type=names, metavar="A,B", help="which tasks; all by default")
    parser.add_argument("--platforms", type=names, metavar="A,B", default=PLATFORMS, help=f"of {','.join(LEGAL)}")
    add_options(parser)
    options = parser.parse_args(argv)
    for platform in options.platforms:
        pick(platform, LEGAL, "platform")
    return options


def start(argv: Sequence[str]) -> None:
    """Parse the options, export, and report the files written."""
    options = parse(argv)
    from jax_promptmtl.inference import image_predictor  # imported late: --help and user errors do not wait for JAX
    from jax_promptmtl.inference.export import export

    if options.out.is_dir() and any(options.out.iterdir()) and not (options.out / image_predictor.PROMPTS).exists():
        raise UserError(f"The folder {str(options.out)!r} holds something else; give an empty or a new one as --out.")
    model = image_predictor.load(options.workdir, classes=options.classes, backbone=options.backbone)
    tasks = [pick(task, model.tasks, "task") for task in options.task or model.tasks]
    try:
        for line in export(model, options.out, tasks, options.platforms):
            print(line, flush=True)
    except OSError as error:
        raise UserError(f"Cannot write to {str(options.out)!r}: {error.strerror}; give another --out.") from error


if __name__ == "__main__":
    sys.exit(command.run(start))
