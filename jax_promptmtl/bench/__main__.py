"""Entry of `python -m jax_promptmtl.bench`."""

import sys

from jax_promptmtl import command
from jax_promptmtl.bench.driver import start

sys.exit(command.run(start))
