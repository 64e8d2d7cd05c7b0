"""Eight virtual CPU devices, a persistent compilation cache and parsed flags for every test."""

import fcntl
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

    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place  # the workers share one
    with (place / "home.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (place / "home" / "work" / "results.json").exists():
            (place / "home").mkdir(exist_ok=True)
            train(place / "home")
    return place / "home"
