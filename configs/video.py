"""Train the small models of the moving icons that others prompt and ask; recognition first, the others build on it.

    python -m jax_promptmtl.main --config=configs/video.py:recognition
    python -m jax_promptmtl.main --config=configs/video.py:spatial_action
    python -m jax_promptmtl.main --config=configs/video.py:temporal_action
    python -m jax_promptmtl.main --config=configs/video.py:segmentation
    python -m jax_promptmtl.main --config=configs/video.py:video_object
    python -m jax_promptmtl.main --config=configs/video.py:video_instance

The models are runs/video/models/<task>.safetensors, each with a card of what it scores; those that come with the
package were made by these commands.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common
from jax_promptmtl.core.errors import pick

CLIPS = {"recognition": 1024, "spatial_action": 8192, "temporal_action": 4096, "segmentation": 4096}
CLIPS |= {"video_object": 8192, "video_instance": 8192}
EPOCHS = {"recognition": 5, "spatial_action": 1, "temporal_action": 15, "segmentation": 15}
EPOCHS |= {"video_object": 8, "video_instance": 6}
BATCH = {"video_object": 32, "video_instance": 16}


def get_config(task: str = "recognition") -> ConfigDict:
    """Return the config of a task."""
    config = ConfigDict()
    config.job = "video_pretrain"
    config.task = pick(task, CLIPS, "preset")
    config.models = "runs/video/models"  # folder of the models: recognition is read there, the new one written
    config.seed = 0  # of initial parameters and data order
    config.parallel = "jit"  # or pmap

    config.clips = ConfigDict()
    config.clips.seed = 0  # draws the clips
    config.clips.train = CLIPS[task]
    config.clips.test = 1024

    config.train = common.training(EPOCHS[task], BATCH.get(task, 64), optimizer(task))
    config.train.tracker_epochs = 2  # of video_instance, after those of its segmenter
    config.train.frames = 4  # that video_object and video_instance see of a training clip; the others see all
    return config


def optimizer(task: str) -> ConfigDict:
    """Return the optimiser of a task."""
    config = common.optimizer(3e-3, name="muon", weight_decay=0.05, momentum=0.95, clip=1.0)
    if task == "video_object":
        config.update({"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4, "momentum": 0.9})
    return config
