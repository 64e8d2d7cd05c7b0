"""Spatial action detection as on AVA: a VideoMAE with RoIAlign per box and multi-label classification.

The maths of VideoMAE's detection recipe: LayerNorm, mean over time, RoIAlign to 7 x 7 cells, maximum over the cells,
affine map. Boxes are given: ground truth in training, a person detector's in testing.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.position import Grid
from jax_promptmtl.models.layers.transformer import LayerNorm, LayerPrompts, Linear
from jax_promptmtl.models.video.middle import IN_HALF, Cut, Middle, VideoBackbone, halves, until
from jax_promptmtl.models.video.videomae import EPSILON, VideoMae, VideoMaeConfig

Array = jax.Array
CELLS = 7


def roi_align(maps: Array, boxes: Array, cells: int = CELLS) -> Array:
    """Sample boxes from feature maps as torchvision's `roi_align(sampling_ratio=0, aligned=False)` does.

    Every cell is the mean of ceil(side / cells) samples per axis. A bilinear weight is the product of one per axis, so
    a box is two small matrices; samples that a smaller box does not have are masked.

    Args:
      maps: float[B, h, w, D].
      boxes: float[B, R, 4], x1, y1, x2, y2 in units of cells of the map, inside it.
      cells: output cells per axis.

    Returns:
      float[B, R, cells, cells, D].

    >>> roi_align(jnp.ones((1, 4, 4, 2)), jnp.array([[[0.5, 0.5, 2.5, 3.0]]]), 2)[0, 0, :, :, 0].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    height, width = maps.shape[1:3]
    across = axis_weights(boxes[..., 0], boxes[..., 2], width, cells)
    down = axis_weights(boxes[..., 1], boxes[..., 3], height, cells)
    return jnp.einsum("bryh,bhwd,brxw->bryxd", down, maps, across)


def axis_weights(low: Array, high: Array, size: int, cells: int) -> Array:
    """Return float[B, R, cells, size], the weight of every row (or column) of the map in every cell of the boxes.

    Args:
      low: float[B, R], where the boxes begin on this axis.
      high: float[B, R], where they end.
      size: length of the axis.
      cells: per box.
    """
    side = jnp.maximum(high - low, 1.0)
    count = jnp.ceil(side / cells)[..., None]  # samples per cell
    sample = jnp.arange(-(-size // cells) + 1)  # the number for a box of the whole map, plus one for rounding
    step = (side / cells)[..., None, None]
    inside = (sample + 0.5) / count[..., None]
    place = low[..., None, None] + (jnp.arange(cells)[:, None] + inside) * step
    clipped = jnp.clip(place, 0, size - 1)
    weight = jnp.maximum(0, 1 - jnp.abs(clipped[..., None] - jnp.arange(size)))
    legal = (place >= -1) & (place <= size) & (sample < count[..., None])
    return (weight * legal[..., None]).sum(axis=-2) / count[..., None]


class RoiHead(nn.Module):
    """LayerNorm, mean over time, RoIAlign, maximum over the cells, affine map."""

    classes: int

    @nn.compact
    def __call__(self, tokens: Array, boxes: Array, grid: Grid) -> Array:
        """Classify boxes.

        Args:
          tokens: float[B, N, D] of a grid of N tokens.
          boxes: float[B, R, 4], x1, y1, x2, y2 in [0, 1] of the frame, clipped to it.
          grid: tokens in time, rows and columns.

        Returns:
          Logits float[B, R, C].
        """
        normal = LayerNorm(EPSILON, name="norm")(tokens)
        maps = rearrange(normal, "b (t h w) d -> b t h w d", t=grid[0], h=grid[1]).mean(axis=1)
        scale = jnp.array([grid[2], grid[1], grid[2], grid[1]], maps.dtype)
        cells = roi_align(maps, jnp.clip(boxes, 0, 1) * scale)
        return Linear(self.classes, name="head")(cells.max(axis=(2, 3)))


class RoiDetector(nn.Module):
    """The trunk and the head: videos and boxes to logits float[B, R, C].

    >>> config = VideoMaeConfig(4, 8, patch=4, width=8, layers=2, heads=2, inner=16, classes=5)
    >>> video, boxes = jnp.zeros((3, 4, 8, 8, 3)), jnp.full((3, 2, 4), 0.5)
    >>> RoiDetector(config).init_with_output(jax.random.key(0), video, boxes)[0].shape
    (3, 2, 5)
    """

    config: VideoMaeConfig

    def setup(self) -> None:
        self.trunk = VideoMae(self.config)
        self.roi = RoiHead(self.config.classes)

    def lower(self, video: Array, middle: int, keep: Array | None = None) -> Array:
        """Return the middle tokens; see `VideoMae.lower`."""
        return self.trunk.lower(video, middle, keep)

    def upper(
        self,
        tokens: Array,
        boxes: Array,
        grid: Grid,
        prompts: LayerPrompts | None = None,
        *,
        middle: int,
        keep: Array | None = None,
    ) -> Array:
        """Return logits float[B, R, C] from the middle tokens; prompts are cut off before the head."""
        return self.roi(self.trunk.upper(tokens, prompts, middle=middle, keep=keep), boxes, grid)

    def __call__(self, video: Array, boxes: Array, prompts: LayerPrompts | None = None) -> Array:
        """Return logits float[B, R, C] of normalised videos float[B, L, H, W, C] and boxes float[B, R, 4]."""
        return self.roi(self.trunk(video, prompts), boxes, self.config.grid_of(video.shape))


def from_classifier(params: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters of `RoiDetector` with the trunk of a trained `VideoClassifier`, and its last norm.

    Args:
      params: those of the classifier.
      head: {kernel, bias} of the new affine map.
    """
    return {"trunk": params["trunk"], "roi": {"norm": params["pool"]["fc_norm"], "head": head}}


def handle(
    name: str,
    config: VideoMaeConfig,
    params: Mapping[str, Any],
    cut: Cut = IN_HALF,
    grid: Grid | None = None,
) -> VideoBackbone:
    """Return a detector in two halves; see `halves`.

    The inputs of `lower` are {video: float[B, L, H, W, C], boxes: float[B, R, 4]}, boxes as x1, y1, x2, y2 in [0, 1];
    an auxiliary needs none, so R may be 0; and in training perhaps `keep`, see `videomae.drop_path`. `upper` gives
    logits float[B, R, C]; those of padded boxes mean nothing.

    Args:
      name, config, params, cut: see `halves`.
      grid: of the videos, where their size differs from the config's.
    """
    model, grid = RoiDetector(config), grid or config.grid
    lower, upper = partial(lower_half, model, grid), partial(upper_half, model, grid)
    return halves(name, config.width, config.layers, params, lower, upper, cut)


def lower_half(
    model: RoiDetector, grid: Grid, middle: int, params: Mapping[str, Any], inputs: Mapping[str, Array]
) -> Middle:
    """Return the middle state of videos, which carries the boxes and what drop path keeps."""
    video, boxes = inputs["video"], inputs["boxes"]
    if (found := model.config.grid_of(video.shape)) != grid:
        raise UserError(f"A clip has {found} tokens in time, rows and columns, not {grid}; give clips of one size.")
    if boxes.ndim != 3 or boxes.shape[0] != video.shape[0] or boxes.shape[2] != 4:
        raise UserError(f"Boxes have the shape {boxes.shape}; give [clips, boxes, 4] for {video.shape[0]} clips.")
    kept: dict[str, Any] = {key: inputs[key] for key in ("keep",) if key in inputs}
    tokens: Any = model.apply({"params": params}, video, middle, **kept, method="lower")
    return Middle(tokens, jnp.ones(tokens.shape[:2], bool), {"boxes": jnp.asarray(boxes)} | kept)


def upper_half(
    model: RoiDetector,
    grid: Grid,
    middle: int,
    leave: int,
    params: Mapping[str, Any],
    state: Middle,
    prompts: Array | None,
) -> Array:
    """Return logits float[B, R, C] of a middle state and prompts float[B or 1, P, D]."""
    given = until(prompts, middle, leave, model.config.layers)
    arguments = (state.tokens, state.carry["boxes"], grid, given)
    keep = state.carry.get("keep")
    logits: Any = model.apply({"params": params}, *arguments, middle=middle, keep=keep, method="upper")
    result: Array = logits
    return result
