"""A short training of prompts for the tiny CLIP, for tests of what is done with it afterwards."""

from configs import mmap
from jax_promptmtl import main
from jax_promptmtl.experiments.image import tune
from tests.tiny import save_clip, save_images


def make_config(folder):
    """Return the config of a training on `folder`/images with `folder`/clip, which are made if missing."""
    if not (folder / "clip").exists():
        save_clip(folder / "clip")
        save_images(folder / "images")
    config = mmap.get_config().unlock()
    config.backbone.path = str(folder / "clip")
    config.template = "a {}"
    config.suite = {"name": "folder", "root": str(folder / "images"), "shots": 2}
    config.evaluation_batch_size = 16
    config.grouping.source, config.grouping.groups = "given", (("ink", "wax"), ("oil", "pen"))
    config.method.length, config.method.rows, config.method.columns = 2, 1, 16
    config.train.epochs, config.train.batch_size, config.train.log_every = 1, 8, 1
    config.train.optimizer.learning_rate = 0.5  # that the tasks' prompts differ
    return config.lock()


def train(folder):
    """Train; returns the work directory."""
    with main.kept(make_config(folder), folder / "work", alone=True):
        tune.run(make_config(folder), folder / "work", dry_run=False)
    return folder / "work"
