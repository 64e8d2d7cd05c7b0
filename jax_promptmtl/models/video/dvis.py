"""DVIS for video instance segmentation: a segmenter of single frames, a tracker, and a refiner of whole videos.

After zhang-tao-whu/DVIS: a ResNet and Mask2Former's two decoders see every frame by itself (MinVIS, the first stage);
the referring tracker (online) and the temporal refiner (offline) link its queries into instances. The split is inside
the encoder of the pixel decoder, the only place with dense tokens; the prompts of a video go to all its frames. Place
and rule of insertion are our choice, as DLM-VMTL does not specify them for such models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.models.layers.deformable import Shapes
from jax_promptmtl.models.video import tracker
from jax_promptmtl.models.video.mask_decoder import MaskDecoder, MaskDecoderConfig
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves
from jax_promptmtl.models.video.pixel_decoder import PixelDecoder, PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNet, ResNetConfig
from jax_promptmtl.models.video.tracker import ReferringTracker, TemporalRefiner, TrackerConfig

Array = jax.Array
STAGES = ("minvis", "online", "offline")
INSERTIONS = ("joint_softmax", "decoder_queries")


@dataclass(frozen=True)
class DvisConfig:
    """Sizes of a DVIS; the defaults are those of YouTube-VIS 2019 with a ResNet-50.

    Attributes:
      stage: minvis is the segmenter alone, whose queries are linked from frame to frame; online adds the tracker;
        offline also adds the refiner.
      backbone: of the ResNet; all its maps but the first enter the pixel decoder's encoder.
      pixels: of the pixel decoder.
      decoder: of the mask decoder.
      tracker: of the tracker, and of the refiner.
    """

    stage: str = "online"
    backbone: ResNetConfig = field(default_factory=lambda: ResNetConfig(dilated=()))
    pixels: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    decoder: MaskDecoderConfig = field(default_factory=MaskDecoderConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        pick(self.stage, STAGES, "stage of DVIS")

    @property
    def width(self) -> int:
        """Return the width of the middle tokens."""
        return self.pixels.width

    def shapes(self, height: int, width: int) -> Shapes:
        """Return the shapes of the encoder's maps of a frame, coarse to fine.

        >>> DvisConfig().shapes(360, 640)
        [(12, 20), (23, 40), (45, 80)]
        """
        return self.backbone.shapes_of(height, width)[:0:-1]


class Instances(NamedTuple):
    """Predictions for B videos after each of K layers of the last part.

    Attributes:
      logits: float[K, B, L, Q, C + 1]; the last class is "no object".
      masks: float[K, B, L, Q, h, w], logits.
      guide_logits: float[B, L, Q, C + 1], of the part below, its queries in the same order.
      guide_masks: float[B, L, Q, h, w], likewise.
      valid: bool[B, L], false where a frame is padding.
    """

    logits: Array
    masks: Array
    guide_logits: Array
    guide_masks: Array
    valid: Array


class Dvis(nn.Module):
    """The model with the parts of its stage."""

    config: DvisConfig

    def setup(self) -> None:
        c = self.config
        self.backbone, self.pixels, self.decoder = ResNet(c.backbone), PixelDecoder(c.pixels), MaskDecoder(c.decoder)
        if c.stage != "minvis":
            self.tracker = ReferringTracker(c.tracker)
        if c.stage == "offline":
            self.refiner = TemporalRefiner(c.tracker)

    def lower(self, video: Array, middle: int) -> tuple[Array, Array]:
        """Return the tokens before encoder layer `middle`, and the finest map, which bypasses the encoder.

        Args:
          video: float[B, L, H, W, 3], normalised.
          middle: encoder layers to run.

        Returns:
          float[B, L, N, D] and float[B, L, h, w, C].
        """
        fine, *maps = self.backbone.maps(rearrange(video, "b l h w c -> (b l) h w c"))
        shapes = self.config.shapes(*video.shape[2:4])
        tokens = self.pixels.encode(self.pixels.begin(maps[::-1]), shapes, stop=middle)
        clips = video.shape[:2]
        return tokens.reshape(*clips, *tokens.shape[1:]), fine.reshape(*clips, *fine.shape[1:])

    def upper(
        self,
        tokens: Array,
        fine: Array,
        valid: Array,
        shapes: Shapes,
        prompts: Array | None = None,
        *,
        middle: int,
        leave: int | None = None,
        insertion: str = "joint_softmax",
    ) -> Instances:
        """Run the rest of the encoder with prompts, then all else without them.

        Args:
          tokens: float[B, L, N, D], of `lower`.
          fine: float[B, L, h, w, C], of `lower`.
          valid: bool[B, L], true up to the last frame.
          shapes: of the maps whose tokens these are.
          prompts: float[B, P, D] or float[1, P, D].
          middle: encoder layer before which prompts enter.
          leave: encoder layer before which they leave; after the last one when `None`.
          insertion: joint_softmax, as above; or decoder_queries, as queries in the mask decoder's upper half.
        """
        clips = tokens.shape[:2]
        if prompts is not None:
            prompts = jnp.broadcast_to(prompts, (clips[0], *prompts.shape[1:]))
            prompts = repeat(prompts, "b p d -> (b l) p d", l=clips[1])
        tokens, fine = (x.reshape(-1, *x.shape[2:]) for x in (tokens, fine))
        below, above = (prompts, None) if insertion == "joint_softmax" else (None, prompts)
        tokens = self.pixels.encode(tokens, shapes, below, start=middle, leave=leave)
        maps, features = self.pixels.finish(tokens, shapes, fine)
        logits, masks, queries = self.decoder(maps, features, above)
        logits, masks = (x.reshape(len(x), *clips, *x.shape[2:]) for x in (logits, masks))
        queries, features = (x.reshape(*clips, *x.shape[1:]) for x in (queries, features))
        return self.instances(logits, masks, queries, features, valid)

    def instances(self, logits: Array, masks: Array, queries: Array, features: Array, valid: Array) -> Instances:
        """Link the segmenter's predictions per frame into instances; see `Instances` and `Segments`."""
        if self.config.stage == "minvis":
            order = tracker.follow(queries)
            logits, masks = (jax.vmap(tracker.reorder, (0, None))(x, order) for x in (logits, masks))
            return Instances(logits, masks, logits[-1], masks[-1], valid)
        tracked, order = self.tracker(queries, features)
        if self.config.stage == "online":
            guide_logits, guide_masks = (tracker.reorder(x[-1], order) for x in (logits, masks))
            return Instances(tracked.logits, tracked.masks, guide_logits, guide_masks, valid)
        refined = self.refiner(tracked.queries, self.tracker.alone(queries), features, valid)
        return Instances(refined.logits, refined.masks, tracked.logits[-1], tracked.masks[-1], valid)

    def __call__(self, video: Array, valid: Array) -> Instances:
        """Return the instances of normalised videos float[B, L, H, W, 3]; valid is bool[B, L]."""
        tokens, fine = self.lower(video, self.config.pixels.layers)
        shapes = self.config.shapes(*video.shape[2:4])
        return self.upper(tokens, fine, valid, shapes, middle=self.config.pixels.layers)


def handle(
    name: str,
    config: DvisConfig,
    params: Mapping[str, Any],
    size: tuple[int, int],
    cut: Cut = IN_HALF,
    insertion: str = "joint_softmax",
) -> VideoBackbone:
    """Return a DVIS split within its encoder; see `halves`.

    The inputs of `lower` are {video: float[B, L, H, W, 3], mask: bool[B, L]}, true up to the last frame of a video;
    `upper` gives `Instances`. The middle tokens are those of all frames, concatenated.

    Args:
      name, config, params, cut: see `halves`.
      size: height and width of the frames.
      insertion: joint_softmax or decoder_queries, see `Dvis.upper`; the latter has no `drop_after`.
    """
    if pick(insertion, INSERTIONS, "insertion") == "decoder_queries" and cut.drop_after:
        raise UserError(f"drop_after is {cut.drop_after}, but prompts of 'decoder_queries' stay; give 0.")
    model, shapes = Dvis(config), config.shapes(*size)
    lower, upper = partial(lower_half, model, size), partial(upper_half, model, shapes, insertion)
    return halves(name, config.width, config.pixels.layers, params, lower, upper, cut)


def lower_half(
    model: Dvis, size: tuple[int, int], middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]
) -> Middle:
    """Return the middle state of videos; it carries the finest map and which frames there are."""
    video, valid = inputs["video"], inputs["mask"]
    if video.ndim != 5 or video.shape[2:4] != size or valid.shape != video.shape[:2]:
        raise UserError(
            f"Clips of shape {video.shape} with a mask of shape {valid.shape} do not fit; give [clips, frames, "
            f"{size[0]}, {size[1]}, 3] and [clips, frames]."
        )
    found: Any = model.apply({"params": params}, video, middle, method="lower")
    tokens, fine = found
    mask = jnp.repeat(valid, tokens.shape[2], axis=1)
    return Middle(rearrange(tokens, "b l n d -> b (l n) d"), mask, {"fine": fine, "valid": valid})


def upper_half(
    model: Dvis,
    shapes: Shapes,
    insertion: str,
    middle: int,
    leave: int,
    params: Mapping[str, Any],
    state: Middle,
    prompts: Array | None,
) -> Instances:
    """Return `Instances` of a middle state and prompts float[B or 1, P, D]."""
    fine, valid = state.carry["fine"], state.carry["valid"]
    tokens = rearrange(state.tokens, "b (l n) d -> b l n d", l=valid.shape[1])
    options: dict[str, Any] = {"middle": middle, "leave": leave, "insertion": insertion}
    found: Any = model.apply({"params": params}, tokens, fine, valid, shapes, prompts, **options, method="upper")
    result: Instances = found
    return result
