"""MmAP on your own folder of images, with the small CLIP that the package carries: to try things out on any machine.

    python -m jax_promptmtl.main --config=configs/own_data.py --config.suite.root=pictures

`root` holds root/<task>/<class>/*.png (or .jpg, .webp, ...), or is a CSV file with the columns path and class.
docs/own_data.md goes through it step by step; with a CLIP of your own take configs/mmap_vit_b16.py.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common, mmap


def get_config() -> ConfigDict:
    """Return the config."""
    config = mmap.get_config()
    config.suite = common.folder_suite()
    for part, epochs in ((config, 20), (config.grouping, 5)):
        part.train.epochs = epochs
        part.train.batch_size = 16
    return config
