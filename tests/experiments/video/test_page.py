"""The report of a video job against answers that are known, and that a broken picture costs nothing but itself."""

import json

import numpy as np
import pytest

from configs import dlm
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.experiments.video import measuring, prompting
from jax_promptmtl.experiments.video import page as video_page
from jax_promptmtl.problems.video_tasks import SPECS
from jax_promptmtl.reporting import figures, records
from tests.pages import Page

CLIPS = 24


def job_of(folder, task="recognition"):
    config = dlm.get_config(task)
    config.clips.train = config.clips.test = CLIPS
    return prompting.open_job(config.lock(), folder, folder)


def row_of(title, trainable, answers, metric="top1", **scores):
    row = {"title": title, "trainable": trainable, "primary": 1000, "loaded": 4000, "metric": metric, "scores": scores}
    curve = [{metric: 50.0}, {metric: 62.5}] if trainable else []
    return row | {"answers": answers, "curve": curve, "prompt_rms": None, "step_seconds": 0.2, "wall_seconds": 61.0}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    job = job_of(folder)
    label = job.footage.videos("test").arrays["label"]
    wrong = np.where(np.arange(CLIPS) < 9, (label + 1) % len(moving_icons.classes("recognition")), label)
    measured = {
        "frozen": row_of("frozen primary", 0, records.pack_numbers(wrong), dynamic={"test": {"top1": 62.5}}),
        "dlm": row_of(
            "DLM",
            7,
            records.pack_numbers(label),
            dynamic={"test": {"top1": 100.0}, "shifted": {"top1": 71.25}},
            static={"test": {"top1": 99.0}, "rotated": {"top1": 12.0}},
        ),
    }
    lines = [{"stage": "dlm", "step": step, "loss": 1 / step, "accuracy": 0.5} for step in (1, 2, 3)]
    lines += [{"stage": "dlm", "step": 3, "evaluation": {"top1": 62.5}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    video_page.publish(job, measured)
    return job, measured, Page((folder / "report.html").read_text("utf-8")), (folder / "report.md").read_text("utf-8")


def test_the_table_has_every_part_that_was_measured(published):
    text = published[3]
    assert "| row | trained | test | shifted | rotated |" in text
    assert "| frozen primary | 0 | 62.5 | – | – |" in text  # noqa: RUF001
    assert "| DLM | 7 | **100.0** | **71.2** | – |" in text  # noqa: RUF001
    assert "| DLM, static prompts | 7 | <u>99.0</u> | – | **12.0** |" in text  # noqa: RUF001
    assert f"{50 / np.sqrt(CLIPS):.1f} points" in text and "cannot be shown" not in text


def test_the_page_says_what_was_run(published):
    words = " ".join(published[2].text.split())
    assert "cut after 3 of its 6 layers" in words
    assert "24 clips for 8 epochs (32 clips a step, adamw, learning rate 0.001)" in words
    assert "recognition primary 746,317" in words and "segmentation auxiliary 1,001,716" in words
    assert "0.70 % 0.17 %" in words  # 7 of 1000 and of 4000
    assert "DLM 1 min 01 s" in words and "all 2 min 02 s" in words


def test_mistakes_are_counted(published):
    job, _, _, text = published
    label, names = job.footage.videos("test").arrays["label"], moving_icons.classes("recognition")
    counts = np.bincount(label[:9], minlength=len(names))
    most = counts.argmax()
    after = names[(most + 1) % len(names)]
    assert f"| frozen primary | {names[most]} | {after} | {counts[most]} of {(label == most).sum()} |" in text
    assert "| DLM | " not in text.split("## Mistakes")[1].split("##")[0]


def test_examples_are_strips_of_the_test_clips(published):
    job, _, page, _ = published
    images = [image for words, image in page.images if not words]
    assert len(images) == video_page.EXAMPLES
    shown = page.text
    assert shown.count("✗ frozen primary: ") == 6 and shown.count("✗ DLM: ") == 0  # changed ones first
    first = job.footage.videos("test").arrays["frames"][0]
    plain = np.concatenate([frame.repeat(2, 0).repeat(2, 1) for frame in first[[1, 4, 6, 9, 12, 14]]], axis=1)
    strip = np.asarray(images[0], float).reshape(64, 6, 66, 3)[:, :, :64].reshape(64, 384, 3)
    assert np.abs(strip - plain).mean() < 8  # of 255: it is a JPEG


def test_a_picture_that_fails_loses_nothing_else(published, tmp_path, monkeypatch, capsys):
    _, measured, _, _ = published

    def fail(*_):
        raise ValueError("no `ink`")

    monkeypatch.setattr(figures, "confusion", fail)
    video_page.publish(job_of(tmp_path), measured)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert "Mistakes cannot be shown: ValueError: no 'ink'" in page.text
    assert all(title in page.text for title in ("Result", "Examples", "What was run", "Settings"))
    said = capsys.readouterr()
    assert "Mistakes cannot be shown" in said.err and f"{tmp_path / 'report.md'} has the pictures" in said.out


def test_other_tasks_have_neither_mistakes_nor_examples(tmp_path):
    row = row_of("frozen primary", 0, None, metric="map", dynamic={"test": {"map": 40.0}})
    video_page.publish(job_of(tmp_path, "temporal_action"), {"frozen": row})
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "## Mistakes" not in text and "## Examples" not in text and "cannot be shown" not in text
    assert "metric is mAP" in text and "## Learning curves" not in text


def test_answers_are_what_the_metric_counts():
    score, label = np.random.default_rng(0).random((40, 13)), np.arange(40) % 13
    found = records.unpack_numbers(measuring.answers_of("recognition", {"score": score}))
    assert (
        100 * np.mean(found == label) == SPECS["recognition"].task.measure({"score": score}, {"label": label})["top1"]
    )
    assert measuring.answers_of("segmentation", {"label": score}) is None
