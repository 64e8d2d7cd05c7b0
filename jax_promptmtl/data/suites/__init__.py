"""Families of data sets; each module turns its options into a `Suite`."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.source import Suite
from jax_promptmtl.data.suites import domainnet126, folder, icons, mini_domainnet, office_home, tfds

SUITES: dict[str, Callable[..., Suite]] = {
    "domainnet126": domainnet126.build,
    "folder": folder.build,
    "icons": icons.build,
    "mini_domainnet": mini_domainnet.build,
    "office_home": office_home.build,
    "tfds": tfds.build,
}


def build(config: Mapping[str, Any]) -> Suite:
    """Build the suite `config["name"]` with the other entries as its options.

    Args:
      config: {"name": a key of `SUITES`, "tasks": names to `cut` it to, ...}, such as {"name": "folder", "root":
        "photos", "shots": 6}.

    Returns:
      The suite.

    Raises:
      UserError: unknown suite, an option that it does not have or lacks, or a task without test images.
    """
    options = dict(config)
    name = pick(options.pop("name", ""), SUITES, "suite")
    tasks = options.pop("tasks", ())
    legal = inspect.signature(SUITES[name]).parameters
    for option in options:
        pick(option, {*legal, "tasks"}, f"option of suite {name!r}")
    for option, parameter in legal.items():
        if parameter.default is inspect.Parameter.empty and not options.get(option):
            raise UserError(f"Suite {name!r} needs the option {option!r}, which is not set.")
    for option in ("shots", "reserve"):
        if options.get(option, 0) < 0:
            raise UserError(f"Option {option!r} of suite {name!r} is {options[option]}; it must not be negative.")
    suite = cut(SUITES[name](**options), tasks)
    for task in suite.tasks:
        if not len(task.test):
            raise UserError(f"Task {task.name!r} has no images left for the test; ask for fewer shots or add images.")
    return suite


def cut(suite: Suite, tasks: Sequence[str]) -> Suite:
    """Keep the named tasks, in this order; shots and `split_hash` stay those of the whole suite.

    Args:
      suite: T tasks.
      tasks: names of some; empty for all.

    Returns:
      The smaller suite.
    """
    known = {task.name: task for task in suite.tasks}
    names = [pick(name, known, "task") for name in tasks or known]
    if len(set(names)) < len(names):
        raise UserError(f"Option 'tasks' of suite {suite.name!r} names a task twice ({', '.join(names)}); remove one.")
    return dataclasses.replace(suite, tasks=tuple(known[name] for name in names))
