"""DLM-VMTL on the moving icons: prompts for a frozen primary from what frozen models of the other tasks see.

    python -m jax_promptmtl.main --config=configs/dlm.py
    python -m jax_promptmtl.main --config=configs/dlm.py:segmentation

The primary is recognition, spatial_action, temporal_action, segmentation, video_object or video_instance; the
auxiliaries are the others, or any of them by --config.aux. The models come with the package, or from configs/video.py
by --config.models=runs/video/models.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common
from jax_promptmtl.core.errors import pick

TASKS = ("recognition", "spatial_action", "temporal_action", "segmentation", "video_object", "video_instance")
BY_FRAME = ("video_object", "video_instance")  # heavier, and with a label for every frame
ON_VIT = ("recognition", "spatial_action")
RATES = {"full_ft": 1e-4, "hps": 1e-3, "vpt": 1e-2, "mvlpt": 1e-2}  # by configs/benchmark.py:video_rates
RATES_ON_VIT = RATES | {"full_ft": 1e-3, "vpt": 3e-2, "mvlpt": 3e-2}


def get_config(task: str = "recognition") -> ConfigDict:
    """Return the config of a primary task."""
    config = ConfigDict()
    config.job = "video"
    config.task = pick(task, TASKS, "preset")
    config.aux = tuple(name for name in TASKS if name != task)
    config.models = ""  # folder of the frozen models; empty: those of the package
    config.rows = ("frozen", "dlm", "mid_prompt", "self_aux", "other_clip", "adapter")  # see experiments/video/rows.py
    config.curves = ("dlm", "single_layer")  # rows that are measured after every epoch
    config.seed = 0  # of initial parameters and data order
    config.parallel = "jit"  # or pmap
    config.prompt_mode = "dynamic"  # of training; or batch_mean: one set of prompts for a whole batch
    # Layers of the primary below the prompts; 0: half of them. A temporal primary is cut before its pyramid begins:
    # half of its layers would finish the level that nearly all answers come from, which prompts then never meet.
    config.cut = 1 if task == "temporal_action" else 0
    config.drop_after = 0  # layers of the primary that see the prompts; 0: all above the middle
    config.init_from_aux_layer = False  # start the mapper's layer as a copy of the transformer's next one (eq. 1)
    config.evaluation_batch_size = 64

    config.clips = ConfigDict()
    config.clips.seed = 1  # draws the clips to train on; the frozen models saw those of seed 0
    config.clips.test_seed = 0  # draws the clips to test on: the first ones are those of the frozen models' cards
    config.clips.evaluate_on = "test"  # or tune, drawings of neither part, to choose options by
    config.clips.train = 512 if task in BY_FRAME else 1024
    config.clips.test = 512 if task in BY_FRAME else 1024

    config.cache = ConfigDict()  # of the lower halves
    config.cache.place = "memory"  # or disk
    config.cache.folder = ""  # of the files on disk

    config.method = common.mapper(head_dim=32)

    config.rates = ConfigDict(RATES_ON_VIT if task in ON_VIT else RATES)  # of rows that need another learning rate

    optimizer = common.optimizer(1e-3, weight_decay=1e-4, clip=1.0)
    config.train = common.training(epochs=8, batch_size=16 if task in BY_FRAME else 32, optimizer=optimizer)
    return config
