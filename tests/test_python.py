"""The package's public names: imported when used, each with an example that runs."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import jax_promptmtl

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import jax_promptmtl; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in ast.literal_eval(done.stdout)} <= {"jax_promptmtl", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", jax_promptmtl.__all__)
def test_every_name_is_there_and_in_an_example(name):
    assert getattr(jax_promptmtl, name).__doc__
    assert name in dir(jax_promptmtl) and any(re.search(rf"\bjp\.{name}\b", block) for block in BLOCKS)


def test_names_are_listed_once_and_typed():
    tree = ast.parse((ROOT / "jax_promptmtl" / "__init__.py").read_text("utf-8"))
    typed = {  # of the block that only type checkers read
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.If)
        for part in node.body
        if isinstance(part, ast.ImportFrom)
        for alias in part.names
    }
    assert {*jax_promptmtl.PLACES} | {"load"} == {*jax_promptmtl.__all__} <= typed | {"load"}
    assert sorted(jax_promptmtl.__all__) == jax_promptmtl.__all__


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="module 'jax_promptmtl' has no attribute 'lod'"):
        jax_promptmtl.lod  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'lod'"):
        exec("from jax_promptmtl import lod")


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    names = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert "Suite(" in (printed := capsys.readouterr().out) and "Problem(" in printed and "Prediction(" in printed
