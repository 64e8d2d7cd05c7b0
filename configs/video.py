"""Train the small models of the moving icons that others prompt and ask; recognition first, the others build on it.

    python -m jax_promptmtl.main --config=configs/video.py:recognition
    python -m jax_promptmtl.main --config=configs/video.py:spatial_action
    python -m jax_promptmtl.main --config=configs/video.py:temporal_action
    python -m jax_promptmtl.main --config=configs/video.py:segmentation

The models are runs/video/models/<task>.safetensors, each with a card of what it scores.
"""

from ml_collections import ConfigDict

EPOCHS = {"recognition": 25, "spatial_action": 15, "temporal_action": 30, "segmentation": 30}
CLIPS = {"recognition": 4096, "spatial_action": 4096, "temporal_action": 1024, "segmentation": 1024}


def get_config(task: str = "recognition") -> ConfigDict:
    """Return the config of a task."""
    config = ConfigDict()
    config.job = "video_pretrain"
    config.task = task
    config.seed = 0  # of initial parameters and data order
    config.parallel = "jit"  # or pmap

    config.clips = ConfigDict()
    config.clips.seed = 0  # draws the clips
    config.clips.train = CLIPS[task]
    config.clips.test = 512

    config.train = ConfigDict()
    config.train.epochs = EPOCHS[task]
    config.train.batch_size = 32
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.optimizer = ConfigDict()
    config.train.optimizer.name = "adamw"
    config.train.optimizer.learning_rate = 1e-3
    config.train.optimizer.schedule = "cosine"
    config.train.optimizer.warmup = 0.05  # share of the steps
    config.train.optimizer.weight_decay = 0.05
    config.train.optimizer.momentum = 0.9
    config.train.optimizer.b2 = 0.999
    config.train.optimizer.clip = 1.0
    return config
