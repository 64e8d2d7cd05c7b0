"""Versions of the project, its dependencies and its devices."""

import functools
import hashlib
import importlib.metadata
import pathlib
import platform

PACKAGE = pathlib.Path(__file__).parent.parent
PACKAGES = ("jax_promptmtl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@functools.cache
def code_hash() -> str:
    """Return a hash of the package's source files, 16 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def stamp() -> dict[str, str]:
    """Return the versions stored with a checkpoint: dependencies and the hash of the project's code."""
    return {package: version_of(package) for package in PACKAGES} | {"code": code_hash()}


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that matter, and the devices."""
    found = {"python": platform.python_version()} | {package: version_of(package) for package in PACKAGES}
    import jax  # imported late: reading a report must not load jax

    devices = jax.devices()
    return found | {"devices": f"{len(devices)} x {devices[0].device_kind}"}
