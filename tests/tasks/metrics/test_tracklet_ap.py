"""YouTube-VIS scores: hand-computed cases, empty classes, areas, and brute force."""

import tracemalloc

import numpy as np
import pytest

from jax_promptmtl.tasks.metrics import tracklet_ap as metric


def track(*spans, length=12):
    """Build a track [L, 1, length] from the span of pixels in each frame; () is an empty mask."""
    masks = np.zeros((len(spans), 1, length), bool)
    for mask, span in zip(masks, spans, strict=True):
        mask[0, slice(*span) if span else slice(0, 0)] = True
    return masks


def video(*rows):
    """Build a video from rows (track, label[, score])."""
    empty = np.zeros((0, 2, 1, 12), bool)
    result = {"mask": np.stack([r[0] for r in rows]) if rows else empty, "label": np.array([r[1] for r in rows], int)}
    return result | ({"score": np.array([r[2] for r in rows], float)} if not rows or len(rows[0]) > 2 else {})


LONG, HALF, OTHER = track((0, 10), (0, 10)), track((0, 10), ()), track((), (10, 12))


def test_overlap_is_the_ratio_of_sums_not_the_mean_of_ratios():
    assert metric.tube_iou(LONG[None], HALF[None]) == 0.5
    mixed = track((0, 2), (0, 10))
    wanted = track((0, 4), (0, 10))
    assert metric.tube_iou(mixed[None], wanted[None]) == pytest.approx(12 / 14)  # the mean of ratios is .75
    assert metric.tube_iou(HALF[None], OTHER[None]) == 0
    assert metric.tube_iou(np.zeros((1, 2, 1, 12)), np.zeros((1, 2, 1, 12))) == 0
    assert metric.tube_iou(np.zeros((0, 2, 1, 12)), LONG[None]).shape == (0, 1)
    assert metric.mean_area(np.stack([LONG, HALF, track((), ())])).tolist() == [10, 10, 0]


def test_by_hand():
    eight = track((0, 8), (0, 8))  # .8 of LONG: a hit at .5 to .8, seven of ten thresholds
    truth = [video((LONG, 0), (OTHER, 0)), video((LONG, 1))]
    found = [video((eight, 0, 0.9), (eight, 0, 0.8), (OTHER, 0, 0.7), (LONG, 2, 0.9)), video()]
    scores = metric.tracklet_ap(truth, found, num_classes=3)
    # class 0, to .8: hit, double, hit; above: two false, hit. Class 1: nothing found. Class 2: no truth, left out.
    low, high = (51 * 1 + 50 * 2 / 3) / 101, 51 / 3 / 101
    assert scores["ap"] == pytest.approx((0.7 * low + 0.3 * high) / 2)
    assert scores["ap50"] == scores["ap75"] == pytest.approx(low / 2)
    assert scores["ar1"] == pytest.approx(0.7 * 0.5 / 2) and scores["ar10"] == pytest.approx((0.7 * 1 + 0.3 * 0.5) / 2)


def test_without_truth_there_is_no_score_and_without_detections_it_is_zero():
    assert all(np.isnan(v) for v in metric.tracklet_ap([video()], [video((LONG, 0, 1.0))], num_classes=1).values())
    assert set(metric.tracklet_ap([video((LONG, 0))], [video()], num_classes=2).values()) == {0}


def test_equal_scores_keep_their_order():
    truth = [video((LONG, 0))]
    assert metric.tracklet_ap(truth, [video((LONG, 0, 0.5), (OTHER, 0, 0.5))], num_classes=1)["ap"] == 1
    assert metric.tracklet_ap(truth, [video((OTHER, 0, 0.5), (LONG, 0, 0.5))], num_classes=1)["ap"] == 0.5


def test_areas_put_other_truth_and_unmatched_others_aside():
    small, large = np.zeros((2, 1, 2, 300, 300), bool)
    small[0, :, :20, :20] = True
    large[0] = True
    truth = [{"mask": np.concatenate([small, large]), "label": np.array([0, 0])}]
    found = [truth[0] | {"score": np.array([0.5, 0.9])}]
    scores = metric.tracklet_ap(truth, found, num_classes=1, areas=True)
    assert scores["ap_small"] == scores["ap_large"] == scores["ap"] == 1 and np.isnan(scores["ap_medium"])
    only_small = [{"mask": small, "label": np.array([0])}]
    assert (
        metric.tracklet_ap(only_small, found, num_classes=1, areas=True)["ap_small"] == 1
    )  # the large one is no error
    assert metric.tracklet_ap(only_small, found, num_classes=1)["ap"] == 0.5


def slow(truth, found, c, threshold):
    """Recompute AP, AR1 and AR10 of a class at one threshold from sets of pixels, without equal scores."""

    def pixels(masks):
        return set(zip(*np.nonzero(masks), strict=True))

    rows, positives, recalled = [], 0, [0, 0]
    for t, f in zip(truth, found, strict=True):
        free = [pixels(m) for m in t["mask"][t["label"] == c]]
        positives += len(free)
        order = sorted(np.flatnonzero(f["label"] == c), key=lambda i: -f["score"][i])
        for place, i in enumerate(order):
            ours = pixels(f["mask"][i])
            overlap = [len(ours & theirs) / len(ours | theirs) for theirs in free]
            hit = bool(overlap) and max(overlap) >= threshold
            if hit:
                free.pop(int(np.argmax(overlap)))
            rows.append((f["score"][i], hit))
            recalled = [n + (hit and place < most) for n, most in zip(recalled, (1, 10), strict=True)]
    if not positives:
        return None
    hits = [hit for _, hit in sorted(rows, reverse=True)]
    cuts = [(sum(hits[:n]) / n, sum(hits[:n]) / positives) for n in range(1, len(hits) + 1)]
    at = [max((p for p, r in cuts if r >= recall), default=0) for recall in np.linspace(0, 1, 101)]
    return np.mean(at), *(n / positives for n in recalled)


@pytest.mark.parametrize("seed", range(4))
def test_brute_force(seed):
    rng = np.random.default_rng(seed)

    def tracks(count):
        start, size = rng.integers(0, 6, (count, 2)), rng.integers(3, 7, (count, 2))
        return [track(*[(a, a + n) for a, n in zip(s, z, strict=True)]) for s, z in zip(start, size, strict=True)]

    scores = iter(rng.permutation(200) / 200)
    truth = [video(*[(m, rng.integers(0, 2)) for m in tracks(rng.integers(1, 4))]) for _ in range(4)]
    found = [video(*[(m, rng.integers(0, 3), next(scores)) for m in tracks(14)]) for _ in range(4)]
    ours = metric.tracklet_ap(truth, found, num_classes=3)
    table = [[slow(truth, found, c, threshold) for threshold in metric.THRESHOLDS] for c in range(3)]
    table = np.array([row for row in table if row[0] is not None])
    assert np.allclose([ours["ap"], ours["ar1"], ours["ar10"]], table.mean((0, 1)))
    assert np.allclose([ours["ap50"], ours["ap75"]], table[:, [0, 5], 0].mean(0))


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_official_code_where_frames_are_one_tall_picture(seed, capsys):
    """The overlap of tracks is that of their frames stacked, so COCO's evaluator knows AP and AR of tracks as well."""
    coco, evaluator = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    encode = pytest.importorskip("pycocotools.mask").encode
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for n, extra in rng.integers(0, 4, (12, 2)):
        spans = rng.integers(1, 6, (n + extra, 3, 2)) + np.array([0, 6])
        moved = spans + rng.integers(-1, 2, spans.shape)
        label = rng.integers(0, 3, n)
        truth.append(
            {"mask": np.array([track(*map(tuple, s)) for s in spans[:n]]).reshape(n, 3, 1, 12), "label": label}
        )
        guess = np.concatenate([label, rng.integers(0, 4, extra)])
        mask = np.array([track(*map(tuple, s)) for s in moved]).reshape(n + extra, 3, 1, 12)
        found.append({"mask": mask, "label": guess, "score": rng.integers(0, 5, n + extra) / 5})

    def entries(videos):
        for place, one in enumerate(videos):
            for i, mask in enumerate(one["mask"]):
                code = encode(np.asfortranarray(mask.reshape(3, 12), np.uint8))
                score = {"score": float(one["score"][i])} if "score" in one else {"iscrowd": 0, "area": 9.0}
                yield {"image_id": place, "category_id": int(one["label"][i]), "segmentation": code} | score

    data = coco.COCO()
    data.dataset = {
        "images": [{"id": place, "height": 3, "width": 12} for place in range(len(truth))],
        "categories": [{"id": c} for c in range(5)],
        "annotations": [entry | {"id": n} for n, entry in enumerate(entries(truth), 1)],
    }
    data.createIndex()
    judge = evaluator.COCOeval(data, data.loadRes(list(entries(found))), "segm")
    judge.params.maxDets = [1, 10, 100]
    judge.evaluate()
    judge.accumulate()
    capsys.readouterr()
    precision, recall = judge.eval["precision"][:, :, :, 0, -1], judge.eval["recall"][:, :, 0]
    wanted = {
        "ap": precision,
        "ap50": precision[0],
        "ap75": precision[5],
        "ar1": recall[..., 0],
        "ar10": recall[..., 1],
    }
    scores = metric.tracklet_ap(truth, found, num_classes=5)
    assert scores == pytest.approx({name: table[table > -1].mean() for name, table in wanted.items()}, abs=1e-12)


def test_one_video_of_full_size_needs_little_more_than_its_masks():
    masks = np.zeros((4, 36, 192, 320), bool)
    masks[:, :, 20:90, 30:200] = True
    one = {"mask": masks, "label": np.zeros(4, int)}
    tracemalloc.start()
    metric.compare(one, one | {"score": np.ones(4)}, num_classes=40)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3 * masks.nbytes
