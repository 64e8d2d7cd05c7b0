"""DLM-VMTL on real videos: prompts for a frozen primary of one data set from what frozen models of other tasks see.

    python -m jax_promptmtl.main --config=configs/dlm_full.py:ssv2 --config.data.root=ssv2 \
        --config.primary.weights=runs/video_full_ssv2/models/ssv2.safetensors \
        --config.aux.spatial_action.weights=ava.safetensors
    python -m jax_promptmtl.main --config=configs/dlm_full.py:own --config.data.root=my_videos \
        --config.primary.weights=runs/video_full_own/models/own.safetensors \
        --config.aux.recognition.weights=vit_b_k710_dl_from_giant.pth

Presets: the data sets of configs/video_full.py. The primary is a model of that data set: what video_full.py trained, or
what upstream publishes for it. An auxiliary is every section of `aux` with weights: a file that upstream publishes, one
that video_full.py trained, or package:TASK, a small model of the package; `other` is for a second one of any task. With
--dry_run the job prints parameters, memory of a step and the size of a cache of middle states.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import common, video_full

TASKS = ("recognition", "spatial_action", "temporal_action", "segmentation", "video_object", "video_instance")
MODELS = {
    "recognition": video_full.VIT_B,
    "spatial_action": video_full.VIT_B,
    "temporal_action": video_full.ACTIONFORMER,
    "segmentation": video_full.ASFORMER,
    "video_object": {"stage": "multi", **video_full.TRANSVOD},
    "video_instance": {"stage": "online", **video_full.DVIS},
}
TASK_OF = {"ava": "spatial_action", "ava_kinetics": "spatial_action", "thumos14": "temporal_action"}
TASK_OF |= dict.fromkeys(("50salads", "breakfast", "gtea"), "segmentation")
TASK_OF |= {"imagenet_vid": "video_object", "youtube_vis": "video_instance"}  # others: recognition
BY_FRAME = ("video_object", "video_instance")
EPOCHS = {"imagenet_vid": 8, "50salads": 50, "breakfast": 50, "gtea": 50}
SMALL_BATCH = {"imagenet_vid": 1, "youtube_vis": 1, "thumos14": 2, "50salads": 1, "breakfast": 1, "gtea": 1}


def get_config(preset: str = "ssv2") -> ConfigDict:
    """Return the config of a primary's data set."""
    config = video_full.get_config(preset)  # data, frames, model and views as for its fine-tuning
    for key in ("weights", "tune", "mixing", "drop_path", "guided"):
        del config[key]
    config.job = "video"
    name = config.data.name.removesuffix("_tfds")  # whatever its stage
    config.task = TASK_OF.get(name, "recognition")  # of the data set
    config.repeats = 1
    config.views = 1  # random ones of a training video; more than one are not kept, see cache.place
    config.sampling.operations, config.sampling.erase = 0, 0.0
    config.sampling.clips = config.sampling.crops = 1
    config.evaluation_batch_size = SMALL_BATCH.get(name, 16)

    config.rows = ("frozen", "dlm", "mid_prompt", "self_aux", "other_clip", "adapter")  # see experiments/video/rows.py
    config.curves = ()  # rows that are measured after every epoch
    config.prompt_mode = "dynamic"  # of training; or batch_mean: one set of prompts for a whole batch
    config.cut = 3 if preset == "thumos14" else 0  # layers of the primary below the prompts; 0: half of them
    config.drop_after = 0  # layers of the primary that see the prompts; 0: all above the middle
    config.init_from_aux_layer = False  # start the mapper's layer as a copy of the transformer's next one (eq. 1)

    config.primary = ConfigDict()
    config.primary.weights = ""  # of the frozen primary, with a head for the classes of its data
    config.primary.pixels = "normalised"  # or, of the small models of the package, "standardised per clip"
    config.prompts = ""  # work directory of a run on other data, or its prompts_dlm.safetensors: measured, not trained
    config.aux = ConfigDict({task: auxiliary(task) for task in TASKS})
    config.aux.other = auxiliary("recognition")  # a second one of any task
    config.frames = ConfigDict()  # of the videos of sets of features, which auxiliaries see
    config.frames.root = ""  # their folder
    config.frames.suffix = ".mp4"  # "" for folders of frames
    config.frames.count = 16  # of a video, or of a window of it
    config.frames.size = 224

    config.cache = ConfigDict()  # of middle states
    config.cache.place = "auto"  # memory where they fit; or memory, disk, off (computed in every step)
    config.cache.folder = ""  # of the files on disk

    config.method = common.mapper(head_dim=64)

    config.rates = ConfigDict({"full_ft": 1e-5, "vpt": 1e-2})  # of rows that need another learning rate

    optimizer = common.optimizer(1e-3, weight_decay=1e-4, clip=1.0)
    config.train = common.training(EPOCHS.get(name, 30), SMALL_BATCH.get(name, 64), optimizer)
    return config


def auxiliary(task: str) -> ConfigDict:
    """Return the section of an auxiliary, which is used when it has weights."""
    section = ConfigDict()
    section.task = task
    section.weights = ""  # a published file, a model file of ours, or package:TASK
    section.model = ConfigDict(dict(MODELS[task]))  # sizes, where no card beside the weights says them
    section.frames = 4 if task in BY_FRAME else 16  # of the primary's, evenly spread
    section.size = 0 if task in BY_FRAME else 224  # side of the square that it sees; 0: the primary's frames
    section.pixels = "normalised"
    section.extractor = ConfigDict()  # of temporal_action and segmentation: the VideoMAE that makes their features
    section.extractor.weights = ""
    section.extractor.model = ConfigDict(dict(video_full.VIT_B))
    section.extractor.frames = 16
    section.extractor.size = 224
    return section
