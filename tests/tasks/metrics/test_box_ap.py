"""Frame mAP of AVA and AP50 of COCO: hand-computed cases, the evaluators' quirks, and brute force."""

import numpy as np
import pytest

from jax_promptmtl.tasks.metrics import box_ap

UNIT = [0.0, 0.0, 1.0, 1.0]
HALF = [0.0, 0.0, 1.0, 0.5]  # IoU 0.5 with UNIT
FAR = [5.0, 5.0, 6.0, 6.0]


def frame(*rows, scored=True):
    """Build a frame from rows (box, label, score) or (box, label)."""
    result = {"box": np.array([r[0] for r in rows]).reshape(-1, 4), "label": np.array([r[1] for r in rows], int)}
    return result | ({"score": np.array([r[2] for r in rows], float)} if scored else {})


def true(*rows):
    return frame(*rows, scored=False)


def grid_iou(a, b):
    """Count the cells of a fine grid in both and in either of two boxes with integer corners."""
    cells = [{(x, y) for x in range(int(q[0]), int(q[2])) for y in range(int(q[1]), int(q[3]))} for q in (a, b)]
    return len(cells[0] & cells[1]) / max(len(cells[0] | cells[1]), 1)


def test_iou_counts_cells():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.integers(0, 6, (20, 2)), rng.integers(0, 6, (20, 2))], axis=1)
    boxes[:, 2:] += boxes[:, :2]
    table = box_ap.iou(boxes[:9], boxes[9:])
    assert np.allclose(table, [[grid_iou(a, b) for b in boxes[9:]] for a in boxes[:9]])
    assert box_ap.iou(np.zeros((0, 4)), boxes).shape == (0, 20)


def test_an_overlap_of_exactly_one_half_counts():
    for score in (box_ap.frame_ap, box_ap.coco_ap):
        assert score([true((UNIT, 0))], [frame((HALF, 0, 0.1))], num_classes=1) == 1
        assert score([true((UNIT, 0))], [frame(([0, 0, 1, 0.49], 0, 0.1))], num_classes=1) == 0


def test_by_hand_with_an_empty_class_and_empty_frames():
    truth = [true((UNIT, 0), (FAR, 0)), true(), true((UNIT, 1))]
    found = [frame((UNIT, 0, 0.9), (UNIT, 0, 0.8), (FAR, 0, 0.7)), frame((UNIT, 0, 0.75), (UNIT, 2, 0.9)), frame()]
    scores = box_ap.frame_ap(truth, found, num_classes=3)
    # class 0 by score: hit, double, false alarm, hit: precision 1 at recall 1/2, 2/4 at recall 1
    assert np.allclose(scores, [(1 + 2 / 4) / 2, 0, np.nan], equal_nan=True)
    assert np.isclose(np.nanmean(scores), 0.375)
    coco = box_ap.coco_ap(truth, found, num_classes=3)
    assert np.allclose(coco, [(51 * 1 + 50 * 0.5) / 101, 0, np.nan], equal_nan=True)


def test_only_coco_falls_back_to_the_second_best_box():
    pair = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.2]  # both overlap UNIT by more than one half, the first more
    truth, found = [true((pair[0], 0), (pair[1], 0))], [frame((UNIT, 0, 0.9), (UNIT, 0, 0.8))]
    assert box_ap.frame_ap(truth, found, num_classes=1) == 0.5
    assert box_ap.coco_ap(truth, found, num_classes=1) == 1


def test_capacity_keeps_the_best_and_counts_scored_classes_only():
    rows = [(FAR, 0, 0.9 - 0.001 * i) for i in range(49)]
    truth = [true((UNIT, 0), (UNIT, 3))]
    last, beyond = [*rows, (UNIT, 0, 0.1)], [*rows, (FAR, 0, 0.5), (UNIT, 0, 0.1)]
    assert box_ap.frame_ap(truth, [frame(*last)], num_classes=4)[0] == pytest.approx(1 / 50)
    assert box_ap.frame_ap(truth, [frame(*beyond)], num_classes=4)[0] == 0
    other = [(FAR, 3, 0.99)] * 5 + last
    assert box_ap.frame_ap(truth, [frame(*other)], num_classes=4)[0] == 0
    scored = box_ap.frame_ap(truth, [frame(*other)], num_classes=4, scored=(0, 1, 2))
    assert scored[0] == pytest.approx(1 / 50) and np.isnan(scored[1:]).all()


def test_a_full_frame_is_not_changed_by_a_box_of_the_lowest_score():
    rows = [(FAR, 0, 0.5)] * 50
    assert box_ap.frame_ap([true((UNIT, 0))], [frame(*rows, (UNIT, 0, 0.5))], num_classes=1) == 0
    assert box_ap.frame_ap([true((UNIT, 0))], [frame(*rows, (UNIT, 0, 0.51))], num_classes=1) == 1


def test_boxes_without_area_are_dropped_and_late_ties_come_first():
    flat = [0.0, 0.0, 1.0, 0.0]
    assert box_ap.frame_ap([true((UNIT, 0))], [frame((flat, 0, 0.9), (UNIT, 0, 0.1))], num_classes=1) == 1
    truth = [true((UNIT, 0)), true((UNIT, 0))]
    early = [frame((UNIT, 0, 0.5)), frame((FAR, 0, 0.5))]
    assert box_ap.frame_ap(truth, early, num_classes=1) == 0.25  # the false one, of the later frame, is ranked first
    assert box_ap.frame_ap(truth, early[::-1], num_classes=1) == 0.5


def slow_frame_ap(truth, found, c):
    """Recompute one class by ranking all detections globally and matching in that order, without ties."""
    rows = [(f["score"][i], v, f["box"][i]) for v, f in enumerate(found) for i in np.flatnonzero(f["label"] == c)]
    boxes = [[b for b, label in zip(t["box"], t["label"], strict=True) if label == c] for t in truth]
    positives, taken, hits = sum(map(len, boxes)), set(), []
    for _, v, box in sorted(rows, key=lambda row: -row[0]):
        overlaps = [grid_iou(box, b) for b in boxes[v]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= 0.5 and (v, best) not in taken)
        taken |= {(v, best)} if hits[-1] else set()
    if not positives:
        return np.nan
    best_after = [max(sum(hits[: n + 1]) / (n + 1) for n in range(m, len(hits))) for m in range(len(hits))]
    return sum(p for p, hit in zip(best_after, hits, strict=True) if hit) / positives


@pytest.mark.parametrize("seed", range(8))
def test_brute_force(seed):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 4, (count, 2))
        return np.concatenate([corner, corner + rng.integers(1, 4, (count, 2))], axis=1)

    sizes = rng.integers(0, 7, (2, 6))
    truth = [{"box": boxes(n), "label": rng.integers(0, 3, n)} for n in sizes[0]]
    scores = rng.permutation(100) / 100
    found = [
        {"box": boxes(n), "label": rng.integers(0, 4, n), "score": scores[i * 8 : i * 8 + n]}
        for i, n in enumerate(sizes[1])
    ]
    ours = box_ap.frame_ap(truth, found, num_classes=4)
    assert np.allclose(ours, [slow_frame_ap(truth, found, c) for c in range(4)], equal_nan=True)


def test_coco_reads_the_hundred_best_of_a_frame():
    rows = [(FAR, 1, 0.9)] * 100
    assert box_ap.coco_ap([true((UNIT, 0))], [frame(*rows, (UNIT, 0, 0.1))], num_classes=2)[0] == 0
    assert box_ap.coco_ap([true((UNIT, 0))], [frame(*rows[1:], (UNIT, 0, 0.1))], num_classes=2)[0] == 1


@pytest.mark.parametrize("seed", range(5))
def test_coco_equals_the_official_code(seed, capsys):
    """Frames without truth or detections, a class without truth, equal scores, equal overlaps."""
    coco, evaluator = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for n, extra in rng.integers(0, 4, (30, 2)):
        box = rng.integers(0, 6, (n, 4)) + np.array([0, 0, 8, 8])  # whole numbers: many overlaps are equal
        other = rng.integers(0, 6, (extra, 4)) + np.array([0, 0, 8, 8])
        moved = np.concatenate([box + rng.integers(-1, 2, (n, 4)), other])
        label = rng.integers(0, 3, n)
        truth.append({"box": box, "label": label})
        guess = np.concatenate([label, rng.integers(0, 4, extra)])
        found.append({"box": moved, "label": guess, "score": rng.integers(0, 5, n + extra) / 5})
    data = coco.COCO()
    true_rows, rows = (
        [(f, i) for f, frame in enumerate(frames) for i in range(len(frame["label"]))] for frames in (truth, found)
    )

    def entry(frame, place, i):
        x1, y1, x2, y2 = map(float, frame["box"][i])
        return {"image_id": place, "category_id": int(frame["label"][i]), "bbox": [x1, y1, x2 - x1, y2 - y1]}

    data.dataset = {
        "images": [{"id": f} for f in range(len(truth))],
        "categories": [{"id": c} for c in range(5)],
        "annotations": [
            entry(truth[f], f, i) | {"id": n, "iscrowd": 0, "area": 49.0} for n, (f, i) in enumerate(true_rows, 1)
        ],
    }
    data.createIndex()
    judge = evaluator.COCOeval(
        data, data.loadRes([entry(found[f], f, i) | {"score": found[f]["score"][i]} for f, i in rows]), "bbox"
    )
    judge.params.iouThrs = np.array([0.5])
    judge.evaluate()
    judge.accumulate()
    capsys.readouterr()
    official = judge.eval["precision"][0, :, :, 0, -1]  # [recalls, classes], -1 without truth
    wanted = np.where((official >= 0).any(axis=0), official.mean(axis=0), np.nan)
    np.testing.assert_allclose(box_ap.coco_ap(truth, found, num_classes=5), wanted, atol=1e-12)
