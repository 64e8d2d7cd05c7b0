"""Optimisers and learning-rate schedules, applied to the trainable leaves only."""

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_promptmtl.core.errors import UserError, pick

PyTree = Any
WARMUP_LR = 1e-5  # Dassl: the constant rate of the first epoch
PROMPTS = re.compile(r"(.*/)?(prompts_[^/]*|tokens(/.*)?)")
BLOCK_KERNEL = re.compile(r".*blocks_\d+/.*kernel")
BLOCK = re.compile(r".*blocks_(\d+)/")
EMBEDDING = re.compile(r"(.*/)?(patch|cls|token|position|ln_pre)(/.*)?")


class OptimizerConfig(TypedDict):
    """The section `optimizer` of a config.

    Attributes:
      name: `sgd`, `adamw` or `muon`.
      learning_rate: the peak of the schedule.
      schedule: see `schedule`, which reads `warmup` and `drops`.
      weight_decay: coefficient.
      momentum: of sgd and muon; the first decay rate of adamw.
      clip: largest global gradient norm; no clipping if `None`.
      b2: second decay rate of adamw and muon.
      matrix_rms: see `muon`.
      layer_decay: see `scale_by_layer`.
      factors: (pattern, factor) pairs; see `scale_by_pattern`.
    """

    name: str
    learning_rate: float
    schedule: str
    weight_decay: float
    momentum: float
    clip: float | None
    warmup: NotRequired[float]
    drops: NotRequired[Sequence[float]]
    b2: NotRequired[float]
    matrix_rms: NotRequired[float | None]
    layer_decay: NotRequired[float]
    factors: NotRequired[Sequence[tuple[str, float]]]


def dassl_table(learning_rate: float, epochs: int) -> np.ndarray:
    """Return the learning rate of each epoch as Dassl computes it: one constant warm-up epoch, then a cosine.

    Args:
      learning_rate: the rate of the second epoch, the largest.
      epochs: E; the cosine spans E epochs from the second one, so that the rate never reaches 0.

    Returns:
      float[E]. Source: KaiyangZhou/Dassl.pytorch dassl/optim/lr_scheduler.py with WARMUP_RECOUNT.

    >>> [round(float(rate), 7) for rate in dassl_table(0.0035, 5)]
    [1e-05, 0.0035, 0.0031658, 0.0022908, 0.0012092]
    """
    cosine = [learning_rate * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2 for epoch in range(1, epochs)]
    return np.array([WARMUP_LR, *cosine])


def schedule(config: OptimizerConfig, *, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    Args:
      config: reads `learning_rate` and `schedule`: `constant`; `cosine`, per step, after a linear rise over the
        fraction `warmup` of all steps, to 0; `dassl_cosine`, per epoch; or `drops`, a tenth of the rate after each
        of the fractions `drops` of all steps.
      steps_per_epoch: steps of one pass over the data; only `dassl_cosine` reads it.
      total_steps: steps of the whole run.
    """
    peak = config["learning_rate"]
    kind = pick(config["schedule"], ("constant", "cosine", "dassl_cosine", "drops"), "schedule")
    if kind == "constant":
        return optax.constant_schedule(peak)
    if kind == "drops":
        return optax.piecewise_constant_schedule(peak, {round(share * total_steps): 0.1 for share in config["drops"]})
    if kind == "dassl_cosine":
        table = jnp.asarray(dassl_table(peak, -(-total_steps // steps_per_epoch)), jnp.float32)
        return lambda step: table[jnp.minimum(step // steps_per_epoch, len(table) - 1)]
    rise = round(config["warmup"] * total_steps)

    def cosine(step: jax.Array) -> jax.Array:
        progress = jnp.clip((step - rise) / max(1, total_steps - rise), 0.0, 1.0)
        return peak * jnp.minimum((step + 1) / max(1, rise), 0.5 + 0.5 * jnp.cos(jnp.pi * progress))

    return cosine


def matrix_axes(params: PyTree) -> PyTree:
    """Mark the 2-D kernels of the transformer blocks, which Muon updates; every other leaf gets `None`: AdamW."""

    def mark(path: tuple[Any, ...], leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return optax.contrib.MuonDimensionNumbers() if leaf.ndim == 2 and BLOCK_KERNEL.fullmatch(name) else None

    return jax.tree_util.tree_map_with_path(mark, params)


def decayed(params: PyTree) -> PyTree:
    """Mark the leaves that get weight decay: matrices, but not biases, LayerNorms or prompts.

    >>> decayed({"kernel": np.ones((2, 2)), "bias": np.ones(2), "prompts_vit": np.ones((2, 2))})
    {'bias': False, 'kernel': True, 'prompts_vit': False}
    """

    def mark(path: tuple[Any, ...], leaf: Any) -> bool:
        return leaf.ndim >= 2 and not PROMPTS.fullmatch(jax.tree_util.keystr(path, simple=True, separator="/"))

    return jax.tree_util.tree_map_with_path(mark, params)


def layer_of(path: str, blocks: int) -> int:
    """Return the layer index of a weight: 0 for embeddings, 1 to `blocks` for blocks, `blocks` + 1 for the head.

    Source: microsoft/unilm beit/optim_factory.py; MAE and VideoMAE do the same.

    >>> [layer_of(path, 12) for path in ("trunk/patch/bias", "trunk/blocks_0/ln_1/bias", "pool/head/kernel")]
    [0, 1, 13]
    """
    if found := BLOCK.match(path):
        return int(found[1]) + 1
    return 0 if EMBEDDING.fullmatch(path) else blocks + 1


def scale_by_layer(decay: float, mask: PyTree) -> optax.GradientTransformation:
    """Multiply the update of a weight, weight decay included, by `decay` to the power of the layers above its own.

    Args:
      decay: in (0, 1].
      mask: a tree of bools of the whole model, of which only the paths are read: frozen blocks count.

    Raises:
      UserError: a decay outside its range, or a model without blocks.
    """
    if not 0 < decay <= 1:
        raise UserError(f"optimizer.layer_decay is {decay}; give a factor per layer above 0, and 1 for none.")
    name = partial(jax.tree_util.keystr, simple=True, separator="/")
    found = (BLOCK.match(name(path)) for path, _ in jax.tree_util.tree_leaves_with_path(mask))
    blocks = max((int(block[1]) + 1 for block in found if block), default=0)
    if not blocks:
        raise UserError(
            f"optimizer.layer_decay is {decay}, but this model has no blocks to count layers by; set it to 1."
        )

    def scale(updates: PyTree, params: PyTree) -> PyTree:
        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            return leaf * decay ** (blocks + 1 - layer_of(name(path), blocks))

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(scale)


def scale_by_pattern(factors: Sequence[tuple[str, float]], mask: PyTree) -> optax.GradientTransformation:
    """Multiply the update of a weight, weight decay included, by the factors of all patterns that match its path.

    Args:
      factors: pairs of a regular expression for the whole path and a factor.
      mask: a tree of bools of the whole model, of which only the paths are read.

    Raises:
      UserError: a pattern that matches no weight, frozen or not.
    """
    name = partial(jax.tree_util.keystr, simple=True, separator="/")
    paths = [name(path) for path, _ in jax.tree_util.tree_leaves_with_path(mask)]
    for pattern, _ in factors:
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise UserError(
                f"The pattern {pattern!r} in optimizer.factors matches no weight; paths look like {paths[0]!r}."
            )

    def scale(updates: PyTree, params: PyTree) -> PyTree:
        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            return leaf * math.prod(factor for pattern, factor in factors if re.fullmatch(pattern, name(path)))

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(scale)


def sgd(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return torch's SGD: weight decay joins the gradient, the rate multiplies after momentum, no dampening."""
    return optax.chain(
        optax.add_decayed_weights(config["weight_decay"]),
        optax.trace(config["momentum"]),
        optax.scale_by_learning_rate(rate),
    )


def adamw(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return AdamW; `momentum` and `b2` are its two decay rates."""
    return optax.adamw(rate, b1=config["momentum"], b2=config["b2"], weight_decay=config["weight_decay"], mask=decayed)


def muon(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Muon for the block kernels and AdamW (b1 0.9) for the rest, with one learning rate.

    `matrix_rms` 0.2 scales a matrix update by 0.2 * sqrt(longer side), to the size of an AdamW update
    (arXiv 2502.16982); `None` keeps sqrt(max(1, fan_out / fan_in)).
    """
    return optax.contrib.muon(
        rate,
        beta=config["momentum"],
        weight_decay=config["weight_decay"],
        adam_b2=config["b2"],
        adam_weight_decay=config["weight_decay"],
        weight_decay_mask=decayed,
        muon_weight_dimension_numbers=matrix_axes,
        consistent_rms=config["matrix_rms"],
    )


def make(
    config: OptimizerConfig, *, mask: PyTree, steps_per_epoch: int, total_steps: int
) -> optax.GradientTransformation:
    """Build the optimiser of the trainable leaves.

    Args:
      config: the section `optimizer`.
      mask: the problem's tree of bools, true where trainable; frozen leaves have no optimiser state.
      steps_per_epoch: steps of one pass over the data.
      total_steps: steps of the whole run.

    Raises:
      UserError: an unknown name or schedule, a run without steps, an invalid layer-wise decay, or a pattern that
        matches no weight.
    """
    if total_steps < 1 or steps_per_epoch < 1:
        raise UserError(f"A run of {total_steps} steps, {steps_per_epoch} per epoch, trains nothing; give at least 1.")
    table = {"sgd": sgd, "adamw": adamw, "muon": muon}
    rate = schedule(config, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
    tx = table[pick(config["name"], table, "optimizer")](config, rate)
    if config["clip"] is not None:
        tx = optax.chain(optax.clip_by_global_norm(config["clip"]), tx)
    if "layer_decay" in config and config["layer_decay"] != 1:
        tx = optax.chain(tx, scale_by_layer(config["layer_decay"], mask))
    if "factors" in config and len(config["factors"]):
        tx = optax.chain(tx, scale_by_pattern(config["factors"], mask))
    return optax.masked(tx, mask)
