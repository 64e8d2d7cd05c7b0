"""A tiny CLIP with random weights and a folder of tiny images, for tests of whole jobs."""

import jax
import numpy as np
from PIL import Image

from jax_promptmtl.core import tree
from jax_promptmtl.core.hashes import weights_sha256
from jax_promptmtl.experiments.video import icon_footage
from jax_promptmtl.experiments.video import rows as video_rows
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer, learn_merges
from jax_promptmtl.models.video.model_file import write_model
from jax_promptmtl.problems.video_tasks import SPECS, icons
from jax_promptmtl.reporting import records

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile fast, run slow
CLASSES = ("cat", "dog", "red_fox")
TASKS = ("ink", "oil", "pen", "wax")


def save_clip(folder, seed=0):
    """Save a random CLIP of width 64 with two layers, eight-pixel images and a learnt vocabulary."""
    tokenizer = Tokenizer(learn_merges([name.replace("_", " ") for name in CLASSES], 20))
    config = ClipConfig(16, 8, 4, 64, 2, 1, 16, tokenizer.vocab_size, 64, 2, 1, "quick_gelu")
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), convert.shapes(config))
    for path, leaf in tree.flatten(params).items():  # else biases drown the images, and all are of one class
        leaf *= 0.1 if path.endswith("bias") else 1
        leaf += 1 if path.endswith("scale") else 0
    params["logit_scale"] = np.float32(2.0)
    convert.save(folder, config, params)
    tokenizer.save(folder)


def save_images(root, per_class=4):
    """Save random images root/<task>/<class>/<i>.png."""
    rng = np.random.default_rng(1)
    for task in TASKS:
        for name in CLASSES:
            (root / task / name).mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(rng.integers(0, 255, (9, 10, 3), np.uint8)).save(root / task / name / f"{i}.png")


def make_record(method="mmap", seed=0, right=((1, 0), (1, 1, 1)), drawing=None, **changes):
    """Return the record of a made-up run; `right` says of each task which test images were answered right."""
    rows = [np.array(row, bool) for row in right]
    flat = np.concatenate(rows)
    record = {
        "schema": records.SCHEMA,
        "id": f"{method}-{seed}",
        "status": "done",
        "method": method,
        "title": method,
        "suite": "tiny",
        "suite_name": "folder",
        "shots": 2,
        "seed": seed,
        "rate": None,
        "config": {},
        "written": "2026-01-01T00:00:00Z",
        "versions": {"jax": "1", "python": "3"},
        "git": None,
        "backbone": {"name": "clip", "sha256": "0" * 64},
        "split_hash": f"split{seed}",
        "tasks": [f"task{t}" for t in range(len(rows))],
        "count": [len(row) for row in rows],
        "correct": [int(row.sum()) for row in rows],
        "accuracy_per_drawing": [50.0] * len(rows),
        "right": records.pack_bits(flat),
        "drawing": records.pack_numbers(np.arange(len(flat)) if drawing is None else drawing),
        "trainable": 100,
        "total": 1000,
        "steps": 3,
        "step_seconds": 0.01,
        "images_per_second": 800.0,
        "peak_memory": 2**30,
        "wall_seconds": 2.0,
        "resumed": False,
        "error": None,
    }
    return record | changes


def save_models(folder):
    """Save random small models of the video tasks."""
    rng = np.random.default_rng(0)
    for task, spec in SPECS.items():
        shapes = jax.eval_shape(lambda task=task: icons.initial(task, 0))
        params = jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype(np.float32), shapes)
        if spec.classifies:  # recognition, which comes first and makes the features
            sha = weights_sha256(params)
        write_model(folder, task, params, {"features": sha} if spec.extractor else {})


def make_video_record(task="recognition", method="dlm", seed=0, score=50.0, **changes):
    """Return the record of a made-up run of the video benchmark; its static prompts are 2 points worse."""
    metric = {"recognition": "top1", "segmentation": "f1@50"}.get(task, "map")
    parts = icon_footage.parts_of(task)[1:]
    kinds = {"dynamic": 0, "static": 2} if method in video_rows.MAPPED else {"dynamic": 0}
    scores = {
        kind: {part: {metric: score - less - 10 * place} for place, part in enumerate(parts)}
        for kind, less in kinds.items()
    }
    record = {
        "schema": records.SCHEMA,
        "kind": "video",
        "id": f"{method}-{task}-{seed}",
        "status": "done",
        "task": task,
        "method": method,
        "title": video_rows.ROWS[method][0],
        "seed": seed,
        "config": {"clips": {"train": 256, "test": 512}},
        "written": "2026-01-01T00:00:00Z",
        "weights": {"recognition": "0" * 64},
        "metric": metric,
        "scores": scores,
        "curve": [{metric: score - 3}, {metric: score}] if method in ("dlm", "single_layer") else [],
        "trainable": 0 if method == "frozen" else 300,
        "primary": 600,
        "loaded": 1500,
        "steps": 10,
        "step_seconds": 0.05,
        "wall_seconds": 9.0,
        "resumed": False,
    }
    return record | changes
