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

CLIPS = {"recognition": 1024, "spatial_action": 8192, "temporal_action": 4096, "segmentation": 4096}
CLIPS |= {"video_object": 8192, "video_instance": 8192}
EPOCHS = {"recognition": 5, "spatial_action": 1, "temporal_action": 15, "segmentation": 15}
EPOCHS |= {"video_object": 8, "video_instance": 6}
BATCH = {"video_object": 32, "video_instance": 16}


def get_config(task: str = "recognition") -> ConfigDict:
    """Return the config of a task."""
    config = ConfigDict()
    config.job = "video_pretrain"
    config.task = task
    config.models = "runs/video/models"  # folder of the models: recognition is read there, the new one written
    config.seed = 0  # of initial parameters and data order
    config.parallel = "jit"  # or pmap

    config.clips = ConfigDict()
    config.clips.seed = 0  # draws the clips
    config.clips.train = CLIPS[task]
    config.clips.test = 1024

    config.train = ConfigDict()
    config.train.epochs = EPOCHS[task]
    config.train.tracker_epochs = 2  # of video_instance, after those of its segmenter
    config.train.frames = 4  # that video_object and video_instance see of a training clip; the others see all
    config.train.batch_size = BATCH.get(task, 64)
    config.train.log_every = 20
    config.train.checkpoint_every = 500
    config.train.optimizer = ConfigDict()
    config.train.optimizer.name = "muon"  # on the blocks' matrices; AdamW on the rest
    config.train.optimizer.learning_rate = 3e-3
    config.train.optimizer.schedule = "cosine"
    config.train.optimizer.warmup = 0.05  # share of the steps
    config.train.optimizer.weight_decay = 0.05
    config.train.optimizer.momentum = 0.95
    config.train.optimizer.b2 = 0.999
    config.train.optimizer.matrix_rms = 0.2
    config.train.optimizer.clip = 1.0
    if task == "video_object":
        config.train.optimizer.name = "adamw"
        config.train.optimizer.learning_rate = 1e-3
        config.train.optimizer.momentum = 0.9
        config.train.optimizer.weight_decay = 1e-4
    return config
