"""Choice of a suite and its options."""

import pytest

from configs import mini_domainnet, mmap_vit_b16, office_home
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.source import Suite, Task


@pytest.mark.parametrize(
    "config,message",
    [
        (
            {"name": "icon"},
            r"Unknown suite 'icon'; legal values: domainnet126, folder, icons, .*\. Did you mean 'icons'\?",
        ),
        (
            {"name": "folder", "root": "x", "shot": 3},
            r"Unknown option of suite 'folder' 'shot'; .* Did you mean 'shots'",
        ),
        ({"name": "folder"}, "Suite 'folder' needs the option 'root'"),
        ({"name": "tfds", "names": ()}, "Suite 'tfds' needs the option 'names'"),
        ({"name": "folder", "root": "x", "shots": -1}, "Option 'shots' of suite 'folder' is -1"),
        ({"name": "folder", "root": "x", "reserve": -1}, "Option 'reserve' of suite 'folder' is -1"),
        ({"name": "icons", "evaluate_on": "train"}, "Unknown evaluate_on 'train'; legal values: test, tune"),
    ],
)
def test_bad_options_are_one_sentence(config, message):
    with pytest.raises(UserError, match=message):
        suites.build(config)


SUITE = Suite("letters", tuple(Task(name, ("x",), ("train",), ("test",)) for name in "abc"), "hash")


def test_cut_keeps_the_named_tasks_in_the_given_order():
    assert suites.cut(SUITE, ()) == SUITE
    assert suites.cut(SUITE, ("c", "a")) == Suite("letters", (SUITE.tasks[2], SUITE.tasks[0]), "hash")


@pytest.mark.parametrize(
    "tasks,message", [(("d",), "Unknown task 'd'; legal values: a, b, c"), (("a", "a"), "names a task twice")]
)
def test_cut_refuses(tasks, message):
    with pytest.raises(UserError, match=message):
        suites.cut(SUITE, tasks)


def test_every_suite_can_be_cut(monkeypatch):
    monkeypatch.setitem(suites.SUITES, "letters", lambda *, shots: SUITE)
    assert [task.name for task in suites.build({"name": "letters", "shots": 1, "tasks": ("b",)}).tasks] == ["b"]
    with pytest.raises(UserError, match="legal values: shots, tasks"):
        suites.build({"name": "letters", "shots": 1, "task": "b"})


@pytest.mark.parametrize("config", [mini_domainnet, office_home, mmap_vit_b16])
def test_the_configs_have_only_options_that_their_suite_knows(config, tmp_path):
    suite = config.get_config().suite
    suite.root = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="There is no data folder"):
        suites.build(suite)


def test_the_papers_settings():
    office, mini = office_home.get_config(), mini_domainnet.get_config()
    assert (office.suite.shots, mini.suite.shots) == (6, 3)
    for config, size in ((office, 16), (mini, 4)):
        for part in (config, config.grouping):
            assert (part.train.batch_size, part.train.epochs, part.train.optimizer.learning_rate) == (size, 5, 0.0035)
