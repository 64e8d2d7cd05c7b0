"""What is wrong with a command line, in one sentence: the file of the config, its preset, a key, a value, a flag."""

import ast
import difflib
import inspect
import pathlib
import runpy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from jax_promptmtl.core.errors import UserError, pick

NOT_GIVEN = "No config; give one, such as --config=configs/mmap.py."
BOOLS = {"true", "false", "t", "f", "1", "0"}


def blame(argv: Sequence[str], flags: Iterable[str]) -> str | None:
    """Return the sentence on the first mistake, or None where none is seen.

    Args:
      argv: the arguments, without the command's name.
      flags: the options that there are beside the keys of the config.
    """
    given = list(split(argv))
    try:
        config = read(next((value for name, value in given if name == "config"), None))
        for name, value in given:
            if name.removeprefix("no").startswith("config."):
                check(config, name, value)
            elif name not in flags and name.removeprefix("no") not in flags:
                return unknown(name, flags, config)
    except UserError as error:
        return str(error)
    return None


def split(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the value of every option; None where it has no value.

    >>> list(split(["--seed=1", "--workdir", "runs", "--dry_run", "--fast"]))
    [('seed', '1'), ('workdir', 'runs'), ('dry_run', None), ('fast', None)]
    """
    for place, argument in enumerate(argv):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            follows = argv[place + 1] if place + 1 < len(argv) else "-"
            yield name, value if equals else None if follows.startswith("-") else follows


def read(where: str | None) -> ConfigDict:
    """Return the config of FILE[:PRESET] as it is before anything is changed."""
    if not where:
        raise UserError(NOT_GIVEN)
    name, _, preset = where.partition(":")
    path = pathlib.Path(name)
    if path.is_dir():
        some = next((str(file) for file in sorted(path.glob("*.py"))), "configs/mmap.py")
        raise UserError(f"The config {name!r} is a folder; give one of the files in it, such as --config={some}.")
    if not path.is_file():
        near = difflib.get_close_matches(name, [str(file) for file in path.parent.glob("*.py")], n=1)
        raise UserError(f"No such file: {name!r}; " + (f"did you mean {near[0]!r}?" if near else "give a config."))
    try:
        get_config = runpy.run_path(name)["get_config"]
    except (SyntaxError, NameError) as error:
        raise UserError(f"The config {name!r} is not Python ({error}); give a file with get_config().") from error
    except KeyError as error:
        raise UserError(f"The config {name!r} has no get_config(); give a file like configs/mmap.py.") from error
    if preset and not inspect.signature(get_config).parameters:
        raise UserError(f"The config {name!r} has no presets; leave {':' + preset!r} out.")
    return get_config(preset) if preset else get_config()


def check(config: ConfigDict, option: str, value: str | None) -> None:
    """Refuse an option config.KEY whose key is not there, or whose value cannot be read."""
    key = option[option.index("config.") :]
    if "[" in key:  # an element of a tuple
        return
    here, now = "config", config
    for part in key.split(".")[1:]:
        if not isinstance(now, ConfigDict):
            raise UserError(f"{here} is a value, {now!r}, and has no keys; set it as --{here}=VALUE.")
        now = now[pick(part, now.keys(), f"key of {here}")]
        here += f".{part}"
    if isinstance(now, ConfigDict):
        first = "name" if "name" in now else next(iter(now.keys()), "KEY")
        keys = ", ".join(sorted(now.keys()))
        raise UserError(f"--{key} is a section; set a key of it, such as --{key}.{first}=VALUE; its keys: {keys}.")
    if value is not None and (kind := misfit(value, now)):
        raise UserError(f"--{key}={value}: {value!r} is not {kind}; the config has {now!r} there.")


def misfit(text: str, now: Any) -> str:
    """Return what a text should be and is not, to replace a value; empty if it will do.

    >>> misfit("3", 12), misfit("3.5", 12), misfit("3.5", None)
    ('', 'a whole number', '')
    """
    if isinstance(now, bool):
        return "" if text.lower() in BOOLS else "true or false"
    for kind, what in ((int, "a whole number"), (float, "a number")):
        if isinstance(now, kind):
            try:
                kind(text)
            except ValueError:
                return what
            return ""
    if isinstance(now, tuple | list):
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return "a Python tuple, such as \"('a','b')\""
    return ""


def unknown(name: str, flags: Iterable[str], config: ConfigDict) -> str:
    """Return the sentence on an option that there is not."""
    legal = [*flags, *(f"config.{key}" for key in config)]
    near = f"config.{name}" if name in config else next(iter(difflib.get_close_matches(name, legal, n=1)), "")
    return f"Unknown option '--{name}'; " + (f"did you mean '--{near}'?" if near else "--help shows what can be given.")
