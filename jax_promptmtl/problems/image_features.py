"""Features of a frozen image tower, computed once for images that are never augmented.

These are test images, and training images without augmentation. Every method that does not change the tower accepts
features: zero-shot, CoOp, CLIP-Adapter.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jax_promptmtl.core.problem import Batch
from jax_promptmtl.data import sampler
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.data.source import FeatureSource, Suite
from jax_promptmtl.engine.parallel import parallelize, replicate
from jax_promptmtl.models.clip.model import Backbone, cast_params


def encode_images(
    backbone: Backbone, batches: Iterable[Mapping[str, Any]], *, dtype: str = "float32", mode: str = "jit"
) -> Iterator[dict[str, Any]]:
    """Yield batches with `features` float[B, E] in place of `image`; every process encodes its own.

    Args:
      backbone: the CLIP.
      batches: with `image` float[B, h, w, 3] and other arrays, all of one size.
      dtype: of the tower's matrices; see `clip_mtl.Options`.
      mode: jit or pmap.
    """

    def features(_: Any, params: Any, batch: Batch, *, axis_name: str | None = None) -> Any:
        return backbone.model.apply({"params": params}, batch["image"], method="encode_image")

    devices = jax.local_devices()
    encode = parallelize(features, mode, devices=devices, per_example=True)
    params = replicate(cast_params(backbone.params, dtype), devices)
    for batch in batches:
        rest = {key: value for key, value in batch.items() if key != "image"}
        yield rest | {"features": np.asarray(encode({}, params, dict(batch)))}


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Options of image encoding.

    Attributes:
      batch_size: images per batch.
      workers: processes that decode images; 0 decodes in threads.
      dtype: of the tower's matrices; see `clip_mtl.Options`.
      mode: jit or pmap.
    """

    batch_size: int
    workers: int
    dtype: str
    mode: str


def encode_suite(
    suite: Suite,
    backbone: Backbone,
    preprocess: Preprocess,
    split: str,
    how: Encoding,
) -> Suite:
    """Return a suite in which one split, train or test, has features in place of images."""
    options = {"batch_size": how.batch_size, "workers": how.workers}
    batches = sampler.evaluation_batches(suite, preprocess, split=split, **options)
    encoded = list(encode_images(backbone, batches, dtype=how.dtype, mode=how.mode))
    real = np.concatenate([batch["weight"] for batch in encoded]) > 0
    features, labels, task = (np.concatenate([b[key] for b in encoded])[real] for key in ("features", "label", "task"))
    tasks = []
    for t, part in enumerate(suite.tasks):
        sources: dict[str, Any] = {
            split: FeatureSource(features[task == t], labels[task == t], getattr(part, split).names)
        }
        tasks.append(dataclasses.replace(part, **sources))
    return dataclasses.replace(suite, tasks=tuple(tasks))
