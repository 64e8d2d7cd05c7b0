"""The verbs: one command for all, help at once, and nothing heavy before it is needed."""

import os
import pathlib
import resource
import subprocess
import sys

import pytest

import jax_promptmtl
from jax_promptmtl import __main__ as verbs
from jax_promptmtl.core.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
VERBS = sorted(verbs.VERBS)
HEAVY = ("jax", "tensorflow_datasets", "grain", "orbax", "matplotlib", "torch", "tensorboardX", "flax", "scipy")
LOOK = """
import runpy, sys
module, *sys.argv = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(end.code, sorted(set({heavy}) & set(sys.modules)))
"""


def run(*arguments, cwd=ROOT):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=env)


def look(module, *arguments, heavy=HEAVY):
    """Run a module as a program; returns the last line, which says its exit code and which heavy packages came in."""
    done = run("-c", LOOK.format(heavy=heavy), module, module, *arguments)
    assert not done.stderr or "error: " in done.stderr, done.stderr
    return done.stdout.splitlines()[-1]


def test_there_is_a_module_for_every_verb():
    doors = {path.stem for path in pathlib.Path(jax_promptmtl.__file__).parent.glob("*.py")}
    assert doors - {"__init__", "__main__", "configs"} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb):
    assert look(f"jax_promptmtl.{verb}", "--help") == "0 []"
    assert look("jax_promptmtl", verb, "--help") == "0 []"


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_comes_at_once(verb):
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run("-m", "jax_promptmtl", *filter(None, [verb]), "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # others may use the processor too

    assert min(seconds() for _ in range(2)) < 0.7


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_is_that_of_its_module(verb):
    short, long = run("-m", "jax_promptmtl", verb, "--help").stdout, run("-m", f"jax_promptmtl.{verb}", "--help").stdout
    assert short.startswith(f"usage: python -m jax_promptmtl {verb} ")
    assert short.replace(f"jax_promptmtl {verb}", f"jax_promptmtl.{verb}").split() == long.split()


def test_mistakes_and_printed_configs_do_not_wait_for_the_jobs():
    heavy = tuple({*HEAVY} - {"jax"})
    config = "--config=configs/mmap.py"
    assert look("jax_promptmtl", "main", config, "--print_config", heavy=heavy) == "0 []"
    assert look("jax_promptmtl", "main", config, "--config.seeed=1", heavy=heavy) == "2 []"
    assert look("jax_promptmtl", "predict", "nowhere", "--top=0") == "2 []"
    assert look("jax_promptmtl", "export", "nowhere", "--out=x", "--platforms=cpy") == "2 []"
    assert look("jax_promptmtl", "compare", "a", "b", "--format=xml") == "2 []"
    assert look("jax_promptmtl", "bench", "--sections=kernel") == "2 []"


def test_the_help_lists_every_verb_with_a_line():
    done = run("-m", "jax_promptmtl", "--help")
    listed = [line.split()[0] for line in done.stdout.split("verbs:\n")[1].splitlines()]
    assert done.returncode == 0 and listed == list(verbs.VERBS) and not done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert run("-m", "jax_promptmtl", "--version").stdout == f"jax_promptmtl {jax_promptmtl.__version__}\n"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["predct", "runs"], "Unknown verb 'predct'; legal values: bench, benchmark, "),
        (["Main"], "Did you mean 'main'?"),
        ([], "No verb; begin with one, such as python -m jax_promptmtl main --config=mmap; "),
        (["--config=mmap"], "No verb; begin with one, such as "),
    ],
)
def test_a_wrong_verb_is_one_sentence(arguments, sentence):
    done = run("-m", "jax_promptmtl", *arguments)
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_gets_its_arguments(verb, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["somewhere/jax_promptmtl", verb, "--dry_run", "a b"])
    assert verbs.choose(sys.argv[1:], "jax_promptmtl") is verbs.VERBS[verb]
    assert sys.argv == [f"jax_promptmtl {verb}", "--dry_run", "a b"]  # absl reads them there


def test_a_mistake_is_an_error_of_the_user():
    with pytest.raises(UserError, match="Did you mean 'export'"):
        verbs.choose(["exprt"], "jax_promptmtl")


def test_a_config_by_name_and_by_path_from_an_empty_folder(tmp_path):
    printed = {
        run("-m", *verb, f"--config={config}", "--config.seed=5", "--print_config", cwd=tmp_path).stdout
        for verb in (("jax_promptmtl", "main"), ("jax_promptmtl.main",))
        for config in ("clip:maple", "configs/clip.py:maple")
    }
    assert len(printed) == 1 and '"seed": 5' in printed.pop()
    done = run("-m", "jax_promptmtl", "benchmark", "--config=benchmark", "--print_config", cwd=tmp_path)
    assert '"job": "benchmark"' in done.stdout
    done = run("-m", "jax_promptmtl", "check_data", "--config=own_data", "--config.suite.root=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "There is no data folder 'nowhere'" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wheel_in_an_empty_folder(tmp_path):
    place, empty = tmp_path / "place", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place, wheel], check=True)
    assert (place / "jax_promptmtl" / "py.typed").exists()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(place), "JAX_PLATFORMS": "cpu"}

    def typed(*words):
        done = subprocess.run([*map(str, words)], cwd=empty, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import jax_promptmtl.configs.mmap as m; print(m.__file__)"
    assert typed(sys.executable, "-c", where).startswith(str(place))
    package = [sys.executable, "-m", "jax_promptmtl"]
    for config in ("mmap", "configs/mmap.py"):
        assert "trainable: 5,220 of" in typed(*package, "main", f"--config={config}", "--dry_run")
    printed = typed(*package, "main", "--config=clip_vit_b16:maple_deep", "--print_config")
    assert '"MaPLe-MT, all layers"' in printed
    script = place / "bin" / "jax_promptmtl"
    assert typed(script, "main", "--config=clip_vit_b16:maple_deep", "--print_config") == printed
    assert typed(script, "predict", "--help").startswith("usage: jax_promptmtl predict WORKDIR")
    assert "6 runs, 0 done" in typed(script, "benchmark", "--config=benchmark:smoke", "--dry_run")
    assert not list(empty.iterdir())
