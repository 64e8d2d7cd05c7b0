"""The tuning job from files to files, on a tiny CLIP and a folder of tiny images; and what it says to bad input."""

import json
import pathlib
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from configs import mmap
from jax_promptmtl import main
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.experiments.image import tune
from jax_promptmtl.reporting import run_page
from tests.pages import Page
from tests.tiny import CLASSES, TASKS, save_clip, save_images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_clip(folder / "clip")
    save_images(folder / "images")
    return folder


def make_config(files):
    config = mmap.get_config().unlock()
    config.backbone.path = str(files / "clip")
    config.suite = {"name": "folder", "root": str(files / "images"), "shots": 2}
    config.evaluation_batch_size = 16
    for part in (config, config.grouping):
        part.method.length, part.method.rows, part.method.columns = 2, 1, 16
        part.train.epochs, part.train.batch_size, part.train.log_every = 2, 8, 1
    config.grouping.warmup_epochs = 0.0
    return config.lock()


@pytest.fixture
def config(files):
    return make_config(files)


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    tune.run(make_config(files), workdir, dry_run=False)
    return workdir


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_the_job_leaves_what_it_promises(finished):
    made = {path.name for path in finished.iterdir()}
    assert made >= {
        "metrics.jsonl",
        "tensorboard",
        "grouping.json",
        "checkpoints",
        "report.md",
        "report.html",
        "results.json",
        "figures",
    }
    report = (finished / "report.md").read_text()
    for picture in ("similarity", "similarity_epochs", "partitions", "examples", "classes", "curves"):
        assert f"figures/{picture}.png" in report
        with Image.open(finished / "figures" / f"{picture}.png") as image:
            assert min(image.size) > 100
    assert list((finished / "tensorboard").rglob("events*"))


def test_the_page_has_all_in_one_file(finished):
    page = Page((finished / "report.html").read_text("utf-8"))
    sizes = [image.size for _, image in page.images]
    assert len(sizes) == 5 + len(TASKS) + len(TASKS) * (6 + 3)  # six figures but two, confusions, thumbnails, looks
    assert sizes.count((10, 9)) == len(TASKS) * 6 and min(size[0] for size in sizes) == 10
    for words in ("Mistakes", "taken for", "Words nearest", "Task groups", "red fox", "ink"):
        assert words in page.text


def test_the_report_adds_up_its_stages(finished):
    row = re.compile(r"^\| ([a-z -]+) \| (?:(\d+) min )?([\d.]+) s \|$", re.MULTILINE)
    found = row.findall((finished / "report.md").read_text())
    rows = {name: 60 * float(minutes or 0) + float(seconds) for name, minutes, seconds in found}
    assert set(rows) == {"loading", "zero-shot", "task grouping", "training", "evaluation", "all"}
    assert abs(rows.pop("all") - sum(rows.values())) < 1


def test_every_test_image_is_counted_once(finished):
    record = results(finished)
    assert record["images"] == [len(CLASSES) * 2] * len(TASKS)
    # sets x K (m n + b/m (D_text + D_image)/n), four task sets and two groups
    groups = json.loads((finished / "grouping.json").read_text())["groups"]
    assert record["trainable"] == (len(TASKS) + len(groups)) * 2 * (1 * 16 + 2 * (64 + 64) // 16)


def test_a_second_run_trains_nothing_and_finds_the_same(files, finished, tmp_path):
    workdir = tmp_path / "again"
    shutil.copytree(finished, workdir)
    before = (workdir / "metrics.jsonl").read_bytes()
    tune.run(make_config(files), workdir, dry_run=False)
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert results(workdir)["accuracy"] == results(finished)["accuracy"]


def test_two_fresh_runs_are_equal_to_the_bit(files, finished, tmp_path):
    tune.run(make_config(files), tmp_path, dry_run=False)
    for name in ("metrics.jsonl", "grouping.json"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    assert results(tmp_path)["accuracy"] == results(finished)["accuracy"]


def test_what_cannot_work_is_refused_before_anything_is_computed(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "measure_before", lambda job: pytest.fail("zero-shot was measured"))
    config.stage = "evaluate"
    with pytest.raises(UserError, match=r"no finished training 'global' of 6 steps; .*stage=train"):
        tune.run(config, tmp_path, dry_run=False)
    (tmp_path / "checkpoints" / "global" / "00000004").mkdir(parents=True)
    with pytest.raises(UserError, match="of 6 steps, only one that reached 4; "):
        tune.run(config, tmp_path, dry_run=False)
    config.stage, config.grouping.warmup_epochs = "train", 2.0
    for dry_run in (True, False):
        with pytest.raises(UserError, match=r"grouping.train.epochs is 2, and gradients count after 2 epochs; train"):
            tune.run(config, tmp_path, dry_run=dry_run)
    config.grouping.warmup_epochs, config.method.columns = 0.0, 48
    for dry_run in (True, False):
        with pytest.raises(UserError, match="columns 48 must divide"):
            tune.run(config, tmp_path, dry_run=dry_run)
    config.stage = "eval"
    for dry_run in (True, False):
        with pytest.raises(UserError, match="Unknown stage 'eval'"):
            tune.run(config, tmp_path, dry_run=dry_run)


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_computed(config, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "measure_before", lambda job: pytest.fail("zero-shot was measured"))
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    config.seed += 1
    with pytest.raises(UserError, match="was written with config seed = 0, and this run has 1; "):
        tune.run(config, tmp_path, dry_run=False)


def test_a_picture_that_fails_loses_no_result(config, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "work")
    (tmp_path / "work" / "results.json").unlink()
    monkeypatch.setattr(run_page, "example_grid", lambda *args, **options: 1 / 0)
    tune.run(config, tmp_path / "work", dry_run=False)
    assert results(tmp_path / "work")["accuracy"] == results(finished)["accuracy"]
    text = (tmp_path / "work" / "report.md").read_text()
    assert "`Examples cannot be shown: ZeroDivisionError: division by zero`" in text and "classes.png" in text


def test_evaluation_never_trains(config, finished, tmp_path):
    config.stage = "evaluate"
    with pytest.raises(UserError, match="no finished training"):
        tune.run(config, tmp_path, dry_run=False)
    workdir = tmp_path / "copy"
    shutil.copytree(finished, workdir)
    tune.run(config, workdir, dry_run=False)
    assert results(workdir)["accuracy"] == results(finished)["accuracy"]


def test_given_groups_are_used_and_checked(config, tmp_path):
    config.grouping.unlock().update({"source": "given", "groups": (("ink", "wax"), ("oil", "pen"))})
    tune.run(config, tmp_path, dry_run=False)
    about = next((tmp_path / "checkpoints" / "train").rglob("meta/metadata"), None)
    assert about is not None and json.loads(about.read_text())["about"]["groups"] == [[0, 3], [1, 2]]
    config.grouping.groups = (("ink", "wax"), ("oil",))
    with pytest.raises(UserError, match="each of the tasks"):
        tune.run(config, tmp_path, dry_run=False)


def test_a_dry_run_prints_sizes_and_writes_nothing(config, tmp_path, capsys):
    tune.run(config, tmp_path / "none", dry_run=True)
    printed = capsys.readouterr().out
    assert "steps: 6, 3 per epoch, after 6 to group the tasks" in printed
    assert "trainable: 320 of" in printed and "method/group/source: 1x2x1x16" in printed and "MiB" in printed
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("tuned", [(".*/bias",), ()], ids=["bitfit", "zero-shot"])
def test_weights_are_tuned_by_pattern(tuned, config, tmp_path):
    config.unlock()
    config.method, config.sharing, config.tune, config.grouping.source = {"name": "none"}, {}, tuned, "one"
    tune.run(config, tmp_path, dry_run=False)
    state = safetensors.numpy.load_file(pathlib.Path(config.backbone.path) / "model.safetensors")
    biases = sum(leaf.size for name, leaf in state.items() if name.endswith("bias"))
    assert results(tmp_path)["trainable"] == (biases if tuned else 0)


def exit_code(config, workdir, monkeypatch):
    """Run `main` as the command line does, with this config."""
    monkeypatch.setattr(main, "start", lambda argv: tune.run(config, workdir, dry_run=False))
    return main.main([])


def truncated_image(config, root):
    picture = root / "images" / "oil" / "dog" / "0.png"
    picture.write_bytes(picture.read_bytes()[:60])


def empty_image(config, root):
    (root / "images" / "oil" / "dog" / "0.png").write_bytes(b"")


def missing_image(config, root):
    tune.prepare(config, root / "first")  # writes the split
    (root / "images" / "oil" / "dog" / "0.png").unlink()


def unknown_task(config, root):
    config.suite.unlock().tasks = ("ink", "oli")


def missing_leaf(config, root):
    edit_weights(root, lambda state: state.pop("logit_scale"))


def surplus_leaf(config, root):
    edit_weights(root, lambda state: state.update(extra=np.zeros(3, np.float32)))


def edit_weights(root, change):
    path = root / "clip" / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path)


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def hostile_archive(config, root):
    with zipfile.ZipFile(root / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Hostile(root / "owned")))
        archive.writestr("evil/version", "3")
    config.backbone.path = str(root / "evil.pt")


def unknown_method(config, root):
    config.method.name = "mmpa"


def unknown_option(config, root):
    config.method.unlock().lenght = 3


def wrong_subtree(config, root):
    config.sharing.unlock().groop = "all"


def wrong_divisor(config, root):
    config.grouping.method.columns = config.method.columns = 15


def no_such_weights(config, root):
    config.backbone.path = str(root / "nowhere")


BAD = {
    truncated_image: ["oil/dog/0.png"],
    empty_image: ["oil/dog/0.png"],
    missing_image: ["dog", "oil"],
    unknown_task: ["oli", "oil"],
    missing_leaf: ["logit_scale"],
    surplus_leaf: ["extra"],
    hostile_archive: ["evil.pt"],
    unknown_method: ["mmpa", "mmap"],
    unknown_option: ["lenght", "length"],
    wrong_subtree: ["groop"],
    wrong_divisor: ["15", "64"],
    no_such_weights: ["nowhere"],
}


@pytest.mark.parametrize("harm", BAD, ids=lambda harm: harm.__name__)
def test_bad_input_is_one_sentence_and_exit_code_2(harm, files, tmp_path, monkeypatch, capsys):
    for name in ("clip", "images"):
        shutil.copytree(files / name, tmp_path / name)
    config = make_config(tmp_path)
    harm(config, tmp_path)
    assert exit_code(config, tmp_path / "work", monkeypatch) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ") and all(word in message for word in BAD[harm])
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_backbone_is_refused_and_kept(finished, tmp_path, monkeypatch, capsys):
    for name, source in (("work", finished), ("images", None)):
        shutil.copytree(source, tmp_path / name) if source else save_images(tmp_path / name)
    save_clip(tmp_path / "clip", seed=5)
    config = make_config(tmp_path)
    kept = sorted(path.relative_to(finished) for path in (finished / "checkpoints").rglob("*"))
    assert exit_code(config, tmp_path / "work", monkeypatch) == 2
    assert "backbone" in capsys.readouterr().err
    assert (
        sorted(path.relative_to(tmp_path / "work") for path in (tmp_path / "work" / "checkpoints").rglob("*")) == kept
    )
