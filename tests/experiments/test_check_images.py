"""What a look at pictures says: what decoding assumes, and what the run would refuse, before the run."""

import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from configs import mmap
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import sampler, suites
from jax_promptmtl.data.assumptions import assumptions
from jax_promptmtl.data.images import Reading
from jax_promptmtl.experiments import check_data
from jax_promptmtl.experiments.image import tune
from tests.tiny import save_clip

RNG = np.random.default_rng(0)


def rgb(height=24, width=24):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def exif(turn):
    found = Image.Exif()
    found[0x0112] = turn
    return found


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = Image.fromarray(RNG.integers(0, 65536, (24, 24), np.uint16))
KINDS = {  # name: picture, options of saving, what is said of it
    "plain.png": (rgb(), {}, []),
    "srgb.png": (rgb(), {"icc_profile": SRGB}, []),
    "clear.png": (rgb().convert("RGBA"), {}, ["are transparent: they are laid on white"]),
    "moving.gif": (rgb(), {"save_all": True, "append_images": [rgb()]}, ["several frames"]),
    "pages.tif": (rgb(), {"save_all": True, "append_images": [rgb()]}, ["several frames"]),
    "deep.png": (DEEP, {}, ["have 16 bits"]),
    "float.tif": (Image.fromarray(RNG.random((24, 24), np.float32)), {}, ["floating-point"]),
    "turned.jpg": (rgb(), {"exif": exif(6)}, ["are turned as their EXIF says"]),
    "upright.jpg": (rgb(), {"exif": exif(1)}, []),
    "profile.png": (rgb(), {"icc_profile": PROFILE}, ["a colour profile other than sRGB"]),
    "ink.jpg": (rgb().convert("CMYK"), {}, ["other colours than RGB"]),
    "tiny.png": (rgb(5, 5), {}, ["are tiny: enlarged more than 4 times, to 24 pixels"]),
    "huge.png": (rgb(400, 400), {}, ["more than 16 times larger than the model's 24"]),
    "long.png": (rgb(24, 60), {}, ["more than 2 times longer than wide"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_decoding_loses_or_assumes_is_told(tmp_path, name):
    picture, options, said = KINDS[name]
    picture.save(tmp_path / name, **options)
    found = assumptions(tmp_path / name, size=24)
    assert len(found) == len(said) and all(words in line for words, line in zip(said, found, strict=True)), found


def test_the_reading_is_told(tmp_path):
    rgb().convert("RGBA").save(tmp_path / "clear.png")
    rgb().save(tmp_path / "turned.jpg", exif=exif(3))
    stored = Reading("none", exif=False)
    assert "whatever is below comes forth" in assumptions(tmp_path / "clear.png", stored)[0]
    assert "left as stored" in assumptions(tmp_path / "turned.jpg", stored)[0]


def test_colours_of_16_bits_are_told(tmp_path):

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + RNG.bytes(6 * 24) for _ in range(24))
    header = struct.pack(">IIBBBBB", 24, 24, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    assert assumptions(tmp_path / "deep.png") == ["have colours of 16 bits: 8 bits are kept"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def make(root, tasks=("ink", "oil", "pen"), classes=("cat", "dog"), count=8):
    for task in tasks:
        for name in classes:
            (root / task / name).mkdir(parents=True)
            for i in range(count):
                rgb(9, 10).save(root / task / name / f"{i}.png")


def make_config(clip, root):
    config = mmap.get_config().unlock()
    config.backbone.path = str(clip)
    config.suite = {"name": "folder", "root": str(root), "shots": 4}
    for part in (config, config.grouping):
        part.method.length, part.method.rows, part.method.columns = 2, 1, 16
        part.train.batch_size = 16
    return config.lock()


@pytest.mark.parametrize("tasks, size", [(3, 15), (4, 16), (5, 15), (6, 18), (7, 14)])
def test_batches_of_all_tasks_are_rounded_and_that_is_said(clip, tmp_path, capsys, tasks, size):
    make(tmp_path / "own", tasks=[f"t{i}" for i in range(tasks)], count=5)
    job = tune.prepare(make_config(clip, tmp_path / "own"), tmp_path)
    said = f"config.grouping.train.batch_size is {size} and not 16"
    assert (said in capsys.readouterr().out) == (size != 16)
    settings = tune.plan(job, job.config.grouping)
    assert settings["batch_size"] == size and tune.plan(job, job.config)["batch_size"] == 16
    batch = next(tune.training_batches(job, job.suite, settings, 0))
    assert np.bincount(batch["task"]).tolist() == [size // tasks] * tasks


def test_three_tasks_pass_the_check(clip, tmp_path):
    make(tmp_path / "own")
    found = check_data.check(make_config(clip, tmp_path / "own"))
    assert not found.problems and not found.remarks


REFUSED = [
    (lambda c: setattr(c, "template", "{} of {}"), "must have exactly one {}"),
    (lambda c: setattr(c, "template", "a photo"), "must have exactly one {}"),
    (lambda c: setattr(c, "template", "cat " * 20 + "{}"), "tokens; at most"),
    (lambda c: setattr(c.method, "name", "mmab"), "Unknown method 'mmab'"),
    (lambda c: setattr(c.train, "reduction", "sum_of_task_means"), "config.train: Reduction 'sum_of_task_means' needs"),
    (lambda c: setattr(c.train, "batch_size", 0), "config.train.batch_size is 0"),
    (lambda c: setattr(c, "evaluation_batch_size", 0), "config.evaluation_batch_size: Batch size 0"),
    (lambda c: setattr(c.grouping.train, "epochs", 1), "config.grouping.train.epochs is 1"),
]


@pytest.mark.parametrize("change, message", REFUSED)
def test_what_the_run_refuses_the_check_refuses(clip, tmp_path, change, message):
    make(tmp_path / "own", count=5)
    config = make_config(clip, tmp_path / "own")
    change(config)
    (problem,) = check_data.check(config).problems
    assert message in problem
    for dry_run in (True, False):
        with pytest.raises(UserError, match=re.escape(message)):
            tune.run(config, tmp_path / "work", dry_run=dry_run)


def test_a_template_is_checked_before_data_are_read(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "build", pytest.fail)
    config = make_config(clip, tmp_path / "nowhere")
    config.template = "{name}"
    with pytest.raises(UserError, match="exactly one"):
        tune.run(config, tmp_path, dry_run=True)


def test_classes_with_the_same_text_are_a_problem(clip, tmp_path):
    make(tmp_path / "own", classes=("red_fox", "Red fox"))
    (problem,) = check_data.check(make_config(clip, tmp_path / "own")).problems
    assert "'Red fox' and 'red fox' of task 'ink' have the same text" in problem


def test_training_without_images_is_refused_and_zero_shot_is_not(clip, tmp_path):
    make(tmp_path / "own" / "test", tasks=("",))
    config = make_config(clip, tmp_path / "own")
    (problem,) = check_data.check(config).problems
    assert "Task 'own' has no images to train" in problem
    config.unlock().method, config.sharing = {"name": "none"}, {}
    config.grouping.source = "one"
    found = check_data.check(config)
    assert not found.problems, found.problems


def test_what_is_few_or_untested_is_a_remark(clip, tmp_path):
    make(tmp_path / "own")
    for number in range(5):
        (tmp_path / "own" / "ink" / "cat" / f"{number}.png").unlink()
    (tmp_path / "own" / "ink" / "cat" / "notes.txt").write_text("x")
    remarks = check_data.check(make_config(clip, tmp_path / "own")).remarks
    assert "fewer images than 4 train for 'cat of ink (3)'" in remarks and "no image tests 'cat of ink'" in remarks
    assert any("passed over 1 file" in remark and "ink/cat/notes.txt" in remark for remark in remarks)


def test_a_backbone_that_is_not_there_is_a_remark(clip, tmp_path):
    make(tmp_path / "own")
    found = check_data.check(make_config(tmp_path / "nowhere", tmp_path / "own"))
    assert not found.problems and "backbone cannot be loaded: No weights" in found.remarks[0]


def test_a_picture_is_prepared_before_the_next_is_decoded(clip, tmp_path, monkeypatch):
    """Else a batch holds all of its pictures in full size at once."""
    make(tmp_path / "own")
    job = tune.prepare(make_config(clip, tmp_path / "own"), tmp_path)
    order = []
    decode, prepare = type(job.suite.tasks[0].train).__getitem__, type(job.preprocess).augment
    monkeypatch.setattr(
        type(job.suite.tasks[0].train), "__getitem__", lambda self, i: (order.append("read"), decode(self, i))[1]
    )
    monkeypatch.setattr(type(job.preprocess), "augment", lambda *args: (order.append("use"), prepare(*args))[1])
    steps = sampler._Steps(sampler.Union(job.suite.tasks, "train"), job.preprocess, "union", 0, 1, True, 6, 0, 1, 1)
    steps[0]
    assert order == ["read", "use"] * 6


def test_the_reading_reaches_the_checkpoint(clip, tmp_path):
    make(tmp_path / "own")
    config = make_config(clip, tmp_path / "own").unlock()
    config.suite.background, config.suite.exif = "#102030", False
    job = tune.prepare(config, pathlib.Path(tmp_path))
    problem = job.problem(tune.ZERO_SHOT, tune.whole(job))
    told = problem.about["preprocess"]
    assert (told["background"], told["exif"]) == ("#102030", False) and job.preprocess.reading == Reading(
        "#102030", False
    )
