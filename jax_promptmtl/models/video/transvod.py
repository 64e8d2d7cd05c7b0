"""TransVOD for video object detection: single-frame detection, then attention from key frames to the other frames.

After SJTU-LuHe/TransVOD `models/deformable_{detr,transformer}_multi.py`: queries of the key frame attend to the best
queries of the reference frames, fewer in every layer (temporal query encoder), then again to the key frame's own map
(temporal decoder), and have their own heads. The temporal encoder of the paper is omitted, as the released code never
runs it. Upstream has one key frame, the first, in a batch of one video; here any number of frames are key frames, each
with all others as references, at the cost of one pass through the detector. Padding has no influence here, whereas
upstream's temporal decoder reads it. Without padding both are equal.

In the released code the temporal decoder's points are stored once per reference frame, but its CUDA kernel reads them
as if they were stored once. With R reference frames, and the heads of all queries numbered in order, head i samples
where head i // R should. Released weights were trained this way; `temporal_points` selects either behaviour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.models.layers.deformable import valid_ratios
from jax_promptmtl.models.layers.transformer import Attention, LayerNorm, Linear
from jax_promptmtl.models.video.deformable_detr import (
    BoxHead,
    Decoded,
    DecoderBlock,
    DeformableDetr,
    DetectorConfig,
    Shape,
    anchored,
    class_head,
    refined,
)
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves

Array = jax.Array
INSERTIONS = ("joint_softmax", "decoder_queries")
TEMPORAL_POINTS = ("released", "fixed")


@dataclass(frozen=True)
class TransVodConfig:
    """Sizes of a TransVOD; the defaults are those of upstream with ResNet-50.

    Attributes:
      detector: of the detector of single frames.
      selected: queries per reference frame that each layer of the temporal query encoder sees; none for the detector
        of single frames alone.
      keys: number of key frames, the first of a video; 0 for all.
      temporal_points: released, as in upstream's code, where most queries sample at wrong locations; or fixed.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    selected: tuple[int, ...] = (80, 50, 30)
    keys: int = 1
    temporal_points: str = "released"

    def __post_init__(self) -> None:
        pick(self.temporal_points, TEMPORAL_POINTS, "temporal_points")

    def keys_of(self, frames: int) -> int:
        """Return the number of key frames in a video of `frames` frames."""
        d, least = self.detector, 2 if self.selected else 1
        if frames < max(self.keys, least) or max(self.selected, default=0) > d.queries * d.classes:
            raise UserError(
                f"A TransVOD with {self.keys} key frames, {d.queries} queries and {d.classes} classes that selects "
                f"{self.selected} cannot see {frames} frames; give {max(self.keys, least)} or more, or select fewer."
            )
        return self.keys or frames


class Detections(NamedTuple):
    """Predictions: S stages, of which the last counts, K key frames, Q boxes, C classes.

    Attributes:
      logits: float[B, S, K, Q, C].
      boxes: float[B, S, K, Q, 4], centre x, y, width, height in [0, 1] of the frame.
    """

    logits: Array
    boxes: Array


class QueryBlock(nn.Module):
    """Self-attention of a frame's queries, attention to those of other frames, MLP; post-norm, without positions."""

    heads: int
    inner: int

    @nn.compact
    def __call__(self, x: Array, others: Array) -> Array:
        """Return float[N, Q, D] from float[N, Q, D] and float[N, M, D]."""
        width = x.shape[-1]
        attn = Attention(width, self.heads, name="self_attn")
        x = LayerNorm(name="ln_1")(x + attn(x, attn.keys_values(x)))
        look = Attention(width, self.heads, name="cross_attn")
        x = LayerNorm(name="ln_2")(x + look(x, look.keys_values(others)))
        hidden = nn.relu(Linear(self.inner, name="fc")(x))
        result: Array = LayerNorm(name="ln_3")(x + Linear(width, name="proj")(hidden))
        return result


class Temporal(nn.Module):
    """The temporal query encoder, the temporal decoder and its heads."""

    config: TransVodConfig

    @nn.compact
    def __call__(self, found: Decoded, cells: Array, mask: Array, shape: Shape, frames: int) -> tuple[Array, Array]:
        """Detect the key frames.

        Args:
          found: of the detector, N = B F frames.
          cells: float[N, h w, D] of the encoder.
          mask: bool[N, h w].
          shape: of the map.
          frames: in a video, F.

        Returns:
          logits float[B K, Q, C] and boxes float[B K, Q, 4].
        """
        c, d, keys = self.config, self.config.detector, self.config.keys_of(frames)
        key = partial(key_frames, frames=frames, keys=keys)
        best = best_queries(found, frames, keys, max(c.selected))
        x = key(found.content)
        for i, count in enumerate(c.selected):
            x = QueryBlock(d.heads, d.inner, name=f"queries_{i}")(x, best[:, : count * (frames - 1)])
        reference, shown = key(found.reference), key(mask)
        where = anchored(reference, valid_ratios(shown, [shape]))
        stray = frames - 1 if c.temporal_points == "released" else 1
        block = DecoderBlock(d.heads, d.points, d.inner, stray, name="decoder")
        x, _ = block(x, 0.0, where, key(cells), shape, shown, x[:, :0])
        return class_head(d.classes, "classify")(x), refined(BoxHead(name="place")(x), reference)


def key_frames(x: Array, frames: int, keys: int) -> Array:
    """Return the first `keys` of every `frames` rows: [B F, ...] -> [B K, ...].

    >>> key_frames(jnp.arange(6), frames=3, keys=2).tolist()
    [0, 1, 3, 4]
    """
    return x.reshape(-1, frames, *x.shape[1:])[:, :keys].reshape(-1, *x.shape[1:])


def best_queries(found: Decoded, frames: int, keys: int, count: int) -> Array:
    """Return for every key frame the best queries of the other frames, float[B K, (F - 1) count, D], best first.

    As in upstream, a query occurs once for each of its classes that scores high enough.

    Args:
      found: of the detector, N = B F frames.
      frames: F.
      keys: K.
      count: queries per reference frame.
    """
    others = np.array([[f for f in range(frames) if f != k] for k in range(keys)])
    logits, content = (rearrange(x, "(b f) ... -> b f ...", f=frames)[:, others] for x in (found.logits[-1], found[0]))
    score = rearrange(logits, "b k f q c -> (b k) (f q c)")
    place = jax.lax.top_k(score, count * (frames - 1))[1] // logits.shape[-1]
    return jnp.take_along_axis(rearrange(content, "b k f q d -> (b k) (f q) d"), place[..., None], axis=1)


class TransVod(nn.Module):
    """The detector with the optional temporal part.

    Between its halves are the cells of the map (`joint_softmax`: prompts enter the encoder), or the queries
    (`decoder_queries`: prompts enter the decoder, and the encoder is below).
    """

    config: TransVodConfig

    def setup(self) -> None:
        self.detector = DeformableDetr(self.config.detector)
        if self.config.selected:
            self.temporal = Temporal(self.config)

    def encode(self, video: Array, mask: Array, stop: int | None = None) -> tuple[Array, Array]:
        """Return the cells before layer `stop` of the encoder, float[B F, h w, D], and their mask bool[B F, h w].

        Args:
          video: normalised frames float[B, F, H, W, 3].
          mask: bool[B, H, W], false in padding, which is at the right and at the bottom.
          stop: layer to stop before.
        """
        shape = self.config.detector.resnet.shape_of(*video.shape[2:4])
        shown = repeat(shrink(mask, shape), "b h w -> (b f) (h w)", f=video.shape[1])
        cells = self.detector.embed(rearrange(video, "b f h w c -> (b f) h w c"))
        return self.detector.encode(cells, shown, shape, stop=stop), shown

    def detect(self, found: Decoded, cells: Array, mask: Array, shape: Shape, frames: int) -> Detections:
        """Run the temporal part after the detector's, and put the stages together."""
        keys = self.config.keys_of(frames)
        stages = [
            tuple(key_frames(x, frames, keys) for x in pair) for pair in zip(found.logits, found.boxes, strict=True)
        ]
        if self.config.selected:
            stages.append(self.temporal(found, cells, mask, shape, frames))
        parts = (jnp.stack(part) for part in zip(*stages, strict=True))
        return Detections(*(rearrange(part, "s (b k) q c -> b s k q c", k=keys) for part in parts))

    def upper_encoder(
        self, cells: Array, mask: Array, prompts: Array | None, shape: Shape, frames: int, middle: int, leave: int
    ) -> Detections:
        """Run the rest from the cells before layer `middle` of the encoder; every frame has the video's prompts."""
        d = self.detector
        given = None if prompts is None else per_frame(prompts, len(cells), frames)
        cells = d.encode(cells, mask, shape, given, middle, None, leave)
        return self.detect(d.decode(d.begin(len(cells)), cells, mask, shape), cells, mask, shape, frames)

    def lower_decoder(self, cells: Array, mask: Array, shape: Shape, middle: int) -> Decoded:
        """Return the decoder's state before its layer `middle`."""
        return self.detector.decode(self.detector.begin(len(cells)), cells, mask, shape, stop=middle)

    def upper_decoder(
        self,
        state: Decoded,
        cells: Array,
        mask: Array,
        prompts: Array | None,
        shape: Shape,
        frames: int,
        middle: int,
        leave: int,
    ) -> Detections:
        """Run the rest from layer `middle` of the decoder on."""
        given = None if prompts is None else per_frame(prompts, len(cells), frames)
        found = self.detector.decode(state, cells, mask, shape, given, middle, None, leave)
        return self.detect(found, cells, mask, shape, frames)

    def __call__(self, video: Array, mask: Array) -> Detections:
        """Return detections in the key frames of normalised videos; see `encode`."""
        cells, shown = self.encode(video, mask)
        shape = self.config.detector.resnet.shape_of(*video.shape[2:4])
        found = self.detector.decode(self.detector.begin(len(cells)), cells, shown, shape)
        return self.detect(found, cells, shown, shape, video.shape[1])


def shrink(mask: Array, shape: Shape) -> Array:
    """Subsample the mask of pixels to a map, bool[B, h, w]: a cell takes the value of its first pixel.

    >>> shrink(jnp.array([[[True, True, True, False]]]), (1, 2)).tolist()
    [[[True, True]]]
    """
    rows, columns = (np.arange(n) * size // n for n, size in zip(shape, mask.shape[1:], strict=True))
    return mask[:, rows][:, :, columns]


def per_frame(prompts: Array, rows: int, frames: int) -> Array:
    """Return the prompts of every frame, float[rows, P, D], from those of the videos float[B or 1, P, D]."""
    clips = jnp.broadcast_to(prompts, (rows // frames, *prompts.shape[1:]))
    return repeat(clips, "b p d -> (b f) p d", f=frames)


def handle(
    name: str,
    config: TransVodConfig,
    params: Mapping[str, Any],
    frames: int,
    size: Shape,
    cut: Cut = IN_HALF,
    insertion: str = "joint_softmax",
) -> VideoBackbone:
    """Return a TransVOD split within its encoder (or, with `decoder_queries`, its decoder); see `halves`.

    The inputs of `lower` are {video: float[B, F, H, W, 3], mask: bool[B, H, W]}; `upper` gives `Detections`. Both rules
    for prompts are ours; DLM-VMTL does not define prompts in deformable attention.

    Args:
      name, config, params, cut: see `halves`.
      frames: of every video, F.
      size: rows and columns of its frames in pixels, padding included.
      insertion: joint_softmax, where prompts enter the encoder as in `layers/deformable.py`; or decoder_queries,
        where they take part in the self-attention of the decoder's queries.
    """
    model, shape = TransVod(config), config.detector.resnet.shape_of(*size)
    in_encoder = pick(insertion, INSERTIONS, "insertion") == "joint_softmax"
    setting = Setting(model, frames, size, shape)
    lower, upper = (lower_encoder, upper_encoder) if in_encoder else (lower_decoder, upper_decoder)
    depth = config.detector.encoders if in_encoder else config.detector.decoders
    parts = (partial(lower, setting), partial(upper, setting))
    return halves(name, config.detector.width, depth, params, *parts, cut)


class Setting(NamedTuple):
    """A model and the videos that it sees: their frames, the size of these, the shape of their maps."""

    model: TransVod
    frames: int
    size: Shape
    shape: Shape

    def read(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return the video and the mask of the inputs."""
        video, mask = inputs["video"], inputs["mask"]
        if video.ndim != 5 or video.shape[1:] != (self.frames, *self.size, 3) or mask.shape != (len(video), *self.size):
            height, width = self.size
            raise UserError(
                f"A video of shape {video.shape} with a mask of shape {mask.shape} does not fit; give "
                f"[clips, {self.frames}, {height}, {width}, 3] and [clips, {height}, {width}]."
            )
        return video, mask

    def run(self, params: Mapping[str, Any], method: str, *inputs: Any) -> Any:
        """Apply a method of the model."""
        return self.model.apply({"params": params}, *inputs, method=method)

    def clips(self, x: Array) -> Array:
        """Put the frames of a video side by side: [B F, N, ...] -> [B, F N, ...]."""
        return rearrange(x, "(b f) n ... -> b (f n) ...", f=self.frames)

    def single(self, x: Array) -> Array:
        """Invert `clips`."""
        return rearrange(x, "b (f n) ... -> (b f) n ...", f=self.frames)


def lower_encoder(setting: Setting, middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]) -> Middle:
    """Return the middle state of videos: the cells of all frames."""
    cells, mask = setting.run(params, "encode", *setting.read(inputs), middle)
    return Middle(setting.clips(cells), setting.clips(mask))


def upper_encoder(
    setting: Setting, middle: int, leave: int, params: Mapping[str, Any], state: Middle, prompts: Array | None
) -> Detections:
    """Return `Detections` of a middle state and prompts float[B or 1, P, D]."""
    cells, mask = setting.single(state.tokens), setting.single(state.mask)
    result: Detections = setting.run(
        params, "upper_encoder", cells, mask, prompts, setting.shape, setting.frames, middle, leave
    )
    return result


def lower_decoder(setting: Setting, middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]) -> Middle:
    """Return the middle state of videos: the queries of all frames; `carry` holds cells and detections so far."""
    cells, mask = setting.run(params, "encode", *setting.read(inputs))
    state = setting.run(params, "lower_decoder", cells, mask, setting.shape, middle)
    content, reference, logits, boxes = jax.tree.map(setting.clips, state)
    carry = {"cells": setting.clips(cells), "mask": setting.clips(mask), "reference": reference}
    found = {f"stage_{i}": {"logits": a, "boxes": b} for i, (a, b) in enumerate(zip(logits, boxes, strict=True))}
    return Middle(content, jnp.ones(content.shape[:2], bool), carry | found)


def upper_decoder(
    setting: Setting, middle: int, leave: int, params: Mapping[str, Any], state: Middle, prompts: Array | None
) -> Detections:
    """Return `Detections` of a middle state and prompts float[B or 1, P, D]."""
    carry = jax.tree.map(setting.single, state.carry)
    stages = [carry[f"stage_{i}"] for i in range(middle)]
    logits, boxes = (tuple(stage[key] for stage in stages) for key in ("logits", "boxes"))
    known = Decoded(setting.single(state.tokens), carry["reference"], logits, boxes)
    seen = (known, carry["cells"], carry["mask"])
    result: Detections = setting.run(
        params, "upper_decoder", *seen, prompts, setting.shape, setting.frames, middle, leave
    )
    return result
