"""Clips of moving icons: pure functions of their address, with labels that a look at the pixels confirms."""

import itertools

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.icons.moving_icons import DOMAINS, KEY_FRAME, TASKS, classes, clips, example

LUMA = np.array([0.299, 0.587, 0.114])
SHAPES = {
    "recognition": {"frames": (16, 32, 32, 3), "label": ()},
    "spatial_action": {"frames": (16, 32, 32, 3), "box": (3, 4), "label": (3,), "valid": (3,)},
    "temporal_action": {"frames": (64, 32, 32, 3), "segment": (3, 2), "label": (3,), "valid": (3,)},
    "segmentation": {"frames": (64, 32, 32, 3), "label": (64,)},
    "video_object": {"frames": (16, 32, 32, 3), "box": (16, 3, 4), "label": (3,), "valid": (16, 3)},
    "video_instance": {"frames": (16, 32, 32, 3), "mask": (16, 3, 32, 32), "label": (3,), "valid": (3,)},
}
TYPES = {"frames": "uint8", "label": "int32", "valid": "bool", "mask": "bool", "box": "float32", "segment": "float32"}


RECOGNITION = [4, 12, 5, 4, 3, 12, 12, 1, 4, 4, 1, 6]
SEGMENTATION = [0, 0, 1, 2, 2, 2, 3, 3, 7, 6, 6]


def figure(frames):
    """Return the distance of each pixel from its clip's middle luma, float[..., 32, 32], and what stands out, bool."""
    luma = frames @ LUMA
    distance = np.abs(luma - np.median(luma, axis=(-3, -2, -1), keepdims=True))
    return distance, distance > 50


def centre(mask):
    """Return the mean (y, x) of masks bool[..., 32, 32] in pixels."""
    y, x = np.indices((32, 32))
    return np.stack([(mask * axis).sum((-2, -1)) / np.maximum(mask.sum((-2, -1)), 1) for axis in (y, x)], axis=-1)


@pytest.fixture(scope="module")
def recognised():
    return clips("recognition", range(260))


def of(batch, name):
    return batch["frames"][batch["label"] == classes("recognition").index(name)].astype(float)


@pytest.mark.parametrize(("task", "variant"), DOMAINS)
def test_shapes_and_types_are_the_documented_ones(task, variant):
    batch = clips(task, [3, 0], variant=variant)
    assert {name: value.shape for name, value in batch.items()} == {n: (2, *s) for n, s in SHAPES[task].items()}
    assert {name: str(value.dtype) for name, value in batch.items()} == {name: TYPES[name] for name in batch}
    assert batch["label"].min() >= 0 and batch["label"].max() < len(classes(task))


@pytest.mark.parametrize(("task", "variant"), DOMAINS)
def test_a_batch_is_its_clips_bit_for_bit_and_order_does_not_matter(task, variant):
    numbers = [11, 2, 5, 900_000, 3, 1, 0, 7, 8, 9]  # more than one chunk
    batch = clips(task, numbers, variant=variant, part="tune", seed=4)
    for row, number in list(enumerate(numbers))[::4]:
        alone = example(task, number, variant=variant, part="tune", seed=4)
        assert all(np.array_equal(batch[name][row], alone[name]) for name in batch)


def test_task_variant_part_seed_and_index_all_matter():
    addresses = [{}, {"seed": 1}, {"part": "test"}, {"part": "tune"}, {"variant": "shifted"}]
    found = [example("recognition", 0, **address)["frames"] for address in addresses]
    found.append(example("recognition", 1)["frames"])
    for i, one in enumerate(found):
        assert all(np.abs(one.astype(int) - other).mean() > 5 for other in found[:i])


def test_the_labels_of_an_index_never_change_silently():
    # Another machine, another numpy, another font library: the same labels. If you change them, raise VERSION.
    assert moving_icons.VERSION == 1
    assert clips("recognition", range(12))["label"].tolist() == RECOGNITION
    assert clips("segmentation", [5], part="test")["label"][0, ::6].tolist() == SEGMENTATION


def test_all_motions_occur_about_equally_often(recognised):
    count = np.bincount(recognised["label"], minlength=13)
    assert len(count) == 13 and count.min() >= 8 and count.max() <= 36  # 20 expected


@pytest.mark.parametrize(("name", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_what_is_said_to_go_somewhere_goes_there(recognised, name, axis, sign):
    path = centre(figure(of(recognised, name))[1])
    way = path[:, -1] - path[:, 0]
    assert (sign * way[:, axis] > 6).mean() >= 0.9
    assert (np.abs(way[:, 1 - axis]) < 4).mean() >= 0.9


def test_what_is_said_to_grow_or_shrink_does(recognised):
    for name, sign in (("grow", 1), ("shrink", -1)):
        area = figure(of(recognised, name))[1].sum((-2, -1)).astype(float)
        ratio = np.log(np.maximum(area[:, -1], 1) / np.maximum(area[:, 0], 1))
        assert (sign * ratio > 0.5).mean() >= 0.85, name


def test_what_is_said_to_fade_does_and_never_quite_vanishes(recognised):
    for name, sign in (("fade_in", 1), ("fade_out", -1)):
        distance = figure(of(recognised, name))[0]
        contrast = np.quantile(distance, 0.98, axis=(-2, -1))
        assert (sign * (contrast[:, -1] - contrast[:, 0]) > 25).mean() >= 0.9, name


def test_what_is_said_to_be_still_moves_least_and_circle_and_bounce_come_back(recognised):
    def change(name):
        return np.abs(np.diff(of(recognised, name), axis=1)).mean((1, 2, 3, 4))

    for name in ("left", "up", "spin", "shake", "circle", "bounce"):
        assert np.median(change(name)) > 1.5 * np.median(change("still")), name
    for name in ("circle", "bounce"):
        path = centre(figure(of(recognised, name))[1])
        far = np.linalg.norm(path - path[:, :1], axis=-1).max(1)
        back = np.linalg.norm(path[:, -1] - path[:, 0], axis=-1)
        assert (far > 5).mean() >= 0.9 and (back < 0.75 * far).mean() >= 0.85, name


def test_boxes_of_the_key_frame_hold_what_stands_out():
    batch = clips("spatial_action", range(60))
    stands_out = figure(batch["frames"].astype(float))[1][:, KEY_FRAME]
    inside, y, x = np.zeros_like(stands_out), *np.indices((32, 32))
    for clip, (boxes, valid) in enumerate(zip(batch["box"], batch["valid"], strict=True)):
        for x1, y1, x2, y2 in boxes[valid] * 32:
            here = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
            assert stands_out[clip][here].mean() > 0.05 and here.sum() >= 9
            inside[clip] |= here
    assert stands_out[inside].mean() > 0.25 and stands_out[~inside].mean() < 0.03
    assert set(batch["valid"].sum(1)) == {2, 3}
    assert all(len(set(row[valid])) == valid.sum() for row, valid in zip(batch["label"], batch["valid"], strict=True))
    assert not batch["box"][~batch["valid"]].any() and not batch["label"][~batch["valid"]].any()


def test_temporal_segments_are_apart_and_hold_the_movement():
    batch = clips("temporal_action", range(40))
    for frames, segment, valid in zip(batch["frames"], batch["segment"], batch["valid"], strict=True):
        start, stop = segment[valid].T
        assert np.all((stop - start >= 8) & (stop - start <= 20) & (start == start.round()))
        assert start[0] >= 3 and stop[-1] <= 61 and np.all(start[1:] - stop[:-1] >= 3)
        assert not segment[~valid].any() and frames.std() > 5
    change = np.abs(np.diff(batch["frames"].astype(float), axis=1)).mean((2, 3, 4))
    time = np.arange(63)
    busy = np.zeros_like(change, bool)
    for s in range(3):
        start, stop = batch["segment"][:, s, :1], batch["segment"][:, s, 1:]
        busy |= (time >= start) & (time < stop)
    quiet = np.array([c[~b].mean() for c, b in zip(change, busy, strict=True)])
    ratio = np.array([c[b].mean() for c, b in zip(change, busy, strict=True)]) / quiet
    assert np.median(ratio) > 1.5 and (ratio > 1).mean() > 0.9
    assert set(batch["valid"].sum(1)) == {1, 2, 3}


@pytest.mark.parametrize("variant", ["base", "shifted"])
def test_segmentation_follows_its_grammar(variant):
    names = classes("segmentation")
    before = {"circle": {"grow"}, "spin": {"left", "right"}, "bounce": {"up", "down"}}
    counts = set()
    for label in clips("segmentation", range(50), variant=variant)["label"]:
        cuts = np.flatnonzero(np.diff(label)) + 1
        lengths = np.diff([0, *cuts, 64])
        words = [names[label[t]] for t in [0, *cuts]]
        assert words[0] == "fade_in" and "fade_in" not in words[1:] and lengths.min() >= 7
        for last, word in itertools.pairwise(words):
            assert last in before.get(word, set(names)), words
        sizes = [word for word in words if word in ("grow", "shrink")]
        assert all(a != b for a, b in itertools.pairwise(sizes))
        counts.add(len(words))
    assert counts == {4, 5, 6, 7}


def test_objects_are_boxed_in_every_frame_in_which_they_are_seen():
    batch = clips("video_object", range(40))
    box, valid = batch["box"], batch["valid"]
    assert set(valid.any(1).sum(1)) == {1, 2, 3}
    assert not box[~valid].any()
    sides = box[valid][:, 2:] - box[valid][:, :2]
    assert sides.min() >= 3 / 32 and sides.max() <= 0.7 and box.min() >= 0 and box.max() <= 1
    step = np.abs(np.diff(box, axis=1))[valid[:, 1:] & valid[:, :-1]]
    assert np.quantile(step, 0.99) < 3 / 32  # they drift
    present = valid.any(1)
    assert 0.9 < valid.swapaxes(1, 2)[present].mean() < 1  # now and then one is hidden


def test_instances_are_disjoint_cross_and_stand_out():
    batch = clips("video_instance", range(40))
    mask, valid = batch["mask"], batch["valid"]
    assert mask.sum(2).max() == 1 and not mask.swapaxes(1, 2)[~valid].any()
    area = mask.sum((-2, -1)).swapaxes(1, 2)[valid]
    assert area.max(1).min() >= 12
    front = area[np.cumsum(valid.sum(1)) - 1]  # the last slot is in front: nothing hides it
    assert (front.min(1) > 0.5 * front.max(1)).mean() > 0.9
    hidden = area[np.cumsum(valid.sum(1)) - valid.sum(1)]
    assert (hidden.min(1) < 0.6 * hidden.max(1)).mean() > 0.8
    distance = figure(batch["frames"].astype(float))[0]
    union = mask.any(2)
    assert np.mean([d[u].mean() > 1.3 * d[~u].mean() for d, u in zip(distance, union, strict=True)]) > 0.9


def test_no_drawing_is_shared_by_the_motion_tasks_and_their_shifted_variants():
    for task in ("recognition", "spatial_action", "segmentation"):
        base, shifted = (DOMAINS[task, variant] for variant in ("base", "shifted"))
        assert base.classes == shifted.classes and base.background != shifted.background
        assert not set(base.families) & set(shifted.families)
    families = [family for (_, variant), domain in DOMAINS.items() if variant == "base" for family in domain.families]
    assert len(families) == len(set(families)), "each task has families of its own"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recogniton", [0], {}), "Unknown video task 'recogniton'.*'recognition'"),
        (("recognition", [0], {"part": "val"}), "Unknown part of the clips 'val'; legal values: test, train, tune"),
        (("video_object", [0], {"variant": "shifted"}), "Unknown variant of task 'video_object' 'shifted'.*base"),
        (("recognition", [], {}), "give at least one index"),
        (("recognition", [-1], {}), "0 or more"),
        (("recognition", [0], {"seed": -1}), "seed of 0 or more"),
    ],
)
def test_bad_requests_are_one_sentence(arguments, message):
    task, indices, options = arguments
    with pytest.raises(UserError, match=message):
        clips(task, indices, **options)


def test_classes_know_their_task():
    assert {task: len(classes(task)) for task in TASKS} == {
        "recognition": 13,
        "spatial_action": 11,
        "temporal_action": 12,
        "segmentation": 10,
        "video_object": 12,
        "video_instance": 12,
    }
    with pytest.raises(UserError, match="video task"):
        classes("detection")
