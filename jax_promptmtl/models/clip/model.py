"""CLIP in Flax Linen: image tower, text tower and logit scale, of any ViT size.

After openai/CLIP `clip/model.py`. All sizes come from the weights (`convert.load`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import pick
from jax_promptmtl.core.outline import outline
from jax_promptmtl.models.layers.transformer import (
    KeyValues,
    LayerNorm,
    LayerPrompts,
    Linear,
    Pass,
    Transformer,
    at_least_float32,
)

Array = jax.Array


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP: widths in channels, images in pixels, text in tokens. `activation` is quick_gelu or gelu.

    `image_inner` and `text_inner` are the widths inside the MLPs; 0 is four times the width of the tower.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    image_width: int
    image_layers: int
    image_heads: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    activation: str
    image_inner: int = 0
    text_inner: int = 0

    @property
    def towers(self) -> dict[str, tuple[int, int]]:
        """Return {tower: (layers, width)}, the sizes that prompt methods depend on."""
        return {"text": (self.text_layers, self.text_width), "image": (self.image_layers, self.image_width)}


def inner_width(tower: Mapping[str, Any], width: int) -> int:
    """Return the width inside a tower's MLPs as `ClipConfig` has it: 0 is four times the width."""
    found = tower["transformer"]["blocks_0"]["mlp"]["fc"]["kernel"].shape[-1]
    return 0 if found == 4 * width else int(found)


class PatchEmbedding(nn.Module):
    """Map every p x p patch to a token, row by row; the same as a convolution of stride p without bias."""

    patch: int
    features: int

    @nn.compact
    def __call__(self, image: Array) -> Array:
        shape = (self.patch, self.patch, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal((self.patch**2 * image.shape[-1]) ** -0.5), shape)
        patches = rearrange(image, "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch, q=self.patch)
        return patches.astype(kernel.dtype) @ kernel.reshape(-1, self.features)


class ImageTower(nn.Module):
    """The vision transformer: class token, patches, `ln_pre`, blocks, `ln_post` on the class token, projection."""

    config: ClipConfig
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        image: Array,
        prompts: LayerPrompts | None = None,
        *,
        rows: Array | None = None,
        keep: Array | None = None,
    ) -> Array:
        """Encode images.

        Args:
          image: float[B, H, W, 3], normalised.
          prompts: layer -> tokens after the class token, without position; those of layer 0 pass `ln_pre`.
          rows: int[B], which prompts each image has, where `prompts` are float[T, P, D].
          keep: int[B, n], the patches to encode; all if None. Random subsets speed up pretraining (FLIP).

        Returns:
          float[B, E], not normalised.
        """
        c = self.config
        patches = PatchEmbedding(c.patch_size, c.image_width, name="patch")(image)
        normal = nn.initializers.normal(c.image_width**-0.5)
        cls = jnp.broadcast_to(self.param("cls", normal, (c.image_width,)), (image.shape[0], 1, c.image_width))
        positions = self.param("position", normal, (1 + (c.image_size // c.patch_size) ** 2, c.image_width))
        ln_pre = LayerNorm(name="ln_pre")
        x = jnp.concatenate([cls, patches], axis=1) + positions
        if keep is not None:
            x = jnp.concatenate([x[:, :1], jnp.take_along_axis(x, 1 + keep[..., None], axis=1)], axis=1)
        x = ln_pre(x)
        prompts = {k: ln_pre(tokens) if k == 0 else tokens for k, tokens in (prompts or {}).items()}
        sizes = (c.image_layers, c.image_heads, c.activation)
        transformer = Transformer(*sizes, inner=c.image_inner, remat=self.remat, name="transformer")
        x = transformer(x, prompts, Pass(at=1, rows=rows, read=jnp.zeros((x.shape[0], 1), int)))
        return Linear(c.embed_dim, use_bias=False, name="projection")(LayerNorm(name="ln_post")(x[:, 0]))


class TextTower(nn.Module):
    """The causal text transformer, read at the end-of-text token, which has the largest id.

    A prefix common to many texts is encoded once: `prefill`, then `encode_suffixes`; equal to encoding whole rows.
    """

    config: ClipConfig
    remat: bool = False

    def setup(self) -> None:
        c = self.config
        self.token = nn.Embed(c.vocab_size, c.text_width, embedding_init=nn.initializers.normal(0.02))
        self.position = self.param("position", nn.initializers.normal(0.01), (c.context_length, c.text_width))
        sizes = (c.text_layers, c.text_heads, c.activation)
        self.transformer = Transformer(*sizes, causal=True, inner=c.text_inner, remat=self.remat)
        self.ln_final = LayerNorm()
        self.projection = Linear(c.embed_dim, use_bias=False)

    def __call__(self, tokens: Array, prompts: LayerPrompts | None = None, *, slot: int = 0) -> Array:
        """Encode token rows.

        Args:
          tokens: int[B, N], N at most the context length. Rows may be cut after the last end-of-text token of the
            batch, which changes nothing because attention is causal.
          prompts: layer -> tokens that replace the slot after the start token; those of layer 0 get positions.
          slot: number of placeholder ids after the start token in every row.

        Returns:
          float[B, E], not normalised.
        """
        x = self.token(tokens) + self.position[: tokens.shape[1]]
        end = tokens.argmax(axis=-1)[:, None]
        return self.project(self.transformer(x, self.placed(prompts), Pass(at=1, width=slot, read=end)))[:, 0]

    def prefill(self, tokens: Array, prompts: LayerPrompts | None = None, *, slot: int = 0) -> tuple[KeyValues, ...]:
        """Return the KV cache of the prefix of many texts, layer by layer: one per row of the prompts.

        Args:
          tokens: int[N], the start token, placeholders and words.
          prompts: layer -> float[G, P, D]; see `__call__`. Without any, G is 1.
          slot: number of placeholder ids after the start token.
        """
        groups = len(next(iter(prompts.values()))) if prompts else 1
        x = self.token(tokens) + self.position[: len(tokens)]
        x = jnp.broadcast_to(x, (groups, *x.shape))
        return self.transformer.prefill(x, self.placed(prompts), Pass(at=1, width=slot))

    def encode_suffixes(
        self, prefix: Sequence[KeyValues], tokens: Array, position: Array, segment: Array, read: Array
    ) -> Array:
        """Encode texts after their prefix, several to a row.

        Args:
          prefix: from `prefill`, of G prefixes; B / G neighbouring rows share one.
          tokens: int[B, N], the suffixes of the texts side by side.
          position: int[B, N], of each token in its text.
          segment: int[B, N], number of the text in its row.
          read: int[B, n], where the end-of-text tokens are.

        Returns:
          float[B, n, E], not normalised.
        """
        x = self.token(tokens) + self.position[position]
        return self.project(self.transformer(x, None, Pass(at=0, segment=segment, prefix=prefix, read=read)))

    def placed(self, prompts: LayerPrompts | None) -> LayerPrompts:
        """Add positions to the prompts of layer 0."""
        return {k: x + self.position[1 : 1 + x.shape[-2]] if k == 0 else x for k, x in (prompts or {}).items()}

    def project(self, x: Array) -> Array:
        """Project the read tokens to features."""
        return self.projection(self.ln_final(x))


class CLIP(nn.Module):
    """Both towers and the logit scale.

    >>> config = ClipConfig(4, 4, 2, 8, 1, 1, 5, 9, 8, 1, 1, "gelu")
    >>> image, tokens = jnp.zeros((3, 4, 4, 3)), jnp.array([[7, 1, 8], [7, 2, 8]])
    >>> clip = CLIP(config)
    >>> logits, _ = clip.init_with_output(jax.random.key(0), image, tokens)
    >>> logits.shape
    (3, 2)
    """

    config: ClipConfig
    remat: bool = False  # recompute blocks in the backward pass, to save memory

    def setup(self) -> None:
        self.image = ImageTower(self.config, self.remat)
        self.text = TextTower(self.config, self.remat)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), ())

    def encode_image(
        self,
        image: Array,
        prompts: LayerPrompts | None = None,
        *,
        rows: Array | None = None,
        keep: Array | None = None,
    ) -> Array:
        """Return unnormalised image features float[B, E]; see `ImageTower`."""
        return self.image(image, prompts, rows=rows, keep=keep)

    def encode_text(self, tokens: Array, prompts: LayerPrompts | None = None, *, slot: int = 0) -> Array:
        """Return unnormalised text features float[B, E]; see `TextTower`."""
        return self.text(tokens, prompts, slot=slot)

    def prefill_text(
        self, tokens: Array, prompts: LayerPrompts | None = None, *, slot: int = 0
    ) -> tuple[KeyValues, ...]:
        """Return the KV cache of the common prefix of many texts; see `TextTower.prefill`."""
        return self.text.prefill(tokens, prompts, slot=slot)

    def encode_suffixes(self, prefix: Sequence[KeyValues], *suffixes: Array) -> Array:
        """Return unnormalised text features float[B, n, E]; see `TextTower.encode_suffixes`."""
        return self.text.encode_suffixes(prefix, *suffixes)

    def __call__(self, image: Array, tokens: Array) -> Array:
        """Return logits float[B, C] of images against texts."""
        return score(self.encode_image(image), self.encode_text(tokens), self.logit_scale)


def normalize(x: Array) -> Array:
    """Scale to unit length along the last axis, in float32 at least."""
    x = at_least_float32(x)
    unit: Array = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return unit


def score(features: Array, classes: Array, logit_scale: Array) -> Array:
    """Return exp(logit_scale) times the cosine similarity (eq. 5 of MmAP): float[B, E] x float[..., C, E] -> [B, C].

    `classes` may have a leading batch axis: each example is then scored against its own classes.
    """
    cosine = jnp.einsum("be,ce->bc" if classes.ndim == 2 else "be,bce->bc", normalize(features), normalize(classes))
    return jnp.exp(logit_scale) * cosine


def cast_params(params: Any, dtype: str) -> Any:
    """Cast matrices and biases of both towers; LayerNorms, embeddings and projections stay float32.

    Args:
      params: weights, with `None` in the holes of a partition.
      dtype: float32 or bfloat16.
    """
    if pick(dtype, ("float32", "bfloat16"), "dtype of the frozen towers") == "float32":
        return params
    cut = tree.mask_from_patterns(params, [".*/(attn|mlp)/.*", ".*/patch/kernel"])
    return jax.tree.map(lambda leaf, inside: jnp.asarray(leaf, dtype) if inside else leaf, params, cut)


class TextTokenizer(Protocol):
    """Tokenizer interface: texts to ids, each text between `start` and `end`."""

    start: int
    end: int

    def encode(self, text: str) -> list[int]: ...

    def tokenize(self, texts: Sequence[str], length: int) -> np.ndarray: ...

    def words(self) -> dict[int, str]: ...


@dataclass(frozen=True)
class Backbone:
    """A loaded CLIP: sizes, weights, tokenizer and preprocessing.

    Attributes:
      params: nested dict of float32 arrays in the layout of `CLIP.init`.
      tokenizer: of the text tower.
      preprocess: image size, mean, std of the pixels the weights expect.
      sha256: of the weights file, by which a checkpoint identifies its backbone.
      tokens: path of the tokenizer, where it is not beside the weights; else "".
    """

    name: str
    config: ClipConfig
    params: Any
    tokenizer: TextTokenizer
    preprocess: dict[str, Any]
    sha256: str
    tokens: str = ""
    __repr__ = outline

    @property
    def reference(self) -> dict[str, str]:
        """Return the metadata by which a checkpoint refers to this backbone."""
        about = {"name": self.name, "sha256": self.sha256, "activation": self.config.activation}
        return about | {"tokenizer": self.tokens}

    @property
    def model(self) -> CLIP:
        """Return the Linen module."""
        return CLIP(self.config)
