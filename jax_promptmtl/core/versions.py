"""Which versions of the project and its packages run here."""

import importlib.metadata
import platform

PACKAGES = ("jax_promptmtl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that matter, and the devices."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    import jax  # only now: what reads a report needs no accelerator

    devices = jax.devices()
    return found | {"devices": f"{len(devices)} x {devices[0].device_kind}"}
