"""Sections that several configs share. A config changes what it likes in them, as in any ConfigDict."""

from typing import Any

from ml_collections import ConfigDict


def optimizer(
    learning_rate: float, *, name: str = "adamw", schedule: str = "cosine", **changes: float | None
) -> ConfigDict:
    """Return the section of the optimiser; keys that it would not read are left out.

    Args:
      learning_rate: the highest of the schedule.
      name: adamw, sgd, or muon: that on the matrices of the blocks, AdamW on the rest.
      schedule: constant, cosine, dassl_cosine or drops; see engine/optim.py.
      changes: other values than those below.
    """
    config = ConfigDict()
    config.name = name
    config.learning_rate = learning_rate
    config.schedule = schedule
    config.warmup = 0.05  # share of the steps in which the rate rises
    config.weight_decay = 0.0
    config.momentum = 0.9  # of AdamW its b1
    config.b2 = 0.999
    config.clip = None  # largest norm of the gradient; None: any
    if name == "muon":
        config.matrix_rms = 0.2  # root mean square of the update of a matrix, times the rate
    if name == "sgd":
        del config.b2
    if schedule == "dassl_cosine":
        del config.warmup  # one epoch, always
    with config.ignore_type():
        config.update(changes)
    return config


def training(epochs: int, batch_size: int, optimizer: ConfigDict) -> ConfigDict:
    """Return the section of a training."""
    config = ConfigDict()
    config.epochs = epochs  # passes over the training data
    config.batch_size = batch_size
    config.log_every = 20  # steps
    config.checkpoint_every = 500  # steps
    config.optimizer = optimizer
    return config


def mapper(head_dim: int) -> ConfigDict:
    """Return the section of the double-layer mapper; see methods/dlm.py."""
    config = ConfigDict()
    config.name = "dlm"
    config.num_prompts = 10  # N_0 per auxiliary
    config.share_equal_dims = False
    config.prompt_init = "vpt"  # or normal
    config.head_dim = head_dim  # of the mapper's first layer
    config.norm = "pre"  # or post
    config.layer_init = "xavier"  # or normal
    config.bottleneck = 16  # d_0 of eq. 2
    config.adapter_rank = 64
    config.single_layer = False
    config.final_scale = "none"  # or layer_norm, scalar
    return config


def folder_suite() -> ConfigDict:
    """Return the suite of a user's own images."""
    config = ConfigDict()
    config.name = "folder"
    config.root = ""  # root/<task>/<class>/*.jpg, or labels.csv
    config.shots = 6  # training images per class and task
    config.seed = 0  # draws the shots
    config.reserve = 0  # keep room for so many shots when cutting the test set
    config.strict = True  # False: leave out images that cannot be read
    config.background = "white"  # colour below transparent images; none: drop their transparency
    config.exif = True  # turn images as their EXIF orientation says
    config.megapixels = 178.0  # most of an image; larger ones are refused
    config.layout = ""  # what the levels of folders are, such as task/part/class; empty: find out
    config.evaluate_on = "test"  # or tune, the images of folders or lines called val
    config.tasks = ()  # all folders, or the names of some
    config.manifest = ""  # a split file to use instead of drawing one
    return config


def grid(job: str, presets: dict[str, Any]) -> ConfigDict:
    """Return what the grids of images and of videos have in common; `presets` are the configs of their runs."""
    config = ConfigDict()
    config.job = job
    config.seeds = (0, 1, 2)  # of the initial parameters and the data order, and of images the shots
    config.rates = ConfigDict()  # method or row: learning rates to try; without any, all run with their preset's
    config.retry = True  # run again what an earlier command recorded as failed
    config.keep = False  # keep the checkpoints, curves and prompts of finished runs
    config.compilation_cache = True  # keep compiled programs in the work directory
    config.presets = ConfigDict(presets)
    return config
