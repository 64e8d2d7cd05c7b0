"""DLM-VMTL: the double-layer mapper from the middle tokens of frozen auxiliaries to prompts of the primary (eq. 1-4).

    P'_i = L([P_i; E_i])         a new transformer layer; only its prompt rows are used, so only they are queries
    B_i  = FC_2(FC_1(P'_i))      D_i -> d_0 -> D_pri, no activation between
    G_i  = B_i + adapter(B_i)    the second layer, a Houlsby adapter; `single_layer` leaves it out
    P_pri = concat_i G_i

What the paper leaves open is an option here, documented at its field. With H heads and few prompts it is cheaper to
carry the queries and the attention weights through the key and value projections than to project all N tokens:
H P D N products each instead of D^2 N for the same function, and no [B, N, D] keys or values are kept for the backward.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.methods.blocks import Adapter, Affine, vpt_uniform
from jax_promptmtl.methods.method import Method, Prompts
from jax_promptmtl.models.layers.transformer import ACTIVATIONS, LayerNorm

Array = jax.Array
Initializer = jax.nn.initializers.Initializer
Context = Mapping[str, tuple[Array, Array]]  # auxiliary -> (tokens float[B, N, D_i], mask bool[B, N])

PROMPT_INITS = {"vpt": vpt_uniform, "normal": nn.initializers.normal(0.02)}
LAYER_INITS = {"xavier": nn.initializers.xavier_uniform(), "normal": nn.initializers.normal(0.02)}
NORMS, SCALES = ("pre", "post"), ("none", "layer_norm", "scalar")


class PromptAttention(nn.Module):
    """Multi-head attention whose queries are the prompts, and whose keys are the prompts and the tokens.

    Attributes:
      heads: H; divides D.
      kernel_init: of the four kernels.
    """

    heads: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, prompts: Array, tokens: Array, mask: Array) -> Array:
        """Return the prompt rows of self-attention over [prompts; tokens].

        Args:
          prompts: float[P, D], the same for every example.
          tokens: float[B, N, D].
          mask: bool[B, N], false where a token is padding.

        Returns:
          float[B, P, D].
        """
        width, batch = prompts.shape[-1], tokens.shape[0]
        query, key, value = (self.heads_of(name, width) for name in ("query", "key", "value"))
        q = jnp.einsum("p d, d h c -> h p c", prompts, query[0]) + query[1][:, None]
        q = q * (width // self.heads) ** -0.5
        reach = jnp.einsum("h p c, d h c -> h p d", q, key[0])  # queries carried through the key projection
        offset = jnp.einsum("h p c, h c -> h p", q, key[1])[..., None]  # cancels in the softmax
        own = repeat(reach @ prompts.T + offset, "h p k -> b h p k", b=batch)
        others = jnp.einsum("h p d, b n d -> b h p n", reach, tokens) + offset
        others = jnp.where(mask[:, None, None], others, -jnp.inf)
        weights = jax.nn.softmax(jnp.concatenate([own, others], axis=-1), axis=-1)
        to_prompts, to_tokens = jnp.split(weights, [prompts.shape[0]], axis=-1)
        mixed = to_prompts @ prompts + jnp.einsum("b h p n, b n d -> b h p d", to_tokens, tokens)
        # The weights of a row add up to 1, so the bias of the value projection is added once.
        values = jnp.einsum("b h p d, d h c -> b p h c", mixed, value[0]) + value[1]
        kernel, bias = Affine(width, self.kernel_init, name="out")(width)
        return rearrange(values, "b p h c -> b p (h c)") @ kernel + bias

    def heads_of(self, name: str, width: int) -> tuple[Array, Array]:
        """Return kernel [D, H, c] and bias [H, c] of a projection."""
        kernel, bias = Affine(width, self.kernel_init, name=name)(width)
        return rearrange(kernel, "d (h c) -> d h c", h=self.heads), rearrange(bias, "(h c) -> h c", h=self.heads)


class Feedforward(nn.Module):
    """MLP D -> 4 D -> D with an exact (erf) GELU."""

    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map float[..., D]."""
        width = x.shape[-1]
        kernel, bias = Affine(4 * width, self.kernel_init, name="fc")(width)
        hidden = ACTIVATIONS["gelu"](x @ kernel + bias)
        kernel, bias = Affine(width, self.kernel_init, name="proj")(4 * width)
        return hidden @ kernel + bias


class PromptLayer(nn.Module):
    """L of eq. 1: the prompt rows of one transformer layer over [prompts; tokens]; 12 D^2 + 13 D parameters.

    The other rows are used by no equation. The leaves are named as in `models.layers.transformer.Block`, so that L can
    be initialised from a layer of a backbone.

    Attributes:
      heads: H.
      norm: `pre`, or `post` as in the original transformer.
      kernel_init: of all kernels.
    """

    heads: int
    norm: str
    kernel_init: Initializer

    @nn.compact
    def __call__(self, prompts: Array, tokens: Array, mask: Array) -> Array:
        """Return float[B, P, D] from prompts [P, D], tokens [B, N, D] and their mask [B, N]."""
        first, second = LayerNorm(name="ln_1"), LayerNorm(name="ln_2")
        attention, feedforward = (
            PromptAttention(self.heads, self.kernel_init, name="attn"),
            Feedforward(self.kernel_init, name="mlp"),
        )
        if self.norm == "post":
            x = first(prompts + attention(prompts, tokens, mask))
            result: Array = second(x + feedforward(x))
            return result
        x = prompts + attention(first(prompts), first(tokens), mask)
        return x + feedforward(second(x))


class Mapper(nn.Module):
    """The two layers for one auxiliary: prompts [P, D_i] -> [B, P, D_pri].

    Attributes:
      width: D_pri.
      heads, norm, kernel_init: see `PromptLayer`.
      bottleneck: d_0 of eq. 2.
      rank: of the adapter; 0 leaves it out.
    """

    width: int
    heads: int
    norm: str
    kernel_init: Initializer
    bottleneck: int
    rank: int

    @nn.compact
    def __call__(self, prompts: Array, tokens: Array, mask: Array) -> Array:
        """Return float[B, P, D_pri] from prompts [P, D_i], tokens [B, N, D_i] and their mask [B, N]."""
        x = PromptLayer(self.heads, self.norm, self.kernel_init, name="layer")(prompts, tokens, mask)  # eq. 1
        for name, features in (("fc_1", self.bottleneck), ("fc_2", self.width)):  # eq. 2
            kernel, bias = Affine(features, name=name)(x.shape[-1])
            x = x @ kernel + bias
        return Adapter(self.rank, name="adapter")(x) if self.rank else x  # eq. 3


class DoubleLayerMapper(Method):
    """Map the middle tokens of frozen auxiliaries to prompts at the primary's split layer (DLM-VMTL).

    Attributes:
      aux: auxiliary -> width D_i of its middle tokens; at least one.
      primary_dim: D_pri.
      middle: the primary's split layer, before which the prompts enter.
      num_prompts: N_0 per auxiliary.
      share_equal_dims: whether auxiliaries of equal width share the prompts P.
      prompt_init: `vpt` (uniform) or `normal` (0.02).
      head_dim: channels per head of L, which has max(1, D_i / head_dim) heads.
      norm: `pre` or `post`.
      layer_init: `xavier` or `normal` (0.02).
      bottleneck: d_0 of eq. 2.
      adapter_rank: r of the adapter.
      single_layer: omit the adapter (paper, figure 3); the FC pair stays.
      final_scale: scaling of the result: `none`, `layer_norm`, or one learned `scalar` per auxiliary.
    """

    aux: Mapping[str, int]
    primary_dim: int
    middle: int
    num_prompts: int = 10
    share_equal_dims: bool = False
    prompt_init: str = "vpt"
    head_dim: int = 64
    norm: str = "pre"
    layer_init: str = "xavier"
    bottleneck: int = 16
    adapter_rank: int = 64
    single_layer: bool = False
    final_scale: str = "none"

    @nn.compact
    def __call__(self, context: Context) -> Prompts:
        """Return {"primary": {middle: float[B, sum of N_0, D_pri]}}, the auxiliaries in the order of their names.

        Args:
          context: auxiliary -> (tokens float[B, N, D_i], mask bool[B, N]).

        Raises:
          UserError: no auxiliary, unknown options, or tokens of another width.
        """
        self.check(context)
        sources, parts = self.sources(), []
        for name, width in sorted(self.aux.items()):
            options = (self.heads(width), self.norm, LAYER_INITS[self.layer_init], self.bottleneck)
            mapper = Mapper(self.primary_dim, *options, 0 if self.single_layer else self.adapter_rank, name=name)
            parts.append(self.scaled(name, mapper(sources[name], *context[name])))
        return {"primary": {self.middle: jnp.concatenate(parts, axis=1)}}  # eq. 4

    def heads(self, width: int) -> int:
        """Return the number of heads of L for tokens of width `width`."""
        return max(width // self.head_dim, 1)

    def sources(self) -> dict[str, Array]:
        """Return P of eq. 1 for every auxiliary, float[N_0, D_i]."""
        owners = {name: min(other for other in self.aux if self.aux[other] == self.aux[name]) for name in self.aux}
        owners = owners if self.share_equal_dims else {name: name for name in self.aux}
        draw = PROMPT_INITS[self.prompt_init]
        made = {
            owner: self.param(f"prompts_{owner}", draw, (self.num_prompts, self.aux[owner]))
            for owner in sorted(set(owners.values()))
        }
        return {name: made[owner] for name, owner in owners.items()}

    def scaled(self, name: str, prompts: Array) -> Array:
        """Apply the option `final_scale`."""
        if self.final_scale == "layer_norm":
            result: Array = LayerNorm(name=f"scale_{name}")(prompts)
            return result
        if self.final_scale == "scalar":
            return prompts * self.param(f"scale_{name}", nn.initializers.ones, (1,))
        return prompts

    def check(self, context: Context) -> None:
        """Refuse options and context that do not fit together."""
        if not self.aux:
            raise UserError("The mapper has no auxiliary model; name at least one in config.aux.")
        pick(self.norm, NORMS, "norm of the mapper")
        pick(self.prompt_init, PROMPT_INITS, "prompt_init")
        pick(self.layer_init, LAYER_INITS, "layer_init")
        pick(self.final_scale, SCALES, "final_scale")
        for name, width in self.aux.items():
            if context[name][0].shape[-1] != width:
                raise UserError(
                    f"The middle tokens of the auxiliary {name!r} are {context[name][0].shape[-1]} wide, not {width}; "
                    "give the model that the mapper was made for."
                )
            if width > self.head_dim and width % self.head_dim:
                raise UserError(f"head_dim {self.head_dim} must divide the width {width} of the auxiliary {name!r}.")
