"""What the documentation tells people to type, typed: tutorial, README's cheap commands, notebooks; and the site."""

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path):
    """Return a folder that looks like the repository's root, and in which files may be written."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def run(language, code, place):
    """Run a block of a document; returns what it printed."""
    command = {"python": [sys.executable, "-c", code], "bash": ["bash", "-euo", "pipefail", "-c", code]}[language]
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": path}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert "\x1b" not in done.stdout + done.stderr and "%|" not in done.stderr
    return done.stdout


def test_own_data_from_pictures_to_a_classifier(place):
    blocks = BLOCK.findall((ROOT / "docs" / "own_data.md").read_text("utf-8"))
    printed = [run(language, code, place) for language, code in blocks]
    assert len(list((place / "pictures").rglob("*.png"))) > 100 and len(printed) == 11
    assert "line: 6 classes, 24 images to train" in printed[2]  # of the table
    assert "line 6 classes, 24 train" in printed[3]
    found = re.search(r"^average +\d+ +([\d.]+) +([\d.]+)", printed[4], re.MULTILINE)
    before, after = map(float, found.groups())
    assert min(before, after) > 100 / 6
    answers = (place / "answers.csv").read_text().splitlines()
    assert len(answers) == 1 + len(list((place / "pictures" / "real").rglob("*.png")))
    assert "('line', 'real')" in printed[7] and "(2, 6)" in printed[9]
    assert "grouping/source" in printed[10] and "average" in printed[10]


def test_the_readme_block_in_python():
    ((_, code),) = [block for block in BLOCK.findall((ROOT / "README.md").read_text("utf-8")) if block[0] == "python"]
    assert run("python", code + "\nprint(sorted(problem.params))", ROOT) == "['backbone', 'method']\n"


def test_the_readme_commands_that_train_nothing(place):
    commands = re.findall(r"`([^`]*--(?:print_config|dry_run)[^`]*)`", (ROOT / "README.md").read_text("utf-8"))
    assert len(commands) >= 2
    for command in commands:
        printed = run("bash", command.replace("...", "python -m jax_promptmtl.main"), place)
        assert "trainable: 5,220 of" in printed if "--dry_run" in command else '"job": "tune"' in printed
    assert not (place / "runs").exists()


@pytest.mark.parametrize("name", ["images", "video"])
def test_the_notebooks(name, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = ROOT / "docs" / "notebooks"
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    start = time.monotonic()
    resources = {"metadata": {"path": str(folder)}}
    done = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert time.monotonic() - start < 300  # less than one minute where nothing else runs
    kinds = {kind for cell in done.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    printed = "".join(o.get("text", "") for cell in done.cells for o in cell.get("outputs", []))
    assert "image/png" in kinds and str(tmp_path) not in printed
    assert ("trainable parameters" in printed) if name == "images" else ("PromptCard" in printed)


def test_the_site(tmp_path):
    pytest.importorskip("material")  # with --quiet, --strict would count no warning
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name: path.read_text("utf-8") for path in (tmp_path / "site").rglob("index.html")}
    assert {"methods", "own_data", "launch", "limits", "performance", "reliability", "api"} <= set(pages)
    assert "jax_promptmtl.inference.image_predictor.Predictor.predict" in pages["api"]
    assert "<blockquote>" not in pages["api"]  # examples are code
    for page in pages.values():
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://", page)
