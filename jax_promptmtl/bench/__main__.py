"""Entry of `python -m jax_promptmtl.bench`."""

import sys

from jax_promptmtl.bench.driver import main

sys.exit(main())
