"""Eight virtual CPU devices, a persistent compilation cache and parsed flags for every test."""

import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest
from absl import flags

cache = pathlib.Path(os.environ.get("JAX_PROMPTMTL_TEST_CACHE", pathlib.Path(tempfile.gettempdir()) / "jax_promptmtl"))
jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Return a folder with clip, images, and work, the work directory of a training; leave it as it is."""
    from tests.trained import train

    folder = tmp_path_factory.mktemp("home")
    train(folder)
    return folder
