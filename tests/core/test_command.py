"""The manners that all verbs share."""

import io
import os
import subprocess
import sys

import pytest

import jax_promptmtl
from jax_promptmtl import bench, benchmark, check_data, compare, export, main, predict, report
from jax_promptmtl.core import command
from jax_promptmtl.core.errors import Preempted, UserError

VERBS = {
    "main": lambda argv: main.main(["main", *argv]),
    "benchmark": lambda argv: main.main(["benchmark", *argv], verb="benchmark", doc=benchmark.__doc__),
    "bench": lambda argv: command.run(bench.start, argv),
    "check_data": lambda argv: check_data.main(["check_data", *argv]),
    "compare": lambda argv: command.run(compare.start, argv),
    "export": lambda argv: command.run(export.start, argv),
    "predict": lambda argv: command.run(predict.start, argv),
    "report": lambda argv: command.run(report.start, argv),
}
SCREEN = 40, 120  # lines and columns


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_on_one_screen(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(SCREEN[1]))
    with pytest.raises(SystemExit) as stopped:
        VERBS[verb](["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0 and f"python -m jax_promptmtl.{verb} " in lines[0]
    assert len(lines) <= SCREEN[0] and max(map(len, lines)) <= SCREEN[1]


@pytest.mark.parametrize("verb", VERBS)
def test_version(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        VERBS[verb](["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"jax_promptmtl {jax_promptmtl.__version__}\n"


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_help_about_files_needs_neither_jax_nor_matplotlib(verb):
    heavy = ("jax", "jaxlib", "flax", "orbax", "matplotlib")
    code = f"import atexit, runpy, sys; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules])); "
    code += f"sys.argv = ['{verb}', '--help']; runpy.run_module('jax_promptmtl.{verb}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and done.stdout.splitlines()[-1] == "[]"


def test_exit_codes(capsys):
    def stop(error):
        def job():
            raise error

        return command.guard(job)

    codes = {UserError("Give one."): 2, Preempted("later"): 75, KeyboardInterrupt(): 130}
    assert {error: stop(error) for error in codes} == codes and command.guard(lambda: None) == 0
    assert capsys.readouterr().err == "error: Give one.\n\nlater\n\ninterrupted\n"
    assert stop(ZeroDivisionError("a bug")) == 1
    assert capsys.readouterr().err.endswith("ZeroDivisionError: a bug\n")


def test_colours_are_for_terminals(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert command.paint("a", "bold", Terminal()) == "\x1b[1ma\x1b[0m"
    assert command.paint("a", "bold", io.StringIO()) == "a"
    monkeypatch.setenv("NO_COLOR", "1")
    assert command.paint("a", "bold", Terminal()) == "a"


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from jax_promptmtl.core import command\n"
    code += "sys.exit(command.guard(lambda: [print('line', flush=True) for _ in range(99999)] and None))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == command.EXIT_PIPE


def test_the_package_itself_imports_nothing():
    code = "import sys, jax_promptmtl; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
