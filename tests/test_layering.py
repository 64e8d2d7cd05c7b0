"""Who may import whom, read from the syntax trees: ranks of rooms, no circle, short chains, and names that stay inside.

To see the structure: `python -m tests.test_layering` prints modules, arrows between them, and the longest chain.
"""

import ast
import functools
import pathlib
import re

import pytest

import jax_promptmtl
from jax_promptmtl.methods import METHODS
from jax_promptmtl.problems.video_tasks import SPECS

PACKAGE = pathlib.Path(jax_promptmtl.__file__).parent
ROOT = "jax_promptmtl"
RANKS = {  # a room imports itself and rooms of lower rank
    "core": 0,
    "data": 1,
    "engine": 1,
    "models": 2,
    "methods": 3,
    "tasks": 3,
    "problems": 4,
    "reporting": 5,
    "inference": 6,
    "experiments": 7,
    "speed": 7,
    "doors": 8,
}
ONLY = {"engine": {"core"}, "reporting": {"core", "tasks.metrics"}}  # of other rooms
LONGEST = 15  # modules in a chain of imports
METHOD_NAMES = {"mmap", "coop", "cocoop", "vpt", "maple", "ivlp", "bitfit", "adapter", "dlm", "promptsrc"}
METHOD_NAMES |= METHODS.keys() - {"none", "tokens"}  # words of their own right
ENTRY = {"", "__main__"}
LAZY = {  # what jax_promptmtl imports when it is used
    "": {
        "core.problem",
        "data.source",
        "data.suites",
        "engine.loop",
        "engine.optim",
        "engine.step",
        "inference.image_predictor",
        "inference.trained",
        "inference.video_predictor",
        "methods.clustering",
        "methods.grouping",
        "models.clip.load",
        "problems.clip_mtl",
        "problems.video_mtl",
    }
}
TASK_NAMES = set(SPECS)


def module_of(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def room_of(module):
    first = module.split(".")[0]
    return first if first in RANKS else "doors"


def imports(source):
    """Return the dotted names that a source imports anywhere, functions included; relative imports start with "."."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = "." * node.level + (node.module or "")
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return found


def modules(source):
    """Return the modules of the package that a source imports, without its packages' names."""
    found = set()
    for name in imports(source):
        parts = name.split(".")
        if parts[0] == ROOT:
            stems = [".".join(parts[1:end]) for end in range(len(parts), 0, -1)]
            found.add(next(stem for stem in stems if stem in FILES))
    return found


@functools.cache
def arrows():
    """Return module -> the modules that it imports; `__main__` imports the one verb that it is asked for."""
    return {name: modules(file.read_text("utf-8")) - {name, ""} for name, file in FILES.items() if name not in ENTRY}


def legal(module, other):
    """Say whether one module may import another."""
    room, target = room_of(module), room_of(other)
    if room == target:
        return True
    if room in ONLY:
        return any(other == name or other.startswith(f"{name}.") for name in ONLY[room])
    return RANKS[target] < RANKS[room]


def chain(graph):
    """Return the longest chain of imports; raises a ValueError that names a circle."""

    @functools.cache
    def below(name):
        return max(((name, *below(other)) for other in graph[name]), key=len, default=(name,))

    def search(name, path):
        if name in path:
            raise ValueError(" -> ".join([*path[path.index(name) :], name]))
        if name not in seen:
            for other in sorted(graph[name]):
                search(other, [*path, name])
            seen.add(name)

    seen = set()
    for name in graph:
        search(name, [])
    return max(map(below, graph), key=len)


def strings(source):
    """Return the string constants of a source without its docstrings."""
    module = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(module) if isinstance(node, documented) and is_doc(node)}
    constants = (node for node in ast.walk(module) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [node.value for node in constants if isinstance(node.value, str)]


def is_doc(node):
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


def methods_named(source):
    """Return the names of methods that occur as words in the strings of a source."""
    words = {word.lower() for text in strings(source) for word in re.findall(r"[A-Za-z]+", text)}
    return words & METHOD_NAMES


def wrong_roots(module, source):
    """Return the packages a module must not import: absl is for main, torch for the speed benchmark's peers."""
    banned = {"torch", "torchvision", "tensorflow", "transformers", "open_clip", "absl", ""}
    banned -= {"main": {"absl"}, "speed.peers": {"torch", "transformers"}}.get(module, set())
    return {name.split(".")[0] for name in imports(source)} & banned


def test_rooms_import_rooms_below_without_a_circle_and_in_short_chains():
    wrong = {f"{name} -> {other}" for name, found in arrows().items() for other in found if not legal(name, other)}
    assert not wrong, "\n".join(sorted(wrong))
    assert modules(FILES[""].read_text("utf-8")) - {""} <= LAZY[""]
    longest = chain(arrows())
    assert len(longest) <= LONGEST, " -> ".join(longest)
    top = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_dir() for path in top) <= 12 and sum(path.is_file() for path in top) <= 12


def test_some_names_stay_where_they_belong():
    sources = {name: file.read_text("utf-8") for name, file in FILES.items()}
    wrong = {name: found for name, source in sources.items() if (found := wrong_roots(name, source))}
    assert not wrong
    neutral = [name for name in sources if room_of(name) == "engine" or name == "problems.clip_mtl"]
    assert not set().union(*(methods_named(sources[name]) for name in neutral))


def test_no_task_of_videos_is_asked_for_by_name():
    where = ("data.", "problems.video_tasks")  # data sets say whose they are
    named = {name: TASK_NAMES.intersection(strings(file.read_text("utf-8"))) for name, file in FILES.items()}
    wrong = {name: found for name, found in named.items() if found and not name.startswith(where)}
    wrong.pop("reporting.video_layout")  # for records that do not say the order of their tasks
    assert TASK_NAMES and not wrong


def test_the_checks_see_what_they_look_for():
    body = '    """CoOp."""\n    from jax_promptmtl.engine import loop\n    return "the MmAP"\n'
    source = '"""About mmap."""\ndef f():\n' + body
    assert modules(source) == {"engine.loop"}
    assert modules("from jax_promptmtl.core import tree\nimport jax_promptmtl.data.images") == {
        "core.tree",
        "data.images",
    }
    assert methods_named(source) == {"mmap"}
    assert legal("main", "experiments.image.tune") and legal("main", "benchmark") and legal("data.images", "core.tree")
    assert legal("reporting.compare", "tasks.metrics.paired") and not legal("reporting.compare", "tasks.spatial")
    assert not legal("core.tree", "data.images") and not legal("methods.mmap", "tasks.spatial")
    assert not legal("engine.loop", "data.images") and not legal("inference.export", "export")
    assert wrong_roots("data.images", "import torch\nfrom . import x\nfrom absl import flags") == {"torch", "absl", ""}
    assert chain({"a": {"b"}, "b": set()}) == ("a", "b")
    with pytest.raises(ValueError, match="a -> b -> a"):
        chain({"a": {"b"}, "b": {"a"}})


if __name__ == "__main__":
    graph = arrows()
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} arrows")
    print("longest chain: " + " -> ".join(chain(graph)))
