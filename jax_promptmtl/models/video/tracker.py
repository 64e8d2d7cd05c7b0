"""Link queries of single frames into instances of a video: MinVIS, DVIS's referring tracker and temporal refiner.

After zhang-tao-whu/DVIS `dvis/video_dvis_modules.py`, in padded batches where upstream takes one video at a time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from jax_promptmtl.core.errors import pick as choose
from jax_promptmtl.models.layers.post_norm import Attend, FeedForward
from jax_promptmtl.models.layers.transformer import LayerNorm, Linear, pick
from jax_promptmtl.models.video.mask_decoder import MaskHeads

Array = jax.Array
MATCHINGS = ("released", "fixed")


@dataclass(frozen=True)
class TrackerConfig:
    """Sizes and choices of a tracker or refiner; the defaults are those of YouTube-VIS 2019.

    Attributes:
      width: channels D of the queries.
      heads: attention heads.
      inner: width inside the feed-forward layers.
      layers: number of layers K.
      mask_width: channels of the mask features.
      classes: labels C, without "no object".
      matching: released is what upstream's checkpoints were trained with, which reorders the queries of a frame by the
        inverse of the assignment to the previous frame; fixed reorders by the assignment itself.
    """

    width: int = 256
    heads: int = 8
    inner: int = 2048
    layers: int = 6
    mask_width: int = 256
    classes: int = 40
    matching: str = "released"

    def __post_init__(self) -> None:
        choose(self.matching, MATCHINGS, "matching of the tracker")


class Tracked(NamedTuple):
    """Instances of B videos, after each of K layers.

    Attributes:
      logits: float[K, B, L, Q, C + 1]; the last class is "no object".
      masks: float[K, B, L, Q, h, w], logits.
      queries: float[B, L, Q, D], after the last layer and its norm.
    """

    logits: Array
    masks: Array
    queries: Array


# --- MinVIS -----------------------------------------------------------------------------------------------------------


def assign(reference: Array, current: Array, epsilon: float = 0.0) -> Array:
    """Return int[B, Q], the current query assigned to each reference query, maximising the sum of cosines.

    Args:
      reference: float[B, Q, D].
      current: float[B, Q, D].
      epsilon: added to the lengths; a remaining NaN counts as a cosine of one.

    >>> a = jnp.eye(3)[None]
    >>> assign(a, a[:, jnp.array([2, 0, 1])]).tolist()
    [[1, 2, 0]]
    """
    unit = [x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + epsilon) for x in (reference, current)]
    cost = 1 - jax.lax.stop_gradient(jnp.einsum("brd,bcd->brc", *unit))
    rows, _ = jax.vmap(optax.assignment.hungarian_algorithm)(jnp.nan_to_num(cost, nan=0.0))
    return jnp.argsort(rows, axis=-1)  # `rows` is the reference of each current query


def follow(queries: Array) -> Array:
    """Return int[B, L, Q], the query of each frame that continues each query of the first, linked frame by frame.

    Args:
      queries: float[B, L, Q, D].

    >>> frames = jnp.stack([jnp.eye(2), jnp.eye(2)[::-1], jnp.eye(2)])[None]
    >>> follow(frames).tolist()
    [[[0, 1], [1, 0], [0, 1]]]
    """

    def step(before: Array, current: Array) -> tuple[Array, Array]:
        order = assign(before, current)
        return pick(current, order), order

    frames = jnp.moveaxis(queries, 1, 0)
    start = jnp.broadcast_to(jnp.arange(queries.shape[2]), frames.shape[1:3])
    _, orders = jax.lax.scan(step, frames[0], frames[1:])
    return jnp.moveaxis(jnp.concatenate([start[None], orders.astype(start.dtype)]), 0, 1)


def reorder(x: Array, order: Array) -> Array:
    """Put the queries of frames in another order: [..., L, Q, ...] by int[B, L, Q], for [B, L, Q, ...].

    >>> reorder(jnp.array([[[5, 6], [7, 8]]]), jnp.array([[[1, 0], [0, 1]]])).tolist()
    [[[6, 5], [7, 8]]]
    """
    return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 3)), axis=2)


# --- online -----------------------------------------------------------------------------------------------------------


class TrackerLayer(nn.Module):
    """Attention of instances to the queries of a frame, attention among the instances, feed-forward."""

    config: TrackerConfig

    def setup(self) -> None:
        c = self.config
        self.cross, self.own = Attend(c.width, c.heads), Attend(c.width, c.heads)
        self.feed = FeedForward(c.inner)

    def __call__(self, stream: Array, query: Array, frame: Array) -> Array:
        """Return the instances float[B, Q, D].

        Args:
          stream: float[B, Q, D], the residual stream.
          query: float[B, Q, D], the attending queries.
          frame: float[B, Q, D], the queries of the frame.
        """
        x = self.cross(stream, query, frame, frame)
        return self.feed(self.own(x, x, x, x))


class ReferringTracker(nn.Module):
    """Propagate instances from frame to frame by attention to the previous ones.

    >>> config = TrackerConfig(width=8, heads=2, inner=16, layers=2, mask_width=4, classes=3)
    >>> queries, features = jnp.zeros((1, 3, 5, 8)), jnp.zeros((1, 3, 6, 6, 4))
    >>> model = ReferringTracker(config)
    >>> (found, order), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), queries, features)
    >>> found.logits.shape, found.masks.shape, order.shape
    ((2, 1, 3, 5, 4), (2, 1, 3, 5, 6, 6), (1, 3, 5))
    """

    config: TrackerConfig

    def setup(self) -> None:
        c = self.config
        self.blocks = [TrackerLayer(c) for _ in range(c.layers)]
        self.say = MaskHeads(c.width, c.mask_width, c.classes)

    def first(self, frame: Array) -> Array:
        """Return the instances of a first frame after every layer: float[B, Q, D] -> float[K, B, Q, D]."""
        x, layers = frame, []
        for block in self.blocks:
            x = block(x, x, frame)
            layers.append(x)
        return jnp.stack(layers)

    def next(self, past: tuple[Array, Array], frame: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Process a frame with a predecessor.

        Args:
          past: float[B, Q, D] each, the instances of the frame before after the last layer, and the queries of the
            frame before in the order of the instances.
          frame: float[B, Q, D].

        Returns:
          The past of the next frame; and the instances after every layer float[K, B, Q, D] and the order int[B, Q] of
          the frame's queries.
        """
        before, placed = past
        order = assign(placed, frame, epsilon=1e-6)
        if self.config.matching == "released":
            order = jnp.argsort(order, axis=-1)
        placed = pick(frame, order)
        x, layers = placed, []
        for block in self.blocks:
            x = block(x, before, frame)
            layers.append(x)
        return (x, placed), (jnp.stack(layers), order)

    def __call__(self, queries: Array, features: Array) -> tuple[Tracked, Array]:
        """Track.

        Args:
          queries: float[B, L, Q, D], those of the segmenter.
          features: float[B, L, h, w, M], the mask features.

        Returns:
          The instances, and int[B, L, Q], the order in which each frame's queries stood when they were looked at.
        """
        frames = jnp.moveaxis(queries, 1, 0)
        start = self.first(frames[0])
        scan = nn.scan(ReferringTracker.next, variable_broadcast="params", split_rngs={"params": False})
        _, (layers, orders) = scan(self, (start[-1], frames[0]), frames[1:])
        same = jnp.broadcast_to(jnp.arange(orders.shape[-1], dtype=orders.dtype), orders.shape[1:])
        instances = rearrange(jnp.concatenate([start[None], layers]), "l k b q d -> k b l q d")
        order = jnp.moveaxis(jnp.concatenate([same[None], orders]), 0, 1)
        return Tracked(*self.say(instances, features), self.say.norm(instances[-1])), order

    def alone(self, queries: Array) -> Array:
        """Return float[B, L, Q, D], the queries of every frame as those of a first one, after the last norm."""
        flat = rearrange(queries, "b l q d -> (b l) q d")
        result: Array = self.say.norm(self.first(flat)[-1]).reshape(queries.shape)
        return result


# --- offline ----------------------------------------------------------------------------------------------------------


class HeldConv(nn.Module):
    """Convolution along time with edge padding by the first and the last frame of a video."""

    width: int
    reach: int

    @nn.compact
    def __call__(self, x: Array, valid: Array) -> Array:
        """Return float[N, L, width] of float[N, L, D]; valid is bool[N, L], true up to the last frame."""
        taps = 2 * self.reach + 1
        shape = (taps, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        last = valid.sum(axis=1, keepdims=True) - 1
        steps = jnp.arange(-self.reach, x.shape[1] + self.reach)
        held = jnp.take_along_axis(x, jnp.clip(steps, 0, jnp.maximum(last, 0))[..., None], axis=1)
        y = jax.lax.conv_general_dilated(held, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
        return y + bias


class RefinerLayer(nn.Module):
    """Attention and convolution along time, attention among instances and to the frame's queries, feed-forward."""

    config: TrackerConfig

    def setup(self) -> None:
        c = self.config
        self.time, self.own, self.cross = (Attend(c.width, c.heads) for _ in range(3))
        self.wide, self.narrow, self.norm = HeldConv(c.width, 2), HeldConv(c.width, 1), LayerNorm()
        self.feed = FeedForward(c.inner)

    def __call__(self, x: Array, frames: Array, valid: Array) -> Array:
        """Return the instances float[B, L, Q, D].

        Args:
          x: float[B, L, Q, D].
          frames: float[B, L, Q, D], the queries of the frames.
          valid: bool[B, L].
        """
        batch, length, count, _ = x.shape
        x = rearrange(x, "b l q d -> (b q) l d")
        shown = jnp.repeat(valid, count, axis=0)
        x = self.time(x, x, x, x, jnp.broadcast_to(shown[:, None], (*shown.shape, length)))
        x = self.norm(x + self.narrow(nn.relu(self.wide(x, shown)), shown))
        x = rearrange(x, "(b q) l d -> (b l) q d", b=batch)
        frames = rearrange(frames, "b l q d -> (b l) q d")
        x = self.own(x, x, x, x)
        x = self.feed(self.cross(x, x, frames, frames))
        return rearrange(x, "(b l) q d -> b l q d", b=batch)


class TemporalRefiner(nn.Module):
    """Refine the instances of whole videos; an instance has one class, from a learned average over time.

    >>> config = TrackerConfig(width=8, heads=2, inner=16, layers=2, mask_width=4, classes=3)
    >>> x, features, valid = jnp.zeros((1, 3, 5, 8)), jnp.zeros((1, 3, 6, 6, 4)), jnp.ones((1, 3), bool)
    >>> model = TemporalRefiner(config)
    >>> found, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x, x, features, valid)
    >>> found.logits.shape, found.masks.shape
    ((2, 1, 3, 5, 4), (2, 1, 3, 5, 6, 6))
    """

    config: TrackerConfig

    def setup(self) -> None:
        c = self.config
        self.blocks = [RefinerLayer(c) for _ in range(c.layers)]
        self.say = MaskHeads(c.width, c.mask_width, c.classes)
        self.weigh = Linear(1)

    def __call__(self, instances: Array, frames: Array, features: Array, valid: Array) -> Tracked:
        """Refine.

        Args:
          instances: float[B, L, Q, D], of the tracker.
          frames: float[B, L, Q, D], of its `alone`.
          features: float[B, L, h, w, M], of which masks are made.
          valid: bool[B, L], true up to the last frame of each video.
        """
        x, layers = instances, []
        for block in self.blocks:
            x = block(x, frames, valid)
            layers.append(x)
        normal = self.say.norm(jnp.stack(layers))
        weight = jnp.where(valid[..., None, None], self.weigh(normal), -jnp.inf)
        pooled = (jax.nn.softmax(weight, axis=2) * normal).sum(axis=2, keepdims=True)
        logits = jnp.broadcast_to(self.say.classify(pooled), (*normal.shape[:-1], self.config.classes + 1))
        return Tracked(logits, self.say.masks(normal, features), normal[-1])
