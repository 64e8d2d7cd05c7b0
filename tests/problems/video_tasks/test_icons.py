"""The small models of the moving icons: files, forms of clips, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.data.video_batches import all_batches
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS, icons
from jax_promptmtl.problems.video_tasks.spec import Sight

SHAPES = {  # of the logits for one clip of the task
    "recognition": (1, 13),
    "spatial_action": (1, 3, 11),
    "temporal_action": (1, 28, 12),
    "segmentation": (2, 1, 64, 10),
    "video_object": (1, 4, 8, 10, 12),
    "video_instance": (2, 1, 8, 8, 13),
}
CHANCE = {"recognition": 100 / 13, "spatial_action": 100 / 11, "temporal_action": 1, "segmentation": 10}  # or more
CHANCE |= {"video_object": 1, "video_instance": 1}  # a class by luck, and hardly ever a place or a mask


def params_of(task, seed=0):
    """Return random parameters without running anything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: icons.initial(task, 0))
    return jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    features = weights_sha256(params_of("recognition"))
    for task in SPECS:
        card = {"features": features} if SPECS[task].extractor else {}
        write_model(path, task, params_of(task), card)
    return path


def batch_of(frames):
    return {"frames": jnp.zeros((1, frames, 32, 32, 3), jnp.uint8), "box": jnp.full((1, 3, 4), 0.5)}


@pytest.mark.parametrize("task", SPECS)
def test_each_model_can_be_the_primary_and_every_others_auxiliary(folder, task):
    weights = icons.load(folder, (task,))
    own = icons.view(task, weights, icons.frames_of(task))
    state = jax.eval_shape(lambda: own.backbone.lower(own.backbone.params, own.adapt(batch_of(own.spec["frames"]))))
    assert state.tokens.shape[-1] == own.backbone.dim and own.backbone.middle == own.backbone.depth // 2
    outputs = jax.eval_shape(lambda s: own.backbone.upper(own.backbone.params, s, None), state)
    logits = getattr(outputs, "logits", outputs)
    assert logits.shape == SHAPES[task]
    for frames in (16, 64):
        other = icons.view(task, weights, frames, Sight(auxiliary=True))
        clip = batch_of(frames)
        clip.pop("box")  # an auxiliary sees no labels
        seen = jax.eval_shape(
            lambda other=other, clip=clip: other.backbone.lower(other.backbone.params, other.adapt(clip))
        )
        assert seen.tokens.shape[::2] == (1, own.backbone.dim) and seen.mask.shape == seen.tokens.shape[:2]


@pytest.mark.parametrize("task", ["video_object", "video_instance"])
@pytest.mark.parametrize("count", [4, 8])
def test_labels_are_those_of_the_frames_that_a_model_sees(folder, task, count):
    view = icons.view(task, icons.load(folder, (task,)), 16, Sight(seen=count))
    number = np.arange(16, dtype=np.uint8)
    frames = np.zeros((1, 16, 32, 32, 3), np.uint8)
    frames[0, :, 0, 0, 0] = number
    seen = view.adapt({"frames": jnp.asarray(frames)})["video"][0, :, 0, 0, 0]
    (labels,) = {
        tuple(leaf[0].tolist())
        for leaf in icons.label_seen(task, {key: number[None] for key in ("box", "valid", "mask")}, count).values()
        if leaf.shape[1] == count
    }
    assert np.argsort(seen).tolist() == list(range(count)) and len(labels) == count
    brightness = (seen - seen[0]) / (seen[1] - seen[0])  # a clip's pixels are standardised, so steps show the numbers
    np.testing.assert_allclose(brightness, (np.array(labels) - labels[0]) / (labels[1] - labels[0]), atol=1e-4)
    np.testing.assert_allclose(labels, 16 / count * (np.arange(count) + 0.5).astype(float), atol=0.5)


def test_what_is_saved_is_loaded_and_all_models_fit_the_package(folder):
    weights = icons.load(folder, ("segmentation",))
    assert weights.keys() == {"segmentation", "recognition"}
    jax.tree.map(np.testing.assert_array_equal, weights["segmentation"], params_of("segmentation"))
    assert sum(4 * tree.count(params_of(task)) for task in SPECS) < 25e6


def test_files_that_do_not_fit_are_one_sentence(folder, tmp_path):
    with pytest.raises(
        UserError,
        match=r"Cannot read the model .*recognition.safetensors.*configs/video.py:recognition, or give",
    ):
        icons.load(tmp_path, ("recognition",))
    write_model(tmp_path, "recognition", params_of("recognition", seed=1), {})
    write_model(tmp_path, "segmentation", params_of("segmentation"), {"features": "another"})
    with pytest.raises(UserError, match="trained on features of another recognition model"):
        icons.load(tmp_path, ("segmentation",))
    card = json.loads((tmp_path / "recognition.json").read_text())
    (tmp_path / "recognition.json").write_text(json.dumps(card | {"sha256": "0"}))
    with pytest.raises(UserError, match="is not what its card says: other bytes"):
        icons.load(tmp_path, ("recognition",))
    write_model(tmp_path, "recognition", {"trunk": {"patch": {"bias": np.zeros(3)}}}, {})
    with pytest.raises(UserError, match="is not what its card says: -pool/fc_norm/bias"):
        icons.load(tmp_path, ("recognition",))


def test_one_bit_in_a_weight_changes_the_hash():
    weights = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(2, np.float32)}
    changed = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.array([0, 1e-45], np.float32)}
    assert weights_sha256(weights) == weights_sha256(dict(reversed(weights.items())))
    turned = {"a": {"kernel": np.ones((3, 2), np.float32)}, "b": np.zeros(2, np.float32)}
    assert len({weights_sha256(w) for w in (weights, changed, turned)}) == 3


def card_of(task):
    return json.loads((icons.EMBEDDED / f"{task}.json").read_text())


def test_the_packages_models_load_and_their_cards_are_complete():
    assert icons.load("", SPECS).keys() == SPECS.keys()  # compares hashes
    assert sum(file.stat().st_size for file in icons.EMBEDDED.iterdir()) <= 25e6
    for task in SPECS:
        card = card_of(task)
        assert card.keys() >= {"command", "data", "split", "test", "training", "config", "sha256"}
        assert "models" not in card["config"]  # a path of the machine that trained it
        assert card["command"].endswith(f"configs/video.py:{task}") and card["config"]["task"] == task
        assert 4 * CHANCE[task] < card["test"][SPECS[task].task.metric] < 99.5


@pytest.mark.slow
@pytest.mark.parametrize("task", SPECS)
def test_a_packages_model_scores_what_its_card_says(task):
    card = card_of(task)
    clips = icons.Drawn(task, card["config"]["clips"]["test"], "test", card["config"]["clips"]["seed"])
    view = icons.view(task, icons.load("", (task,)), icons.frames_of(task))
    kind, found, labels = SPECS[task].task, [], []

    @jax.jit
    def predict(params, batch):
        backbone = view.backbone
        return kind.decode(backbone.upper(params, backbone.lower(params, view.adapt(batch)), None), batch)

    for batch in all_batches([clips], batch_size=64):
        real = batch["weight"] > 0
        predicted = jax.device_get(predict(view.backbone.params, batch))
        found.append({key: value[real] for key, value in predicted.items()})
        labels.append({key: batch[key][real] for key in kind.labels})
    scores = kind.measure(video_mtl.join(found), video_mtl.join(labels))
    assert scores == pytest.approx(card["test"], abs=0.3)  # a clip or two may lie on the border
