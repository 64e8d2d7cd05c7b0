"""The configs shipped with the package: `from jax_promptmtl.configs import mmap`.

In a checkout they are the folder `configs` beside the package; a wheel has them inside.
"""

from jax_promptmtl.core.files import CONFIGS

__path__ = [str(CONFIGS)]  # makes this module a package of the files there
