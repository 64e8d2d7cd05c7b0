"""Diagnose a bad command line in one sentence: config file, preset, key, value or flag."""

import ast
import difflib
import inspect
import pathlib
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.core.files import CONFIGS

FOLDER = pathlib.Path("configs")  # of the user's own ones
NOT_GIVEN = "No config; give one, such as --config=configs/mmap.py."
BOOLS = {"true", "false", "t", "f", "1", "0"}


def blame(argv: Sequence[str], flags: Iterable[str]) -> str | None:
    """Return a sentence on the first mistake found, or None.

    Args:
      argv: the arguments, without the command's name.
      flags: the command's options other than config keys.
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
    """Yield name and value of every option; the value is None for a bare flag.

    >>> list(split(["--seed=1", "--workdir", "runs", "--dry_run", "--fast"]))
    [('seed', '1'), ('workdir', 'runs'), ('dry_run', None), ('fast', None)]
    """
    for place, argument in enumerate(argv):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            follows = argv[place + 1] if place + 1 < len(argv) else "-"
            yield name, value if equals else None if follows.startswith("-") else follows


def located(argv: Sequence[str]) -> list[str]:
    """Replace the short name in --config by the file that it stands for.

    >>> located(["main", "--config=README.md:x", "--config", "README.md"])
    ['main', '--config=README.md:x', '--config', 'README.md']
    """
    found = list(argv)
    for place, argument in enumerate(found):
        option, equals, value = argument.partition("=")
        if option in ("-config", "--config") and equals:
            found[place] = f"{option}={locate(value)}"
        elif option in ("-config", "--config") and place + 1 < len(found):
            found[place + 1] = locate(found[place + 1])
    return found


def locate(where: str) -> str:
    """Resolve FILE[:PRESET]: a file of the user's, else a config shipped with the package.

    `mmap` is short for `configs/mmap.py`. A name that resolves to nothing is returned unchanged.
    """
    name, colon, preset = where.partition(":")
    path = pathlib.Path(name)
    if path.is_file() or not name:
        return where
    path = FOLDER / f"{name}.py" if is_short(name) else path
    choices = [path, CONFIGS / path.name] if path.parent == FOLDER else []
    return next((f"{choice}{colon}{preset}" for choice in choices if choice.is_file()), where)


def is_short(name: str) -> bool:
    """Return whether a name could be short for a file in `configs`."""
    return pathlib.PurePath(name).name == name and not name.endswith(".py")


def read(where: str | None) -> ConfigDict:
    """Load the config of FILE[:PRESET], before overrides from the command line."""
    if not where:
        raise UserError(NOT_GIVEN)
    name, _, preset = where.partition(":")
    path = pathlib.Path(locate(where).partition(":")[0])
    if path.is_dir():
        some = next((str(file) for file in sorted(path.glob("*.py"))), "configs/mmap.py")
        raise UserError(f"The config {name!r} is a folder; give one of the files in it, such as --config={some}.")
    if not path.is_file():
        near = nearest(name)
        others = f"give a file, or one of these: {', '.join(sorted(shipped()))}."
        raise UserError(f"No such file: {name!r}; " + (f"did you mean {near!r}?" if near else others))
    try:
        return call(runpy.run_path(str(path)), name, preset)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"The config {name!r} {fault(path, error)}") from error


def call(names: Mapping[str, Any], file: str, preset: str) -> ConfigDict:
    """Call get_config of an executed config file, given the namespace of the file."""
    if "get_config" not in names:
        raise UserError(f"The config {file!r} has no get_config(); give a file like configs/mmap.py.")
    get_config = names["get_config"]
    if preset and not inspect.signature(get_config).parameters:
        raise UserError(f"The config {file!r} has no presets; leave {':' + preset!r} out.")
    config = get_config(preset) if preset else get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"The config {file!r} gives no config; let get_config() return a ConfigDict.")
    return config


def fault(path: pathlib.Path, error: Exception) -> str:
    """Describe why a config file fails, as the end of a sentence."""
    if path.suffix != ".py":
        return f"is not Python ({error}); give a file with get_config()."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"stops in line {line} ({type(error).__name__}: {getattr(error, 'msg', error)}); mend the file."


def shipped() -> list[str]:
    """Return the names of the shipped configs, without their shared helper modules."""
    return [file.stem for file in CONFIGS.glob("*.py") if "def get_config(" in file.read_text("utf-8")]


def nearest(name: str) -> str | None:
    """Return the config whose name is closest to an unknown one, in a form that --config accepts."""
    beside = {file.stem: str(file) for file in pathlib.Path(name).parent.glob("*.py")}
    stems = [*shipped(), *(file.stem for file in FOLDER.glob("*.py"))]
    known = {stem: stem if is_short(name) else str(FOLDER / f"{stem}.py") for stem in stems} | beside
    near = difflib.get_close_matches(pathlib.PurePath(name).stem, known, n=1)
    return known[near[0]] if near else None


def check(config: ConfigDict, option: str, value: str | None) -> None:
    """Refuse an option config.KEY whose key does not exist or whose value does not parse."""
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
    """Return the kind of value expected where a text cannot replace `now`; empty where it can.

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
    """Return the sentence on an unknown option."""
    legal = [*flags, *(f"config.{key}" for key in config)]
    near = f"config.{name}" if name in config else next(iter(difflib.get_close_matches(name, legal, n=1)), "")
    return f"Unknown option '--{name}'; " + (f"did you mean '--{near}'?" if near else "--help shows what can be given.")
