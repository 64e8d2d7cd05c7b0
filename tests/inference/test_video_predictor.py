"""Videos in, classes out: equal to the models of the jobs that wrote the work directories, and what mistakes say."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

import jax_promptmtl
from configs import dlm
from jax_promptmtl import predict
from jax_promptmtl.core import command, tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.engine import optim, step
from jax_promptmtl.engine.checkpoint import Checkpoints
from jax_promptmtl.experiments.video import job as video_job
from jax_promptmtl.experiments.video import prompting
from jax_promptmtl.experiments.video import rows as video_rows
from jax_promptmtl.inference import VIDEO_JOBS, image_predictor, video_predictor
from jax_promptmtl.models.video.form import InputForm
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems.video_tasks import SPECS, icons
from tests import clips
from tests.tiny import save_models

CLASSES = ("jump", "run", "sit")
SAMPLING = {"frames": 4, "stride": 2, "size": 16, "whole": False, "short": "refuse", "scale": (0.08, 1.0), "flip": True}
CONFIG = {
    "job": "finetune",
    "sampling": SAMPLING,
    "model": {"width": 16, "layers": 2, "heads": 2, "inner": 32, "patch": 8, "tubelet": 2},
    "seed": 0,
    "weights": "",
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Return a work directory as a fine-tuning leaves it, two folders of frames, and the model."""
    home = tmp_path_factory.mktemp("tuned")
    spec, form = SPECS["recognition"], InputForm(4, (16, 16))
    sizes = spec.sizes(CONFIG["model"], len(CLASSES), form)
    view = spec.view(sizes, spec.start(sizes, 0), form)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * np.random.default_rng(leaf.size).normal(size=leaf.shape),
                          view.backbone.params)  # fmt: skip
    card = {"data": "ucf101", "kind": "recognition", "classes": CLASSES, "config": CONFIG}
    write_model(home / "work" / "models", "ucf101", params, card)
    (home / "work" / "config.json").write_text(json.dumps(CONFIG))
    folders = [clips.write_pictures(home / "videos" / name, 9, first=i) for i, name in enumerate("ab")]
    return home, folders, (view, params)


def logits_of(view, params, frames):
    """Return what the job's own model says."""

    @jax.jit
    def run(params, frames):
        return view.backbone.upper(params, view.backbone.lower(params, view.adapt({"frames": frames})), None)

    return run(params, frames)


def test_a_finetuned_model_answers_as_in_training(tuned):
    home, folders, (view, params) = tuned
    model = jax_promptmtl.load(home / "work")
    frames = np.stack([video_file.frames(folder, [1, 3, 5, 7]) for folder in folders])  # the middle ones, in steps of 2
    small = np.stack([np.stack([resized(frame) for frame in clip]) for clip in frames])
    expected = logits_of(view, params, small)
    answer = model.predict(folders)
    np.testing.assert_allclose(answer.probabilities, jax.nn.softmax(expected), atol=1e-5)
    assert answer.classes == CLASSES and model.tasks == ("recognition",) and np.ptp(expected) > 1e-2
    np.testing.assert_allclose(model.predict(str(folders[1])).logits, answer.logits[1:], atol=1e-5)
    assert model.predict([]).logits.shape == (0, 3)


def test_several_views_are_averaged(tuned):
    home, folders, (view, params) = tuned
    model = jax_promptmtl.load(home / "work")
    both = replace(model, sampling=replace(model.sampling, clips=2))
    frames = np.stack([video_file.frames(folders[0], chosen) for chosen in ([0, 2, 4, 6], [2, 4, 6, 8])])
    small = np.stack([np.stack([resized(frame) for frame in clip]) for clip in frames])
    expected = jax.nn.softmax(logits_of(view, params, small)).mean(axis=0)
    np.testing.assert_allclose(both.predict(folders[:1]).probabilities[0], expected, atol=1e-5)
    assert replace(model, sampling=replace(model.sampling, crops=3)).views(str(folders[0])).shape == (3, 4, 16, 16, 3)


def resized(frame):
    """Return the middle square of a frame at 16 x 16."""
    from PIL import Image

    height, width = frame.shape[:2]
    left = (width - height) // 2
    square = Image.fromarray(frame).resize((16, 16), Image.Resampling.BILINEAR, (left, 0, left + height, height))
    return np.asarray(square)


def test_the_command_takes_files_and_folders_of_frames(tuned, capsys, tmp_path):
    home, folders, _ = tuned
    assert command.run(predict.start, [str(home / "work"), "--format=json", *map(str, folders)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["clip"] for row in found] == list(map(str, folders)) and set(found[0]["top"]) == set(CLASSES)
    pytest.importorskip("av")
    clips.write(tmp_path / "below" / "c.mp4", 12)
    assert command.run(predict.start, [str(home / "work"), "--format=csv", str(tmp_path)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("clip,task,class") and row.startswith(str(tmp_path / "below" / "c.mp4"))


def test_a_folder_holds_videos_folders_of_frames_and_other_things(tuned, tmp_path):
    home, _, _ = tuned
    shutil.copytree(home / "videos", tmp_path / "all" / "deep")
    for name in ("c.MP4", "notes.txt", ".hidden.mp4"):
        (tmp_path / "all" / name).touch()
    (tmp_path / "all" / "empty").mkdir()
    found, others = jax_promptmtl.load(home / "work").listing(str(tmp_path / "all"))
    assert others == "1 file is no video and not read (1 .txt), such as 'notes.txt'"
    assert found == [str(tmp_path / "all" / name) for name in ("c.MP4", "deep/a", "deep/b")]
    with pytest.raises(UserError, match="holds a model of videos; only what was trained for images"):
        image_predictor.load(home / "work")


def test_bad_clips_cost_a_line_each_and_all_others_are_answered(tuned, capsys, tmp_path, monkeypatch):
    home, folders, _ = tuned
    monkeypatch.setattr("jax_promptmtl.inference.video_predictor.BATCH", 2)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    short = clips.write_pictures(tmp_path / "short", 3)
    bad = [tmp_path / "no.mp4", short, tmp_path / "nowhere"]
    given = [bad[0], folders[0], bad[1], bad[2], folders[1], folders[0]]  # the second batch has none to answer
    for form in ("json", "csv", "table"):
        assert command.run(predict.start, [str(home / "work"), f"--format={form}", *map(str, given)]) == 2
        printed = capsys.readouterr()
        rows = printed.out.splitlines()[form == "csv" :]
        found = (
            [row["clip"] for row in json.loads(printed.out)]
            if form == "json"
            else [r.split(",")[0].split()[0] for r in rows]
        )
        assert found == [str(folders[i]) for i in (0, 1, 0)]
        lines = printed.err.splitlines()
        assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
        assert all(path.name in line for path, line in zip(bad, lines, strict=True))
        assert lines[2].endswith("3 of 6 clips have no answer.")
    assert command.run(predict.start, [str(home / "work"), str(bad[0])]) == 2
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"no\.mp4"):  # from Python, the first is raised
        jax_promptmtl.load(home / "work").predict(given)


def test_mistakes_are_one_sentence(tuned, tmp_path):
    home, folders, _ = tuned
    model = jax_promptmtl.load(home / "work")
    with pytest.raises(UserError, match="has 3 frames, but a clip of 4"):
        model.predict(clips.write_pictures(tmp_path / "short", 3))
    with pytest.raises(UserError, match="Unknown task 'segmentation'"):
        model.predict(folders, "segmentation")
    with pytest.raises(UserError, match="classes and weights are fixed"):
        jax_promptmtl.load(home / "work", classes=["a"])
    work = shutil.copytree(home / "work", tmp_path / "work")
    card = work / "models" / "ucf101.json"
    card.write_text(card.read_text().replace('"recognition"', '"segmentation"'))
    with pytest.raises(UserError, match="is for segmentation; only recognition"):
        jax_promptmtl.load(work)
    card.unlink()
    with pytest.raises(UserError, match="holds no trained model"):
        jax_promptmtl.load(work)


@pytest.mark.slow
def test_the_mapper_answers_as_in_training(tmp_path):
    save_models(tmp_path / "models")
    config = dlm.get_config("recognition")
    config.models, config.aux = str(tmp_path / "models"), ("segmentation", "spatial_action")
    config.clips.train, config.clips.test = 8, 4
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UserError, match="holds no trained mapper"):
        jax_promptmtl.load(work)
    job = prompting.open_job(config, work, work)
    row = video_rows.mapper(job)
    problem = video_job.row_problem(job, row)
    settings = video_job.row_settings(job, "dlm", 8)
    tx = optim.make(settings["optimizer"], mask=problem.mask, steps_per_epoch=1, total_steps=1)
    checkpoints = Checkpoints(work / "checkpoints" / "dlm", config=settings, about=problem.about)
    checkpoints.save(step.initial(problem, tx))
    checkpoints.close()
    batch = {name: value for source in row.sources["test"] for name, value in source.take(np.arange(4)).items()}
    batch["weight"] = np.ones(4, np.float32)
    expected, share = row.pipeline.outputs(problem.params, problem.frozen, batch)
    model = jax_promptmtl.load(work)
    made = moving_icons.clips("recognition", range(4), part="test", seed=0)
    np.testing.assert_allclose(model.logits(made["frames"]), expected, atol=1e-3)
    assert np.ptp(expected, axis=0).max() > 1e-2 and float(share.min()) > 0
    assert model.classes["recognition"] == moving_icons.classes("recognition")
    models = tree.flatten(icons.initial("recognition", 5))
    write_model(tmp_path / "models", "recognition", tree.unflatten(models), {})
    with pytest.raises(UserError, match=r"features of another|another recognition model"):
        jax_promptmtl.load(work)


def test_the_jobs_that_see_videos_are_known_without_their_models():
    assert {*VIDEO_JOBS} == {*video_predictor.JOBS}
