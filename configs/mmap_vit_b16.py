"""MmAP on your own images with CLIP ViT-B/16, as the paper trains it as far as it says.

    python -m jax_promptmtl.main --config=configs/mmap_vit_b16.py:paper_budget \
        --config.backbone.path=ViT-B-16.pt --config.suite.root=office_home

`root` holds root/<task>/<class>/*.jpg. Presets: paper_budget (129,744 trainable parameters with four tasks in two
groups, the paper's 0.13 M) and wide (148,176). The schedule is SGD 0.0035, momentum 0.9, weight decay 5e-4, 5 epochs,
a first epoch at 1e-5 and then cosine per epoch (Dassl).
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common, mmap
from jax_promptmtl.core.errors import pick

PRESETS = {"paper_budget": (14, 14, 128), "wide": (16, 16, 128)}  # prompt length b, source rows m, source columns n


def get_config(preset: str = "paper_budget") -> ConfigDict:
    """Return the config of a preset."""
    length, rows, columns = PRESETS[pick(preset, PRESETS, "preset")]
    config = mmap.get_config()
    config.suite = common.folder_suite()
    config.template = "a photo of a {}."
    config.backbone.path = "ViT-B-16.pt"
    config.augment.scale = (0.08, 1.0)
    config.augment.ratio = (3 / 4, 4 / 3)
    config.augment.flip = 0.5
    for part in (config, config.grouping):
        part.method.length, part.method.rows, part.method.columns = length, rows, columns
        part.train.epochs = 5
        part.train.batch_size = 16
        part.train.optimizer = common.optimizer(0.0035, name="sgd", schedule="dassl_cosine", weight_decay=5e-4)
    return config
