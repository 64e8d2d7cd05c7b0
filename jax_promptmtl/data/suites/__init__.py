"""Families of data sets; each module turns its options into a `Suite`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import folder, icons, tfds
from jax_promptmtl.errors import UserError, pick

SUITES: dict[str, Callable[..., Suite]] = {"icons": icons.build, "folder": folder.build, "tfds": tfds.build}


def build(config: Mapping[str, Any]) -> Suite:
    """Build the suite `config["name"]` with the other entries as its options.

    Args:
      config: {"name": a key of `SUITES`, ...}, such as {"name": "folder", "root": "photos", "shots": 6}.

    Returns:
      The suite.

    Raises:
      UserError: unknown suite, or an option that it does not have or lacks.
    """
    options = dict(config)
    name = pick(options.pop("name", ""), SUITES, "suite")
    legal = inspect.signature(SUITES[name]).parameters
    for option in options:
        pick(option, legal, f"option of suite {name!r}")
    for option, parameter in legal.items():
        if parameter.default is inspect.Parameter.empty and not options.get(option):
            raise UserError(f"Suite {name!r} needs the option {option!r}, which is not set.")
    if options.get("shots", 0) < 0:
        raise UserError(f"Option 'shots' of suite {name!r} is {options['shots']}; it must not be negative.")
    return SUITES[name](**options)
