"""MmAP on your own images with CLIP ViT-B/16, as the paper trains it as far as it says.

    python -m jax_promptmtl.main --config=configs/mmap_vit_b16.py:paper_budget \
        --config.backbone.path=ViT-B-16.pt --config.suite.root=office_home

`root` holds root/<task>/<class>/*.jpg. Presets: paper_budget (129,744 trainable parameters with four tasks in two
groups, the paper's 0.13 M) and wide (148,176). The schedule is SGD 0.0035, momentum 0.9, weight decay 5e-4, 5 epochs,
a first epoch at 1e-5 and then cosine per epoch (Dassl).
"""

import pathlib
import runpy

from ml_collections import ConfigDict

base_config = runpy.run_path(str(pathlib.Path(__file__).with_name("own_data.py")))["get_config"]
PRESETS = {"paper_budget": (14, 14, 128), "wide": (16, 16, 128)}  # prompt length b, source rows m, source columns n


def get_config(preset: str = "paper_budget") -> ConfigDict:
    """Return the config of a preset."""
    config = base_config()
    config.template = "a photo of a {}."
    config.backbone.path = "ViT-B-16.pt"
    config.augment.scale = (0.08, 1.0)
    config.augment.ratio = (3 / 4, 4 / 3)
    config.augment.flip = 0.5
    for part in (config, config.grouping):
        part.method.length, part.method.rows, part.method.columns = PRESETS[preset]
        part.train.epochs = 5
        part.train.batch_size = 16
        part.train.optimizer = ConfigDict()
        part.train.optimizer.name = "sgd"
        part.train.optimizer.learning_rate = 0.0035
        part.train.optimizer.schedule = "dassl_cosine"
        part.train.optimizer.weight_decay = 5e-4
        part.train.optimizer.momentum = 0.9
        part.train.optimizer.clip = None
    return config
