"""Own data from a folder tree."""

import json

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.sampler import Order, batches, evaluation_batches
from jax_promptmtl.data.suites import drawn, tree


@pytest.fixture
def root(tmp_path):
    """Two tasks with different class lists, 8 pictures per class whose grey says which; plus clutter."""
    grey = 0
    for task, classes in {"art": ("alarm_clock", "cup"), "photo": ("cup", "dog", "eye")}.items():
        for name in classes:
            (tmp_path / task / name).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (12, 10), (grey, grey, grey)).save(tmp_path / task / name / f"{i}.png")
                grey += 1
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "art" / "cup" / "notes.txt").write_text("not a picture")
    return tmp_path


def build(root, **options):
    return suites.build({"name": "folder", "root": str(root), "shots": 3, "seed": 0} | options)


def test_builds_tasks_with_their_own_classes(root):
    suite = build(root)
    assert [(t.name, t.class_names) for t in suite.tasks] == [
        ("art", ("alarm clock", "cup")),
        ("photo", ("cup", "dog", "eye")),
    ]
    assert [(len(t.train), len(t.test)) for t in suite.tasks] == [(6, 10), (9, 15)]
    for task in suite.tasks:
        assert not set(task.train.names) & set(task.test.names)
        for i, name in enumerate(task.train.names):
            example = task.train[i]
            assert task.class_names[example["label"]] == name.split("/")[1].replace("_", " ")
            np.testing.assert_array_equal(example["image"], np.asarray(Image.open(root / name)))


def test_the_split_is_kept_pinned_and_nested(root):
    suite = build(root)
    manifest = root / "split_shots3_seed0_reserve0.json"
    assert suite.split_hash == json.loads(manifest.read_text())["sha256"]
    Image.new("RGB", (12, 10)).save(root / "art" / "cup" / "0000.png")  # new pictures do not move the split
    assert build(root).split_hash == suite.split_hash
    manifest.unlink()
    assert build(root).split_hash != suite.split_hash
    more = build(root, shots=6)
    for small, large in zip(build(root).tasks, more.tasks, strict=True):
        assert set(small.train.names) < set(large.train.names)


def test_images_that_came_after_the_split_are_named(root):
    assert build(root).unused == () and build(root, shots=2, reserve=5).unused == ()
    Image.new("RGB", (12, 10)).save(root / "art" / "cup" / "0000.png")
    (root / "photo" / "fox").mkdir()
    Image.new("RGB", (12, 10)).save(root / "photo" / "fox" / "1.png")
    for options in ({}, {"shots": 2, "reserve": 5}):
        assert build(root, **options).unused == ("art/cup/0000.png", "photo/fox/1.png")
    (root / "split_shots3_seed0_reserve0.json").unlink()
    assert build(root).unused == ()


def test_images_left_out_are_not_new_ones(root):
    (root / "art" / "cup" / "bad.png").write_bytes(b"no picture")
    for _ in range(2):
        suite = build(root, strict=False)
        assert suite.left_out == ("art/cup/bad.png",) and suite.unused == ()


def test_a_choice_of_tasks_keeps_the_split(root):
    both, one = build(root), build(root, tasks=("photo",))
    assert [t.name for t in one.tasks] == ["photo"] and one.split_hash == both.split_hash
    assert one.tasks[0].train.names == both.tasks[1].train.names


def test_feeds_training_and_evaluation(root):
    suite = build(root)
    batch = next(batches(suite, Preprocess(8), Order(4, 0)))
    assert batch["image"].shape == (4, 8, 8, 3)
    assert sum(b["weight"].sum() for b in evaluation_batches(suite, Preprocess(8), batch_size=8)) == 25


def edit(root, change):
    """Change the manifest and sign it again, as somebody who writes their own split would."""
    from jax_promptmtl.data import fewshot

    build(root)
    path = root / "split_shots3_seed0_reserve0.json"
    tasks = json.loads(path.read_text())["tasks"]
    change(tasks)
    fewshot.write_manifest(path, tasks, shots=3, seed=0)


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match=r"There is no data folder '.*nowhere'"):
        build(tmp_path / "nowhere")


def test_no_tasks(tmp_path):
    with pytest.raises(UserError, match="has no tasks"):
        build(tmp_path)


def test_empty_class(root):
    (root / "art" / "bare").mkdir()
    with pytest.raises(UserError, match="Class 'bare' of task 'art' has no images"):
        build(root)


def test_unknown_task_in_the_options(root):
    with pytest.raises(UserError, match=r"Unknown task 'foto'; legal values: art, photo\. Did you mean 'photo'\?"):
        build(root, tasks=("foto",))


def test_unknown_task_in_the_manifest(root):
    edit(root, lambda tasks: tasks.update(music=tasks["art"]))
    with pytest.raises(UserError, match=r"Unknown task of the split .* 'music'; legal values: art, photo"):
        build(root)


def test_unknown_class_in_the_manifest(root):
    edit(root, lambda tasks: tasks["art"].update(cap=tasks["art"].pop("cup")))
    with pytest.raises(UserError, match=r"Unknown class of task 'art' of the split .* 'cap'; .* Did you mean 'cup'"):
        build(root)


def test_image_of_the_manifest_is_gone(root):
    build(root)
    (root / "art" / "cup" / "5.png").unlink()
    with pytest.raises(UserError, match=r"Images 'art/cup/5.png' of the split .* are not there"):
        build(root)


def test_no_image_left_to_test(root):
    with pytest.raises(UserError, match="Task 'art' has no images left for the test, as no class has more than 8;"):
        build(root, shots=8)
    assert not list(root.glob("split_*"))


def test_a_task_without_tests_may_be_cut_away(root):
    for number in range(5, 8):
        for place in (root / "art").iterdir():
            (place / f"{number}.png").unlink()
    assert [task.name for task in build(root, shots=5, tasks=("photo",)).tasks] == ["photo"]
    with pytest.raises(UserError, match="Task 'art' has no images left for the test"):
        build(root, shots=5)


def test_classes_with_fewer_images_than_shots_are_named(root):
    for number in range(3):
        (root / "art" / "cup" / f"{number}.png").unlink()
    suite = build(root, shots=6)
    assert drawn.fewer(suite, 6) == "fewer images than 6 train for 'cup of art (5)'" and not drawn.fewer(suite, 5)


def test_unreadable_image_names_the_file(root):
    suite = build(root)
    name = suite.tasks[0].test.names[0]
    spoil(root / name, "cut")
    with pytest.raises(UserError, match=f"Image '.*{name}' is broken"):
        list(evaluation_batches(suite, Preprocess(8), batch_size=5))


def spoil(path, how):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes({"cut": path.read_bytes()[:900], "empty": b"", "page": b"<html>404</html>"}[how])


def test_lenient_splits_leave_out_what_cannot_be_read_and_stay_as_drawn(root, monkeypatch):
    spoiled = {"art/cup/3.png": "cut", "photo/dog/0.png": "empty", "photo/eye/7.png": "page"}
    for name, how in spoiled.items():
        spoil(root / name, how)
    with pytest.raises(UserError, match=r"'photo/dog/0.png' in .* are empty"):
        build(root)
    suite = build(root, strict=False)
    assert suite.left_out == tuple(spoiled)
    used = {name for task in suite.tasks for half in (task.train, task.test) for name in half.names}
    assert len(used) == 5 * 8 - 3 and not used.intersection(spoiled)
    assert sum(batch["weight"].sum() for batch in evaluation_batches(suite, Preprocess(8), batch_size=5)) == 22
    spoil(root / "art/cup/5.png", "page")  # later: the split stays as it was drawn, whatever is in the files
    monkeypatch.setattr(drawn, "decode", pytest.fail)
    again = build(root, strict=False)
    assert again == suite


def test_lenient_splits_need_an_image_of_every_class(root):
    for i in range(8):
        spoil(root / "photo" / "dog" / f"{i}.png", "cut")
    with pytest.raises(UserError, match="Class 'dog' of task 'photo' has no image that can be read"):
        build(root, strict=False)


def test_tree_is_sorted_and_relative(root):
    assert tree.read(root).parts["train"]["art"]["cup"] == [f"art/cup/{i}.png" for i in range(8)]
