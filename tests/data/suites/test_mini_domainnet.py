"""MiniDomainNet in Dassl's layout, as a miniature, and the paper's numbers on a listing of true size."""

import json

import pytest
from PIL import Image

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import suites
from jax_promptmtl.data.suites import drawn, mini_domainnet

CLASSES = ("umbrella", "teddy-bear", "The_Great_Wall_of_China")  # in the order of their labels, not of the alphabet
TRAIN, TEST = 8, 4  # files per class in the split files
IMAGES = 4 * len(CLASSES) * (TRAIN + TEST)


@pytest.fixture
def home(tmp_path):
    """Write the images, images that are in no split file, and the split files."""
    home = tmp_path / "domainnet"
    (home / "splits_mini").mkdir(parents=True)
    for domain in mini_domainnet.DOMAINS:
        lines = []
        for label, name in enumerate(CLASSES):
            (home / domain / name).mkdir(parents=True)
            for i in range(TRAIN + TEST + 1):
                Image.new("RGB", (5, 4), (20 * label,) * 3).save(home / domain / name / f"{domain}_{i:06d}.jpg")
                lines.append((i, f"{domain}/{name}/{domain}_{i:06d}.jpg {label}\n"))
        (home / domain / "zebra").mkdir()
        for half, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
            text = "".join(line for i, line in lines if i in numbers)
            (home / "splits_mini" / f"{domain}_{half}.txt").write_text(text)
    return home


def build(root, strict=True, pool="union", **options):
    options = {"shots": 3, "seed": 0, "reserve": 0, "manifest": ""} | options
    return mini_domainnet.suite(str(root), IMAGES, len(CLASSES), strict=strict, pool=pool, **options)


@pytest.mark.parametrize("levels", [0, 1])
def test_labels_names_and_sizes(home, levels):
    suite = build([home, home.parent][levels])
    assert suite.name == "mini_domainnet"
    assert [task.name for task in suite.tasks] == ["clipart", "painting", "real", "sketch"]
    for task in suite.tasks:
        assert task.class_names == ("umbrella", "teddy-bear", "The Great Wall of China")
        assert (len(task.train), len(task.test)) == (9, 3 * (TRAIN + TEST) - 9)
        assert not set(task.train.names) & set(task.test.names)
        for i in range(0, len(task.test), 5):
            assert abs(int(task.test[i]["image"].max()) - 20 * task.test[i]["label"]) <= 2
            assert task.test.names[i].split("/")[1] == CLASSES[task.test[i]["label"]]


def numbers(source):
    return {int(name[-10:-4]) for name in source.names}


def test_the_pool_is_both_files_or_dassls_train_file(home):
    union, dassl = build(home, shots=7), build(home, shots=7, pool="dassl")
    assert numbers(dassl.tasks[0].train) <= set(range(TRAIN))
    assert max(numbers(union.tasks[0].train)) >= TRAIN and TRAIN + TEST not in numbers(union.tasks[0].test)
    for task in dassl.tasks:
        listed = (home / "splits_mini" / f"{task.name}_test.txt").read_text().splitlines()
        assert sorted(task.test.names) == sorted(line.split(" ")[0] for line in listed)
    assert union.split_hash != dassl.split_hash
    manifest = json.loads((home / "split_shots7_seed0_reserve0_pooldassl.json").read_text())
    assert manifest["pool"] == "dassl" and manifest["sha256"] == dassl.split_hash


def test_shots_are_nested(home):
    for pool in ("union", "dassl"):
        few, more = build(home, pool=pool, shots=3), build(home, pool=pool, shots=6)
        assert all(set(a.train.names) < set(b.train.names) for a, b in zip(few.tasks, more.tasks, strict=True))


def test_the_order_of_lines_does_not_matter(home):
    expected = build(home)
    for file in home.glob("splits_mini/*.txt"):
        file.write_text("\n".join(reversed(file.read_text().splitlines())) + "\n\n")
    (home / "split_shots3_seed0_reserve0_poolunion.json").unlink()
    assert build(home).split_hash == expected.split_hash
    assert build(home).tasks[0].class_names == expected.tasks[0].class_names


def test_a_manifest_of_another_pool_or_edited_is_refused(home, tmp_path):
    path = tmp_path / "mine.json"
    build(home, manifest=str(path))
    with pytest.raises(UserError, match="has pool='union', but the config asks for pool='dassl'"):
        build(home, pool="dassl", manifest=str(path))
    path.write_text(path.read_text().replace("clipart_000001", "clipart_000002", 1))
    with pytest.raises(UserError, match="does not match its sha256"):
        build(home, manifest=str(path))


def test_a_folder_in_another_spelling(home):
    expected = build(home)
    (home / "clipart").rename(home / "Clipart")
    assert build(home).split_hash == expected.split_hash and build(home).tasks[0].train[0]["image"].shape == (4, 5, 3)


def test_lenient_leaves_out_what_is_not_there(home, capsys):
    (home / "painting" / "umbrella" / "painting_000003.jpg").unlink()
    (home / "painting" / "umbrella" / "painting_000004.jpg").write_bytes(b"")
    suite = build(home, strict=False)
    assert "left out 1 missing and 1 empty files" in capsys.readouterr().out
    assert len(suite.tasks[1].train) + len(suite.tasks[1].test) == 3 * (TRAIN + TEST) - 2


def missing(domain, count):
    def change(home):
        for i in range(count):
            (home / domain / "umbrella" / f"{domain}_{i:06d}.jpg").unlink()

    return change


def empty_file(home):
    (home / "real" / "umbrella" / "real_000002.jpg").write_bytes(b"")


def no_domain(home):
    (home / "sketch").rename(home / "sketches")


def no_splits(home):
    (home / "splits_mini").rename(home / "splits")


def no_split_file(home):
    (home / "splits_mini" / "real_test.txt").unlink()


def nested(home):
    (home / "sketch").rename(home / "inner")
    (home / "sketch").mkdir()
    (home / "inner").rename(home / "sketch" / "sketch")


def rewrite(text, old, new):
    def change(home):
        path = home / "splits_mini" / "real_train.txt"
        assert old in path.read_text()
        path.write_text(text(path.read_text(), old, new))

    return change


def once(text, old, new):
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    "change,message",
    [
        (missing("clipart", 2), r"2 are missing .* such as 'clipart/umbrella/clipart_000000.jpg'; unpack DomainNet's "
         r"cleaned archive groundtruth/clipart\.zip, not clipart\.zip, or set suite\.strict=False"),
        (missing("painting", 1), r"cleaned archive groundtruth/painting\.zip, not painting\.zip"),
        (missing("real", 1), r"1 are missing .* unpack DomainNet's real\.zip"),
        (empty_file, r"Files 'umbrella/real_000002\.jpg' in '.*real' are empty \(0 bytes\)"),
        (no_domain, r"has no 'sketch'; expected domainnet/ with"),
        (no_splits, r"has no 'splits_mini'; expected domainnet/ with"),
        (no_split_file, r"Cannot read the split file '.*real_test\.txt' \(No such file"),
        (nested, r"None of the 36 listed files is in '.*sketch'; expected 'sketch/umbrella/sketch_000000\.jpg'"),
        (rewrite(once, "umbrella/real_000000.jpg 0\n", "umbrella/real_000000.jpg\n"), r"real_train\.txt:1 is 'real/u"),
        (rewrite(once, "real/umbrella", "sketch/umbrella"), r"a line must look like 'real/<class>/<file>\.jpg <label>"),
        (rewrite(once, "real_000001.jpg 0", "real_000001.jpg 2"), r"has the label 2 .* elsewhere 'umbrella' is 0 and"),
        (rewrite(once, "real/umbrella/real_000000.jpg 0\n", ""),
         r"list 143 images of 3 classes instead of 144 of 3; get Dassl's miniDomainNet split files again"),
    ],
)  # fmt: skip
def test_wrong_layouts_are_one_sentence(change, message, home):
    change(home)
    with pytest.raises(UserError, match=message) as error:
        build(home)
    assert "\n" not in str(error.value)


def test_the_published_numbers_are_checked_through_the_config(home):
    config = {"name": "mini_domainnet", "root": str(home)}
    with pytest.raises(UserError, match=r"list 144 images of 3 classes instead of 140,006 of 126"):
        suites.build(config)
    assert len(suites.build(config | {"strict": False, "tasks": ("real",)}).tasks) == 1
    with pytest.raises(UserError, match="Unknown pool of suite 'mini_domainnet' 'all'; legal values: dassl, union"):
        suites.build(config | {"pool": "all"})


@pytest.mark.parametrize("shots,each", [(3, 378), (6, 756)])
def test_the_papers_sizes(shots, each, tmp_path):
    counts = [35_000, 35_001, 35_002, 35_003]
    assert sum(counts) == mini_domainnet.IMAGES
    tree = {domain: {f"class_{c:03d}": [] for c in range(mini_domainnet.CLASSES)} for domain in mini_domainnet.DOMAINS}
    for (domain, classes), count in zip(tree.items(), counts, strict=True):
        for i in range(count):
            classes[f"class_{i % len(classes):03d}"].append(f"{domain}/{i:06d}.jpg")
    suite = drawn.suite(
        "mini_domainnet", drawn.Files(tmp_path), tree, manifest="", shots=shots, seed=0, reserve=0, pool="union"
    )
    assert [len(task.train) for task in suite.tasks] == [each] * 4
    assert [len(task.train) + len(task.test) for task in suite.tasks] == counts
