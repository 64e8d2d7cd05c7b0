"""What is said about a wrong command line."""

import pathlib

import pytest

from jax_promptmtl.core import options

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ("config", "dry_run", "workdir")


def blame(*arguments):
    return options.blame(arguments, FLAGS)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--config=configs/mmpa.py"], "No such file: 'configs/mmpa.py'; did you mean 'configs/mmap.py'?"),
        (["--config=configs"], "The config 'configs' is a folder; give one of the files in it, such as"),
        (["--config=README.md"], "The config 'README.md' is not Python"),
        (["--config=pyproject.toml"], "The config 'pyproject.toml' is not Python"),
        (["--config=configs/mmap.py:foo"], "The config 'configs/mmap.py' has no presets; leave ':foo' out."),
        (["--config.seed=3"], "No config; give one, such as --config=configs/mmap.py."),
        (["--config=configs/mmap.py", "--dryrun"], "Unknown option '--dryrun'; did you mean '--dry_run'?"),
        (["--config", "configs/mmap.py", "--seed=3"], "Unknown option '--seed'; did you mean '--config.seed'?"),
        (["--config=configs/mmap.py", "--what"], "Unknown option '--what'; --help shows what can be given."),
        (["--config=configs/mmap.py", "--config.suite.shot=6"], "Unknown key of config.suite 'shot'; legal values: "),
        (["--config=configs/mmap.py", "--config.suiite.shots=6"], "Did you mean 'suite'?"),
        (
            ["--config=configs/mmap.py", "--config.suite.shots=six"],
            "--config.suite.shots=six: 'six' is not a whole number; the config has 12 there.",
        ),
        (["--config=configs/mmap.py", "--config.suite.shots", "six"], "'six' is not a whole number"),
        (["--config=configs/mmap.py", "--config.augment.flip=no"], "'no' is not a number; the config has 0.0 there."),
        (["--config=configs/own_data.py", "--config.suite.strict=nein"], "'nein' is not true or false"),
        (
            ["--config=configs/mmap.py", "--config.grouping.groups=line"],
            "'line' is not a Python tuple, such as \"('a','b')\"; the config has () there.",
        ),
        (
            ["--config=configs/mmap.py", "--config.train.optimizer=sgd"],
            "--config.train.optimizer is a section; set a key of it, such as --config.train.optimizer.name=VALUE; its "
            "keys: b2, clip, learning_rate,",
        ),
        (
            ["--config=configs/mmap.py", "--config.suite.name.x=1"],
            "config.suite.name is a value, 'icons', and has no keys; set it as --config.suite.name=VALUE.",
        ),
    ],
)
def test_the_mistake_is_named(arguments, sentence):
    assert sentence in blame(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=configs/clip.py:maple", "--config.suite.shots=6", "--dry_run", "--workdir=runs/six"],
        ["--config", "configs/mmap.py", "--config.seed", "3", "--workdir", "runs/six"],
        ["--config=configs/own_data.py", "--noconfig.suite.strict", "--config.suite.strict", "--nodry_run"],
        ["--config=configs/mmap.py", "--config.method.sets=('task',)", "--config.augment.flip=1"],
        ["--config=configs/mmap.py", "--config.train.optimizer.clip=0.5"],
        ["--config=configs/mmap.py", "--config.augment.scale[0]=0.5"],
    ],
)
def test_right_command_lines_have_nothing_to_blame(arguments):
    assert blame(*arguments) is None
