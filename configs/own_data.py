"""MmAP on your own folder of images, with the small CLIP that the package carries: to try things out on any machine.

    python -m jax_promptmtl.main --config=configs/own_data.py --config.suite.root=pictures

`root` holds root/<task>/<class>/*.png (or .jpg, .webp, ...), or is a CSV file with the columns path and class.
docs/own_data.md goes through it step by step; with a CLIP of your own take configs/mmap_vit_b16.py.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

base_config = runpy.run_path(str(pathlib.Path(__file__).with_name("mmap.py")))["get_config"]


def get_config() -> ConfigDict:
    """Return the config."""
    config = base_config()
    config.suite = ConfigDict()
    config.suite.name = "folder"
    config.suite.root = ""  # root/<task>/<class>/*.jpg, or labels.csv
    config.suite.shots = 6
    config.suite.seed = 0
    config.suite.reserve = 0  # keep room for so many shots when cutting the test set
    config.suite.strict = True  # False: leave out images that cannot be read
    config.suite.background = "white"  # colour below transparent images; none: drop their transparency
    config.suite.exif = True  # turn images as their EXIF orientation says
    config.suite.megapixels = 178.0  # most of an image; larger ones are refused
    config.suite.layout = ""  # what the levels of folders are, such as task/part/class; empty: find out
    config.suite.evaluate_on = "test"  # or tune, the images of folders or lines called val
    config.suite.tasks = ()  # all folders, or the names of some
    config.suite.manifest = ""  # a split file to use instead of drawing one
    for part, epochs in ((config, 20), (config.grouping, 5)):
        part.train.epochs = epochs
        part.train.batch_size = 16
    return config
