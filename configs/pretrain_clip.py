"""Pretrain the small CLIP that the package carries, on 18 k named icons: first plain pictures, then cluttered ones.

    pip install -e '.[pretrain]'
    python -m jax_promptmtl.main --config=configs/pretrain_clip.py --workdir=runs/plain
    python -m jax_promptmtl.main --config=configs/pretrain_clip.py:cluttered --config.start=runs/plain/clip \
        --workdir=runs/cluttered

The result is runs/cluttered/clip; time and accuracy are in jax_promptmtl/assets/icon_clip/README.md.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common
from jax_promptmtl.core.errors import pick


def get_config(stage: str = "plain") -> ConfigDict:
    """Return the config of a stage."""
    return STAGES[pick(stage, STAGES, "preset")]()


def cluttered() -> ConfigDict:
    """Return the config of the second stage: from trained weights, distorted and coloured pictures only."""
    config = plain()
    config.start = "runs/plain/clip"
    config.cluttered = 0.65
    config.warp_ramp = config.colour_ramp = (-2.0, -1.0)  # over before the first step
    config.colour = 1.0
    config.train.steps = 4500
    config.train.optimizer.learning_rate = 2e-3
    return config


def plain() -> ConfigDict:
    """Return the config of the first stage: from random weights, black on white at first, then plain colours."""
    config = ConfigDict()
    config.job = "pretrain"
    config.seed = 0  # of initial parameters, held-out icons and data order
    config.start = ""  # folder of the weights to start from; empty: random ones
    config.batch_size = 128  # images, each with a caption
    config.warp = 0.8  # final strength of the distortions, 0 to 1
    config.warp_ramp = (0.04, 0.4)  # shares of the steps between which they grow from 0
    config.colour = 0.95  # final share of the coloured pictures; the others are black on white
    config.colour_ramp = (0.12, 0.45)  # shares of the steps between which it grows from 0
    config.cluttered = 0.0  # share of the pictures with patchy colours, rims, light, blur and noise
    config.keep = 0.5  # share of the patches that the image tower sees, except in the last part
    config.whole_share = 0.15  # last share of the steps, with all patches
    config.slot = 8  # random tokens per layer in a prompted step
    config.prompted = 0.25  # share of the prompted steps

    config.corpus = ConfigDict()
    config.corpus.merges = 2048  # of the byte-pair vocabulary
    config.corpus.length = 8  # ids in a row of text
    config.corpus.extra = (112, 16)  # random concept names and words that join every batch as texts
    config.corpus.held_out = 0.02  # share of the icons that measure progress

    config.clip = ConfigDict()  # sizes, see models/clip/model.py
    config.clip.embed_dim = 128
    config.clip.image_size = 48
    config.clip.patch_size = 8
    config.clip.image_width = 192
    config.clip.image_layers = 4
    config.clip.image_heads = 3
    config.clip.context_length = 32
    config.clip.text_width = 128
    config.clip.text_layers = 4
    config.clip.text_heads = 2
    config.clip.activation = "quick_gelu"

    config.train = ConfigDict()
    config.train.steps = 3900
    config.train.steps_per_epoch = 183
    config.train.log_every = 50
    config.train.evaluate_every = 400
    config.train.checkpoint_every = 400
    config.train.parallel = "jit"
    changes = {"warmup": 0.03, "weight_decay": 0.05, "momentum": 0.95, "b2": 0.98}
    config.train.optimizer = common.optimizer(3e-3, name="muon", **changes)
    return config


STAGES = {"plain": plain, "cluttered": cluttered}
