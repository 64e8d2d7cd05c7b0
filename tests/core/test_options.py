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


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Go to an empty folder, away from the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_found_from_anywhere(name, elsewhere):
    path = str(ROOT / "configs" / f"{name}.py")
    for typed in (name, f"configs/{name}.py", f"./configs/{name}.py"):
        assert options.locate(typed) == path and options.locate(f"{typed}:x:y") == f"{path}:x:y"
        assert options.located(["main", f"--config={typed}"]) == ["main", f"--config={path}"]
        assert options.located(["main", "--config", typed, "--dry_run"]) == ["main", "--config", path, "--dry_run"]
        assert blame(f"--config={typed}") is None
    (elsewhere / name).mkdir()  # no config
    assert options.locate(name) == path


@pytest.mark.parametrize("name", ["mmap", "mine"])
def test_a_users_own_config_wins(name, elsewhere):
    own = elsewhere / "configs" / f"{name}.py"
    own.parent.mkdir()
    own.write_text("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'mine': 1})\n")
    for typed in (name, f"configs/{name}.py", f"./configs/{name}.py", str(own)):
        assert options.read(typed).mine == 1
    assert pathlib.Path(options.locate(name)) == pathlib.Path("configs", f"{name}.py")
    (elsewhere / name).write_text(own.read_text().replace("1", "2"))  # a file of that very name
    assert options.read(name).mine == 2


def test_other_options_stay_as_they_are(elsewhere):
    argv = ["mmap", "--workdir", "mmap", "--config.seed=1", "--config.suite.name", "icons", "--config"]
    assert options.located(argv) == argv
    assert options.located(["main", "--config="]) == ["main", "--config="]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_copy_elsewhere_finds_what_it_imports(name, elsewhere):
    copy = elsewhere / "copy.py"
    copy.write_text((ROOT / "configs" / f"{name}.py").read_text())
    assert options.read("copy.py").to_dict() == options.read(name).to_dict()


@pytest.mark.parametrize(
    "typed, sentence",
    [
        ("mmpa", "No such file: 'mmpa'; did you mean 'mmap'?"),
        ("mmpa:maple", "No such file: 'mmpa'; did you mean 'mmap'?"),
        ("configs/mmap", "No such file: 'configs/mmap'; did you mean 'configs/mmap.py'?"),
        ("configs/mmpa.py", "No such file: 'configs/mmpa.py'; did you mean 'configs/mmap.py'?"),
        ("mmap.py", "No such file: 'mmap.py'; did you mean 'configs/mmap.py'?"),
        ("away/clip.py", "No such file: 'away/clip.py'; did you mean 'configs/clip.py'?"),
        ("pictures", "No such file: 'pictures'; did you mean 'pictures.py'?"),
        ("configs/pictures.py", "No such file: 'configs/pictures.py'; did you mean 'configs/pictuers.py'?"),
        ("qqq", "No such file: 'qqq'; give a file, or one of these: benchmark, clip, clip_vit_b16, dlm, "),
        ("mmap:foo", "The config 'mmap' has no presets; leave ':foo' out."),
        ("clip:mapl", "Unknown preset 'mapl'; legal values: "),
        ("commn", "No such file: 'commn'; give a file, or one of these: "),  # what the others share is no config
    ],
)
def test_the_nearest_config_is_named(typed, sentence, elsewhere):
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs" / "pictuers.py").write_text("")
    (elsewhere / "pictures.py").write_text("")
    assert sentence in blame(f"--config={typed}")


@pytest.mark.parametrize("name", sorted({*SHIPPED} - {"mmap", "own_data"}))
def test_an_unknown_preset_is_one_sentence(name):
    assert "Unknown preset 'foo'; legal values: " in blame(f"--config={name}:foo")


@pytest.mark.parametrize(
    "source, sentence",
    [
        ("import numpyy\n", "stops in line 1 (ModuleNotFoundError: No module named 'numpyy'); mend the file."),
        ("def get_config():\n    return 1 / 0\n", "stops in line 2 (ZeroDivisionError: division by zero); mend"),
        ("def get_config():\n    return {}['seed']\n", "stops in line 2 (KeyError: 'seed'); mend the file."),
        ("x = 1\ndef get_config(:\n", "stops in line 2 (SyntaxError: invalid syntax); mend the file."),
        ("x = 1\n", "has no get_config(); give a file like configs/mmap.py."),
        ("def get_config():\n    pass\n", "gives no config; let get_config() return a ConfigDict."),
        ("", "has no get_config(); give a file like configs/mmap.py."),
    ],
)
def test_a_config_that_fails_says_where(source, sentence, elsewhere):
    (elsewhere / "mine.py").write_text(source)
    assert blame("--config=mine.py").startswith(f"The config 'mine.py' {sentence}")
