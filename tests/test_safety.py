"""No call in the package runs code that a file or a string brings along, except those named here with a reason."""

import ast
import pathlib

import pytest

import jax_promptmtl

PACKAGE = pathlib.Path(jax_promptmtl.__file__).parent
NEVER = {  # runs what it is given, whatever its arguments
    *("eval", "exec", "compile", "__import__"),
    *("code.InteractiveInterpreter", "code.interact", "runpy.run_module", "runpy.run_path"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *(
        f"{module}.{name}"
        for module in ("pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal")
        for name in ("load", "loads", "Unpickler")
    ),
    *(
        "pandas.read_pickle",
        "shelve.open",
        "shelve.DbfilenameShelf",
        "jsonpickle.decode",
        "torch.load",
        "tempfile.mktemp",
    ),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all")),
    *("numpy.lib.format.read_array", "asyncio.create_subprocess_shell", "importlib.import_module"),
}
SWITCHES = {  # runs what it is given where an argument is not False
    "allow_pickle": {"numpy.load"},
    "shell": {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")},
}
REASONS = {  # (file, what it calls there once): why that is safe
    ("core/options.py", "runpy.run_path"): "a configuration is Python: the file that the user names",
    ("__init__.py", "importlib.import_module"): "a name of the table PLACES, of this package",
    ("methods/make.py", "importlib.import_module"): "the method that the user's own configuration asks for",
}


def names_of(tree):
    """Return {name in the file: full name} of its imports, wherever they stand."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full_name(node, names):
    """Return the dotted name of an expression, through the file's imports; None where it has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id).removeprefix("builtins.")
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, names)
        return owner and f"{owner}.{node.attr}".removeprefix("builtins.")
    return None


def is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def findings(source):
    """Return (line, what) for each use in Python source that the tables above forbid.

    A forbidden name is found wherever it is mentioned, so passing it on (`map(eval, lines)`) counts as a call.
    """
    tree = ast.parse(source)
    names = names_of(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = full_name(node, names)
            if name in NEVER:
                found.add((node.lineno, name))
        elif isinstance(node, ast.Call):
            name = full_name(node.func, names)
            for word in node.keywords:
                if word.arg is None and any(name in calls for calls in SWITCHES.values()):
                    found.add((node.lineno, f"{name}(**)"))
                elif name in SWITCHES.get(word.arg, ()) and not is_false(word.value):
                    found.add((node.lineno, f"{name}({word.arg}=)"))
            if name == "numpy.load" and len(node.args) > 2:  # allow_pickle is its third
                found.add((node.lineno, f"{name}(allow_pickle=)"))
    return sorted(found)


def test_the_package_runs_nothing_that_it_reads():
    found = [
        (file.relative_to(PACKAGE).as_posix(), what, line)
        for file in sorted(PACKAGE.rglob("*.py"))
        for line, what in findings(file.read_text(encoding="utf-8"))
    ]
    assert [use for use in found if use[:2] not in REASONS] == []
    assert sorted(use[:2] for use in found) == sorted(REASONS), "a reason is for one call, and not for none"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle\npickle.loads(data)", "pickle.loads"),
        ("import pickle as p\np.load(file)", "pickle.load"),
        ("from pickle import Unpickler as U\nU(file).load()", "pickle.Unpickler"),
        ("def f():\n    from _pickle import loads\n    return loads(data)", "_pickle.loads"),
        ("eval(text)", "eval"),
        ("list(map(eval, lines))", "eval"),
        ("import builtins\nbuiltins.exec(text)", "exec"),
        ("from builtins import eval as e\ne(text)", "eval"),
        ("import os\nos.system(line)", "os.system"),
        ("import os.path\nos.popen(line)", "os.popen"),
        ("import subprocess\nsubprocess.run(line, shell=True)", "subprocess.run(shell=)"),
        ("from subprocess import Popen\nPopen(line, shell=chosen)", "subprocess.Popen(shell=)"),
        ("import subprocess\nsubprocess.run(line, **options)", "subprocess.run(**)"),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", "numpy.load(allow_pickle=)"),
        ("from numpy import load\nload(path, None, True)", "numpy.load(allow_pickle=)"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("import torch\ntorch.load(path)", "torch.load"),
    ],
)
def test_a_forbidden_call_is_found_under_any_name(source, what):
    assert [found for _, found in findings(source)] == [what]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)\nnp.load(path)",
        "import subprocess\nsubprocess.run(['git', 'status'])\nsubprocess.run(words, shell=False)",
        "import yaml\nyaml.safe_load(text)",
        "import re\nre.compile(pattern)\nmodel.eval()\nstep.lower(batch).compile()",
        "import pickletools\npickletools.genops(stream)",
        "text = 'eval(pickle.loads(data))'  # os.system",
    ],
)
def test_harmless_calls_are_not_found(source):
    assert findings(source) == []
