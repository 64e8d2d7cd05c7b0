"""The pre-norm transformer of CLIP and ViT, and the one insertion rule that every prompt method uses.

Numerics follow openai/CLIP `clip/model.py`: LayerNorm epsilon 1e-5, QuickGELU or exact GELU. Matrix products run in the
dtype of their kernel; the residual stream, LayerNorm and softmax stay float32 (float64 where the weights are).

Unused outputs are not computed, and the result stays exact. Prompts whose outputs the next layer replaces contribute
keys and values only; sequences with a common prefix share its KV cache; the last block runs for the read tokens only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

Array = jax.Array
LayerPrompts = Mapping[int, Array]  # layer -> [P, D] for all examples, or [B, P, D]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    # The tanh form of x * sigmoid(1.702 x) is the same function and faster on CPUs.
    "quick_gelu": lambda x: x * (0.5 + 0.5 * jnp.tanh(0.851 * x)),
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


def insert(x: Array, tokens: Array, at: int, width: int) -> Array:
    """Replace the `width` tokens of the slot at position `at` by `tokens`.

    Args:
      x: float[B, N, D].
      tokens: float[P, D], or float[B, P, D].
      at: first position of the slot.
      width: number of tokens in the slot now.

    Returns:
      float[B, N - width + P, D].

    >>> insert(jnp.zeros((2, 5, 3)), jnp.ones((4, 3)), at=1, width=0).shape
    (2, 9, 3)
    """
    tokens = jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[-2:])).astype(x.dtype)
    return jnp.concatenate([x[:, :at], tokens, x[:, at + width :]], axis=1)


class KeyValues(NamedTuple):
    """Keys and values of tokens at one layer: float[B, N, D] each, the heads side by side in D."""

    key: Array
    value: Array


def join(first: KeyValues, second: KeyValues | None) -> KeyValues:
    """Concatenate along the tokens."""
    if second is None:
        return first
    return KeyValues(*(jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))


def pick(x: Array, read: Array) -> Array:
    """Return the tokens at the positions int[B, n] of every sequence.

    >>> pick(jnp.array([[[5], [6]], [[7], [8]]]), jnp.array([[1], [0]])).tolist()
    [[[6]], [[7]]]
    """
    return jnp.take_along_axis(x, read[..., None], axis=1)


def at_least_float32(x: Array) -> Array:
    """Widen bfloat16 and float16 to float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def attend(query: Array, own: KeyValues, prefix: KeyValues | None, mask: Array | None, heads: int) -> Array:
    """Return scaled dot-product attention.

    Args:
      query: float[B, N, D].
      own: keys and values of the B sequences, M tokens each.
      prefix: of G prefixes, P tokens each, that B / G neighbouring sequences share; every query attends to all of it.
      mask: bool[N, M] or [B, N, M], true where a query attends to a token of `own`; everywhere if None.
      heads: number of heads.

    Returns:
      float[B, N, D].
    """
    query, key, value = (rearrange(x, "b n (h c) -> (b h) n c", h=heads) for x in (query, *own))
    query = query * query.shape[-1] ** -0.5
    logits = at_least_float32(query @ key.mT)
    if mask is not None:
        logits = jnp.where(mask if mask.ndim == 2 else repeat(mask, "b n m -> (b h) n m", h=heads), logits, -jnp.inf)
    if prefix is not None:
        return attend_with_prefix(query, logits, value, prefix, heads)
    mixed = jax.nn.softmax(logits, axis=-1).astype(value.dtype) @ value
    return rearrange(mixed, "(b h) n c -> b n (h c)", h=heads)


def attend_with_prefix(query: Array, logits: Array, own: Array, prefix: KeyValues, heads: int) -> Array:
    """Attend to a shared prefix and to own tokens, with one product per prefix for all sequences that share it.

    Args:
      query: float[B H, N, c], scaled.
      logits: float[B H, N, M], of the own tokens.
      own: float[B H, M, c], their values.
      prefix: see `attend`.
      heads: H.

    Returns:
      float[B, N, D].
    """
    groups, tokens = prefix.key.shape[:2]
    apart = {"g": groups, "h": heads, "n": query.shape[1]}
    key, value = (rearrange(x, "g p (h c) -> (g h) p c", h=heads) for x in prefix)
    shared = rearrange(query, "(g r h) n c -> (g h) (r n) c", **apart)
    seen = rearrange(at_least_float32(shared @ key.mT), "(g h) (r n) p -> (g r h) n p", **apart)
    weights = jax.nn.softmax(jnp.concatenate([seen, logits], axis=-1), axis=-1).astype(value.dtype)
    mixed = weights[..., tokens:] @ own
    shared = rearrange(weights[..., :tokens], "(g r h) n p -> (g h) (r n) p", **apart) @ value
    return rearrange(mixed, "(b h) n c -> b n (h c)", h=heads) + rearrange(
        shared, "(g h) (r n) c -> (g r) n (h c)", **apart
    )


class LayerNorm(nn.LayerNorm):
    """LayerNorm in float32 or wider, like its parameters and the residual stream."""

    epsilon: float = 1e-5


class Linear(nn.Module):
    """Affine map `x @ kernel + bias` over the last axis, as one 2-D product (twice as fast on CPUs as a 3-D one).

    Attributes:
      features: output width.
      scale: factor on the initial standard deviation, which is fan_in ** -0.5.
    """

    features: int
    use_bias: bool = True
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.normal(self.scale * x.shape[-1] ** -0.5)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = x.reshape(-1, x.shape[-1]).astype(kernel.dtype) @ kernel
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y.astype(kernel.dtype).reshape(*x.shape[:-1], self.features)  # a tuned bias may have a wider dtype


class Attention(nn.Module):
    """Multi-head attention to given keys and values."""

    width: int
    heads: int
    scale: float = 1.0

    def setup(self) -> None:
        self.query, self.key, self.value = Linear(self.width), Linear(self.width), Linear(self.width)
        self.out = Linear(self.width, scale=self.scale)

    def keys_values(self, x: Array) -> KeyValues:
        """Project float[B, N, D]."""
        return KeyValues(self.key(x), self.value(x))

    def __call__(self, x: Array, own: KeyValues, prefix: KeyValues | None = None, mask: Array | None = None) -> Array:
        """Return float[B, N, D] for the queries of float[B, N, D]; see `attend`."""
        return self.out(attend(self.query(x), own, prefix, mask, self.heads))


class Mlp(nn.Module):
    """Two affine maps with the activation between them, `inner` wide inside."""

    inner: int
    activation: str
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = ACTIVATIONS[self.activation](Linear(self.inner, name="fc")(x))
        return Linear(x.shape[-1], scale=self.scale, name="proj")(hidden)


def scaled(branch: Array, keep: Array | None) -> Array:
    """Multiply a branch float[B, N, D] by a factor of each sequence, float[B]."""
    return branch if keep is None else branch * keep[:, None, None].astype(branch.dtype)


class Block(nn.Module):
    """One pre-norm residual block."""

    width: int
    heads: int
    inner: int
    activation: str
    epsilon: float
    scale: float = 1.0

    def setup(self) -> None:
        self.ln_1, self.ln_2 = LayerNorm(self.epsilon), LayerNorm(self.epsilon)
        self.attn = Attention(self.width, self.heads, self.scale)
        self.mlp = Mlp(self.inner, self.activation, self.scale)

    def keys_values(self, x: Array) -> KeyValues:
        """Return keys and values of tokens whose outputs are not read."""
        return self.attn.keys_values(self.ln_1(x))

    def __call__(
        self,
        x: Array,
        extra: KeyValues | None = None,
        prefix: KeyValues | None = None,
        mask: Array | None = None,
        read: Array | None = None,
        keep: Array | None = None,
    ) -> tuple[Array, KeyValues]:
        """Run the block.

        Args:
          x: float[B, N, D].
          extra: of further P tokens of the same sequences.
          prefix: of a prefix that sequences share; see `attend`.
          mask: bool[..., n, N + P], which of the own and the extra tokens each token that is read attends to.
          read: int[B, n], the positions whose outputs are read; all N if None.
          keep: float[B, 2], factors of the two branches; 1 if None.

        Returns:
          float[B, n, D], and the keys and values of the own and the extra tokens.
        """
        normal = self.ln_1(x)
        own = join(self.attn.keys_values(normal), extra)
        if read is not None:
            x, normal = pick(x, read), pick(normal, read)
        attention, perceptron = (None, None) if keep is None else (keep[:, 0], keep[:, 1])
        x = x + scaled(self.attn(normal, own, prefix, mask), attention)
        return x + scaled(self.mlp(self.ln_2(x)), perceptron), own


@dataclass(frozen=True)
class Pass:
    """Layout of sequences in a `Transformer`, and the range of layers to compute.

    Attributes:
      at: position of the prompt slot.
      width: slot tokens in the input.
      start: first layer to run.
      stop: layer to stop before; the depth when `None`.
      rows: int[B], which of the T prompts of a layer each sequence has.
      segment: int[B, N]; tokens attend to their own segment only. Prompts belong to segment 0.
      prefix: KV cache of an earlier part of the sequences, layer by layer, from `prefill`; all tokens attend to all
        of it.
      read: int[B, n], the positions that are read after the last layer; all when `None`.
      keep: float[B, K, 2], factors of the two branches of every block; 0 where drop path drops one.
    """

    at: int
    width: int = 0
    start: int = 0
    stop: int | None = None
    rows: Array | None = None
    segment: Array | None = None
    prefix: Sequence[KeyValues] | None = None
    read: Array | None = None
    keep: Array | None = None


class Transformer(nn.Module):
    """A stack of blocks that accepts prompt tokens before any layer.

    The insertion rule: tokens given for layer k replace the prompt slot before layer k; a layer without an entry passes
    the slot on; `[0, D]` tokens empty it; on exit the slot has its entry width again, so that positions after it (such
    as the end-of-text token) are unchanged.

    Attributes:
      layers: number of blocks K.
      heads: attention heads H.
      activation: quick_gelu or gelu.
      causal: whether tokens attend to earlier ones only.
      epsilon: of the LayerNorms.
      inner: width inside the MLPs; four times the width if 0.
      remat: recompute every block in the backward pass, to save memory.
    """

    layers: int
    heads: int
    activation: str
    causal: bool = False
    epsilon: float = LayerNorm.epsilon
    inner: int = 0
    remat: bool = False

    def __call__(self, x: Array, prompts: LayerPrompts | None, how: Pass) -> Array:
        """Run the layers.

        Args:
          x: float[B, N, D], with `how.width` slot tokens from position `how.at` on.
          prompts: layer -> float[P, D] or float[B, P, D]; float[T, P, D] with `how.rows`.
          how: the layout of the sequences, and which layers to run.

        Returns:
          float[B, N, D], or float[B, n, D] with `how.read`.
        """
        x, slot, _ = self.run(x, prompts or {}, how)
        if slot == how.width or how.read is not None:
            return x
        kept = x[:, how.at : how.at + min(slot, how.width)]
        kept = jnp.pad(kept, ((0, 0), (0, how.width - kept.shape[1]), (0, 0)))
        return insert(x, kept, how.at, slot)

    def prefill(self, x: Array, prompts: LayerPrompts | None, how: Pass) -> tuple[KeyValues, ...]:
        """Return the KV cache: keys and values of all tokens, prompts too, at every layer; arguments as above."""
        return self.run(x, prompts or {}, how)[2]

    @nn.compact
    def run(self, x: Array, prompts: LayerPrompts, how: Pass) -> tuple[Array, int, tuple[KeyValues, ...]]:
        """Return the tokens after the last layer, the slot's width in them, and the KV cache; see `__call__`."""
        stop = self.layers if how.stop is None else how.stop
        slot, segment, cache = how.width, how.segment, []
        for k in range(how.start, stop):
            block, extra, read = self.block(k, x.shape[-1]), None, how.read if k + 1 == stop else None
            if k in prompts:
                tokens = prompts[k] if prompts[k].ndim == 3 else prompts[k][None]
                if k + 1 in prompts if k + 1 < stop else how.width == 0 or read is not None:
                    # Outputs of these prompts are not read: only keys and values, computed once per set of prompts.
                    extra = spread(block.keys_values(tokens), how.rows, x.shape[0])
                    tokens = tokens[:, :0]
                tokens = tokens if how.rows is None else tokens[how.rows]
                x, segment = insert(x, tokens, how.at, slot), segments(segment, tokens.shape[1], how.at, slot)
                slot = tokens.shape[1]
            if read is not None:
                read = jnp.where(read < how.at + how.width, read, read + slot - how.width)
            mask = self.visible(x.shape[1], 0 if extra is None else extra.key.shape[1], how.at, segment, read)
            prefix = how.prefix[k] if how.prefix else None
            factors = None if how.keep is None else how.keep[:, k]
            x, own = block(x, extra, prefix, mask, read, factors)
            cache.append(own)
        return x, slot, tuple(cache)

    def block(self, k: int, width: int) -> Block:
        """Construct the block of a layer."""
        constructor: type[Block] = nn.remat(Block) if self.remat else Block
        sizes = (width, self.heads, self.inner or 4 * width, self.activation, self.epsilon)
        return constructor(*sizes, (2 * self.layers) ** -0.5, name=f"blocks_{k}")

    def visible(self, length: int, extra: int, at: int, segment: Array | None, read: Array | None) -> Array | None:
        """Return which of `length` own and `extra` prompt tokens at position `at` each read token attends to."""
        mask = None
        if self.causal:
            place = jnp.arange(length) if read is None else read
            mask = place[..., None] >= jnp.array([*range(length), *[at] * extra])
        if segment is not None:
            mine = segment if read is None else jnp.take_along_axis(segment, read, axis=1)
            same = mine[..., None] == jnp.pad(segment, ((0, 0), (0, extra)))[:, None]
            mask = same if mask is None else mask & same
        return mask


def spread(own: KeyValues, rows: Array | None, count: int) -> KeyValues:
    """Give each of `count` sequences its row, or the only one."""
    if rows is not None:
        return KeyValues(*(x[rows] for x in own))
    return KeyValues(*(jnp.broadcast_to(x, (count, *x.shape[1:])) for x in own))


def segments(segment: Array | None, tokens: int, at: int, width: int) -> Array | None:
    """Follow `insert`: the tokens in the slot belong to segment 0."""
    if segment is None:
        return None
    return insert(segment[..., None], jnp.zeros((tokens, 1), segment.dtype), at, width)[..., 0]
