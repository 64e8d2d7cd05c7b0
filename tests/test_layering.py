"""Who may import whom, read from the syntax trees: ranks, the engine's ignorance of methods, and absl's one place."""

import ast
import pathlib
import re

import pytest

import jax_promptmtl
from jax_promptmtl.methods import METHODS

PACKAGE = pathlib.Path(jax_promptmtl.__file__).parent
RANKS = {
    0: "errors chunks nn tree problem metrics data typeset webpage prediction",
    1: "backbones methods sharing tasks partition",
    2: "gaze clip_mtl video_mtl video_models video_shared clip_pretrain grouping",
    3: "engine",
    4: "main __main__ pretrain tune predict export benchmark report check_data claim memory records tables features"
    " video video_job video_rows video_pretrain finetune video_benchmark video_tables video_report grid bench"
    " command predictor compare card results words"
    " clip_predictor trained track video_page object_models options",
}
RANK = {unit: rank for rank, units in RANKS.items() for unit in units.split()}
TOP = max(RANKS)
ENGINE_MAY_IMPORT = {"engine", "problem", "tree", "errors"}
METHOD_NAMES = {"mmap", "coop", "cocoop", "vpt", "maple", "ivlp", "bitfit", "adapter", "dlm", "promptsrc"}
METHOD_NAMES |= METHODS.keys() - {"none", "tokens"}  # words of their own right
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file):
    return str(file.relative_to(PACKAGE))


def unit_of(file):
    """Return the top-level module or package of a file; "" for the package's own __init__."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


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


def units(source):
    """Return the top-level units of jax_promptmtl that a source imports."""
    split = [name.split(".") for name in imports(source)]
    return {parts[1] for parts in split if parts[0] == "jax_promptmtl" and len(parts) > 1 and parts[1] in RANK}


def legal(unit, other):
    """Say whether one unit may import another: itself, errors, any lower rank; the verbs may call each other."""
    if not unit:
        return other == "trained"  # what jax_promptmtl.load imports when it is called
    return other in (unit, "errors") or RANK[other] < RANK[unit] or RANK[other] == RANK[unit] == TOP


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


def test_every_module_has_a_rank():
    # A new top-level module: give it the lowest rank in RANKS that its imports allow.
    assert {unit_of(file) for file in FILES} - {""} <= RANK.keys()
    assert {"nn", "errors", "clip_mtl", "engine", "sharing"} <= {unit_of(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_down_the_ranks(file):
    source, unit = file.read_text("utf-8"), unit_of(file)
    assert not [name for name in imports(source) if name.startswith(".")], "imports are absolute"
    wrong = {other for other in units(source) if not legal(unit, other)}
    assert not wrong, f"{name_of(file)} imports {sorted(wrong)}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "engine").glob("*.py")), ids=name_of)
def test_the_engine_knows_only_problem_tree_and_errors(file):
    assert units(file.read_text("utf-8")) <= ENGINE_MAY_IMPORT


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_absl_is_only_in_main(file):
    roots = {name.split(".")[0] for name in imports(file.read_text("utf-8"))}
    assert "absl" not in roots or name_of(file) == "main.py"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_torch_and_no_tensorflow(file):
    roots = {name.split(".")[0] for name in imports(file.read_text("utf-8"))}
    allowed = {"torch", "transformers"} if name_of(file) == "bench/peers.py" else set()  # what the benchmark beats
    assert not roots & {"torch", "torchvision", "tensorflow", "transformers", "open_clip"} - allowed


@pytest.mark.parametrize("file", [*sorted((PACKAGE / "engine").glob("*.py")), PACKAGE / "clip_mtl.py"], ids=name_of)
def test_no_method_is_named_outside_methods(file):
    assert not methods_named(file.read_text("utf-8"))


def test_the_checks_see_what_they_look_for():
    body = '    """CoOp."""\n    from jax_promptmtl.engine import loop\n    return "the MmAP"\n'
    source = '"""About mmap."""\ndef f():\n' + body
    assert units(source) == {"engine"}
    assert units("from jax_promptmtl import nn, tree\nimport jax_promptmtl.data.images") == {"nn", "tree", "data"}
    assert methods_named(source) == {"mmap"}
    assert legal("engine", "problem") and legal("main", "pretrain") and legal("nn", "errors")
    assert not legal("nn", "tree") and not legal("methods", "sharing") and not legal("grouping", "engine")
    assert imports("from . import x") == {"..x"}
