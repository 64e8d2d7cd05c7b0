"""Construct the method that a config names: one of `METHODS`, or a user's class."""

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.methods import METHODS
from jax_promptmtl.methods.method import Method

NO_OPTIONS = ("parent", "name")  # fields that every Linen module has


def make_method(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> Method:
    """Construct the method that `config["name"]` names.

    Args:
      config: `name`, a key of `METHODS` or "package.module:Class"; the other keys are the method's options.
      sizes: sizes of the models; the method gets those that it declares as fields.

    Raises:
      UserError: an unknown method, or an unknown or missing option.
    """
    name = config["name"]
    constructor = imported(name) if ":" in name else METHODS[pick(name, METHODS, "method")]
    fields = {key: field for key, field in constructor.__dataclass_fields__.items() if key not in NO_OPTIONS}
    options = {key: value for key, value in config.items() if key != "name"}
    for option in options:
        pick(option, [key for key in fields if key not in sizes], f"option of the method {name!r}")
    given = sizes.keys() | options.keys()
    if lacking := [key for key, field in fields.items() if needed(field) and key not in given]:
        raise UserError(f"The method {name!r} needs the option {lacking[0]!r}; set config.method.{lacking[0]}.")
    made: Method = constructor(**{key: size for key, size in sizes.items() if key in fields}, **options)
    return made


def needed(field: Field[Any]) -> bool:
    """Return whether a field has no default."""
    return field.init and field.default is MISSING and field.default_factory is MISSING


def imported(name: str) -> Any:
    """Import a method from outside the package, given as "package.module:Class"."""
    path, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(path), attribute)
    except Exception as error:  # importing the module may raise anything
        why = " ".join(str(error).split())
        raise UserError(
            f"Cannot import the method {name!r} ({type(error).__name__}: {why}); give package.module:Class of a module "
            "that Python finds from here, or a method of the package."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        why = f"The method {name!r} is no subclass of jax_promptmtl.methods.method.Method"
        raise UserError(f"{why}; derive it from that class.")
    return found
