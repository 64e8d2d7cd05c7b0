"""Office-Home in the layouts that users have, as miniature trees, and the paper's numbers on listings of true size."""

import itertools
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.suites import drawn, folder, office_home

CLASSES = ("Alarm_Clock", "Exit_Sign", "ToothBrush")
COUNTS = {"Art": 42, "Clipart": 45, "Product": 48, "Real World": 51}  # 14 to 17 in each class
LAYOUTS = {
    "distributed": ("", ("Art", "Clipart", "Product", "Real World"), str),
    "dassl": ("office_home", ("art", "clipart", "product", "real_world"), str),
    "dassl dg names": ("office_home", ("art", "clipart", "product", "real_world"), str.lower),
    "renamed": ("OfficeHomeDataset_10072016", ("Art", "Clipart", "Product", "RealWorld"), str),
    "spaces": ("", ("art", "Clip Art", "product", "Real-World"), lambda name: name.replace("_", " ")),
}


def make(root, layout="distributed"):
    """Write a miniature tree; the grey of an image is ten times its class, and loose files lie about."""
    inside, domains, spell = LAYOUTS[layout]
    home = root / inside
    for domain, count in zip(domains, COUNTS.values(), strict=True):
        for label, name in enumerate(CLASSES):
            (home / domain / spell(name)).mkdir(parents=True)
            for i in range(count // len(CLASSES)):
                Image.new("RGB", (4, 4), (10 * label,) * 3).save(home / domain / spell(name) / f"{i + 1:05d}.jpg")
        (home / domain / "index.csv").write_text("00001.jpg,Alarm_Clock")
    (home / "ImageInfo.csv").write_text("Art,Alarm_Clock,1")
    (root / "__MACOSX").mkdir()
    return home


def build(root, strict=True, counts=COUNTS, **options):
    options = {"shots": 6, "seed": 0, "reserve": 0, "manifest": ""} | options
    return office_home.suite(str(root), counts, CLASSES, strict=strict, **options)


@pytest.fixture
def home(tmp_path):
    return make(tmp_path)


def content(suite):
    """Return what a suite trains and tests on, apart from how folders are spelled."""
    halves = [(task.name, half.labels, half.names) for task in suite.tasks for half in (task.train, task.test)]
    return [(name, labels, [pathlib.PurePath(path).name for path in names]) for name, labels, names in halves]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_suite(layout, home, tmp_path_factory):
    root = tmp_path_factory.mktemp("other")
    make(root, layout)
    suite = build(root)
    assert suite.name == "office_home"
    assert {task.class_names for task in suite.tasks} == {("Alarm Clock", "Exit Sign", "ToothBrush")}
    assert [(t.name, len(t.train), len(t.train) + len(t.test)) for t in suite.tasks] == [
        (name, 18, count) for name, count in COUNTS.items()
    ]
    reference = build(home)
    assert suite.split_hash == reference.split_hash and content(suite) == content(reference)
    for source in (suite.tasks[3].train, suite.tasks[3].test):
        for i in (0, len(source) // 2, len(source) - 1):
            example = source[i]
            assert example["image"].shape == (4, 4, 3)
            np.testing.assert_allclose(example["image"], 10 * example["label"], atol=2)


def test_the_manifest_names_files_as_distributed_with_a_hash(tmp_path):
    home = make(tmp_path, "dassl dg names")
    suite = build(tmp_path)
    manifest = json.loads((home / "split_shots6_seed0_reserve0.json").read_text())
    assert manifest["sha256"] == suite.split_hash and (manifest["shots"], manifest["seed"]) == (6, 0)
    halves = manifest["tasks"]["Real World"]["Exit_Sign"]
    assert sorted(halves["train"] + halves["test"]) == [f"Real World/Exit_Sign/{i:05d}.jpg" for i in range(1, 18)]
    assert suite.tasks[3].train.names[0].startswith("real_world/alarm_clock/")


def test_shots_are_nested_and_the_rest_or_one_fixed_set_tests(home):
    built = {shots: build(home, shots=shots) for shots in (1, 3, 6, 12)}
    fixed = {shots: build(home, shots=shots, reserve=12) for shots in (1, 3, 6, 12)}
    for small, large in itertools.pairwise(built):
        for a, b in zip(built[small].tasks, built[large].tasks, strict=True):
            assert len(a.train) == 3 * small and set(a.train.names) < set(b.train.names)
            assert set(a.test.names) > set(b.test.names)
    for shots in built:
        for rest, one, last in zip(built[shots].tasks, fixed[shots].tasks, built[12].tasks, strict=True):
            assert one.train.names == rest.train.names and one.test.names == last.test.names
            assert not set(rest.train.names) & set(rest.test.names)
    assert len({s.split_hash for s in (*built.values(), *fixed.values())}) == 7  # 12 shots need no reserve


def test_the_order_of_directory_entries_does_not_matter(home, monkeypatch):
    expected = build(home)
    (home / "split_shots6_seed0_reserve0.json").unlink()
    scandir, iterdir = os.scandir, pathlib.Path.iterdir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(scandir(path), key=lambda entry: entry.name, reverse=True))
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=True)))
    assert build(home) == expected


def test_an_edited_manifest_is_refused(home):
    build(home)
    path = home / "split_shots6_seed0_reserve0.json"
    path.write_text(path.read_text().replace("00003.jpg", "00004.jpg", 1))
    with pytest.raises(UserError, match=r"does not match its sha256 .* it was edited"):
        build(home)


def test_a_manifest_drawn_otherwise_is_refused(home, tmp_path):
    path = str(tmp_path / "mine.json")
    assert build(home, manifest=path) == build(home, manifest=path)
    with pytest.raises(UserError, match=r"mine\.json' has shots=6, but the config asks for shots=3; change"):
        build(home, manifest=path, shots=3)
    with pytest.raises(UserError, match=r"has reserve=0, but the config asks for reserve=12"):
        build(home, manifest=path, reserve=12)


def test_other_counts_are_refused_unless_told_otherwise(home):
    (home / "Clipart" / "Exit_Sign" / "00007.jpg").unlink()
    with pytest.raises(UserError, match=r"\(Clipart has 44 images instead of 45\): .* suite\.strict=False"):
        build(home)
    assert len(build(home, strict=False).tasks[1].test) == 44 - 18


def test_the_published_numbers_are_checked_through_the_config(home):
    config = {"name": "office_home", "root": str(home), "shots": 3}
    with pytest.raises(UserError, match=r"lacks the classes 'Backpack', 'Batteries', .* and 57 others"):
        suites.build(config)
    suite = suites.build(config | {"strict": False, "tasks": ("Real World", "Art")})
    assert [task.name for task in suite.tasks] == ["Real World", "Art"]


def remove_domain(home):
    for file in sorted((home / "Product").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (home / "Product").rmdir()


def double_domain(home):
    (home / "real_world").mkdir()


def strange_class(home):
    (home / "Art" / "Keybord").mkdir()


def halves(home):
    for half in ("train", "val"):
        (home / "Art" / half).mkdir()
        (home / "Art" / "Exit_Sign").rename(home / "Art" / half / "Exit_Sign") if half == "train" else None


def no_class(home):
    (home / "Art" / "Exit_Sign").rename(home / "exit")


def bare_class(home):
    for file in (home / "Product" / "ToothBrush").iterdir():
        file.unlink()


def empty_file(home):
    (home / "Art" / "Exit_Sign" / "00002.jpg").write_bytes(b"")


def broken_link(home):
    (home / "Art" / "Exit_Sign" / "00002.jpg").unlink()
    (home / "Art" / "Exit_Sign" / "00002.jpg").symlink_to(home / "nowhere.jpg")


@pytest.mark.parametrize(
    "change,message",
    [
        (remove_domain, r"has no 'Product'; expected Art, Clipart, Product and 'Real World'"),
        (double_domain, r"Folders 'Real World' and 'real_world' in '.*' are both 'Real World'; remove one\."),
        (strange_class, r"holds 'Keybord', which are no Office-Home classes; expected Art/<class>/\*\.jpg"),
        (halves, r"holds 'train', 'val', which are no Office-Home classes; .* such as Art/Alarm_Clock/00001\.jpg"),
        (no_class, r"Folder '.*Art' lacks the classes 'Exit_Sign'; .* suite\.strict=False"),
        (bare_class, r"Class 'ToothBrush' of task 'Product' has no images in .* legal endings"),
        (empty_file, r"Files 'Art/Exit_Sign/00002\.jpg' in '.*' are empty \(0 bytes\) or broken links"),
        (broken_link, r"Files 'Art/Exit_Sign/00002\.jpg' in '.*' are empty \(0 bytes\) or broken links"),
    ],
)
def test_wrong_layouts_are_one_sentence(change, message, home):
    change(home)
    with pytest.raises(UserError, match=message) as error:
        build(home)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("root", ["nowhere", "archive.zip", "flat"])
def test_wrong_roots_are_one_sentence(root, tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"PK")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "00001.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"(There is no data folder|has no 'Art', 'Clipart', ).*in any spelling"):
        build(tmp_path / root)


def listing(counts, classes):
    """Make up names: the counts as published, cut unevenly, at least 15 to a class."""
    tree = {}
    for domain, count in counts.items():
        extra = np.bincount(np.random.default_rng(0).integers(0, len(classes), count - 15 * len(classes)))
        sizes = 15 + np.pad(extra, (0, len(classes) - len(extra)))
        names = zip(classes, sizes.tolist(), strict=True)
        tree[domain] = {name: [f"{domain}/{name}/{i:05d}.jpg" for i in range(size)] for name, size in names}
    return tree


@pytest.mark.parametrize("shots,each", [(1, 65), (3, 195), (6, 390), (12, 780)])
def test_the_papers_sizes(shots, each, tmp_path):
    tree = listing(office_home.COUNTS, office_home.CLASSES)
    office_home.check_counts(tree, office_home.COUNTS, tmp_path)
    suite = drawn.suite("office_home", drawn.Files(tmp_path), tree, manifest="", shots=shots, seed=1, reserve=0)
    assert [len(task.train) for task in suite.tasks] == [each] * 4
    assert [len(task.train) + len(task.test) for task in suite.tasks] == [2427, 4365, 4439, 4357]
    assert [len(task.class_names) for task in suite.tasks] == [65] * 4
    if shots in (6, 12):  # 10 % and 20 % of 15,588
        assert round(100 * 4 * each / sum(office_home.COUNTS.values()), 1) == {6: 10.0, 12: 20.0}[shots]


def test_the_classes_are_those_of_the_archive_in_its_order():
    assert len(office_home.CLASSES) == 65 and list(office_home.CLASSES) == sorted(office_home.CLASSES)
    assert len({folder.squash(name) for name in office_home.CLASSES}) == 65
