"""Fine-tune a full-size video model on a real data set, in its official layout and by the upstream's recipe.

    python -m jax_promptmtl.check_data --config=configs/video_full.py:ucf101 --config.data.root=UCF101
    python -m jax_promptmtl.main --config=configs/video_full.py:ucf101 --config.data.root=UCF101 \
        --config.weights=vit_b_k710_dl_from_giant.pth

Presets: ssv2, ucf101, hmdb51, ava, ava_kinetics, thumos14, 50salads, breakfast, gtea, imagenet_vid, youtube_vis;
ucf101_tfds and youtube_vis_tfds read what TFDS prepared; own reads root/<class>/*.mp4, or a CSV file. With --dry_run
the job prints parameters and memory. The best weights to start a VideoMAE from are VideoMAEv2's, distilled for
Kinetics-710.

TransVOD and DVIS learn in stages, each from the weights of the one before, and the parts below stay as they are:

    python -m jax_promptmtl.main --config=configs/video_full.py:imagenet_vid_single --config.data.root=ILSVRC \
        --config.weights=r50_deformable_detr_single_scale_dc5-checkpoint.pth
    python -m jax_promptmtl.main --config=configs/video_full.py:imagenet_vid --config.data.root=ILSVRC \
        --config.weights=runs/video_full_imagenet_vid_single/models/imagenet_vid.safetensors

and so youtube_vis_minvis, youtube_vis (online) and youtube_vis_offline.

The recipes have layer-wise decay of the learning rate, drop path, RandAugment, erasing, mixup, cutmix, smoothed labels,
repeated augmentation and several views of a test video as VideoMAEv2's have them (ssv2; ava without what needs one
label per clip). Unlike there, AVA's frames are squeezed to 224 x 224 pixels in training and tests, without changes of
colours and with exact boxes; tests take the labelled boxes, not a detector's; thumos14's weights are not averaged.
"""

from typing import Any

from ml_collections import ConfigDict

from jax_promptmtl.configs import common
from jax_promptmtl.core.errors import pick

VIT_B = {"width": 768, "layers": 12, "heads": 12, "inner": 3072, "patch": 16, "tubelet": 2, "remat": True}
CLIP = {"frames": 16, "stride": 0, "size": 224, "whole": False, "short": "repeat", "scale": (0.08, 1.0), "flip": True}
ASFORMER = {"width": 64, "layers": 10, "decoders": 3, "window_mask": "released"}
ACTIONFORMER = {"width": 512, "heads": 4, "window": 19, "stem": 2, "branch": 5, "reach": 4.0}
MS_TCN = {"split": 1, "features": "features", "channels": 2048}
SPLITS: dict[str, dict[str, Any]] = {  # options of the data sets beside `root` and `strict`
    "ssv2": {"videos": "20bn-something-something-v2", "suffix": ".webm"},
    "ucf101": {"split": 1, "videos": "UCF-101"},
    "ucf101_tfds": {"split": 1, "size": 0},
    "own": {"held_out": 0.2, "seed": 0},
    "hmdb51": {"split": 1, "videos": "hmdb51_org"},
    "ava": {"videos": "videos", "start": 0.0, "rate": 30.0},
    "ava_kinetics": {"videos": "videos", "ava_root": "", "ava_start": 0.0},
    "thumos14": {"features": "i3d_features", "channels": 2048, "drop": ()},
    "50salads": MS_TCN,
    "breakfast": MS_TCN,
    "gtea": MS_TCN,
    "imagenet_vid": {"joint": False, "sampled": True},
    "youtube_vis": {"held_out": 0.1, "seed": 0, "frames": "train/JPEGImages"},
    "youtube_vis_tfds": {"config": "only_frames_with_labels", "held_out": 0.1, "seed": 0},
}
STAGES = {  # of models that learn in stages: preset -> data set, stage; those of youtube_vis hold for TFDS's too
    "imagenet_vid_single": ("imagenet_vid", "single"),
    "imagenet_vid": ("imagenet_vid", "multi"),
    "youtube_vis_minvis": ("youtube_vis", "minvis"),
    "youtube_vis": ("youtube_vis", "online"),
    "youtube_vis_offline": ("youtube_vis", "offline"),
    "youtube_vis_tfds_minvis": ("youtube_vis_tfds", "minvis"),
    "youtube_vis_tfds": ("youtube_vis_tfds", "online"),
    "youtube_vis_tfds_offline": ("youtube_vis_tfds", "offline"),
}
RESNET = {"depths": (3, 4, 6, 3), "width": 64, "strides": (1, 2, 2, 2), "stem": 7, "pool": True}
TRANSVOD = {
    "resnet": RESNET | {"dilated": (3,)},  # DC5
    "detector": {"width": 256, "heads": 8, "points": 4, "encoders": 6, "decoders": 6, "inner": 1024}
    | {"queries": 300, "groups": 32},
    "selected": (80, 50, 30),  # queries per reference frame that the layers of the temporal part see
    "temporal_points": "released",  # as upstream's weights were trained; or fixed
}
DVIS = {
    "width": 256,
    "heads": 8,
    "mask_width": 256,
    "resnet": RESNET | {"dilated": ()},
    "pixels": {"points": 4, "inner": 1024, "layers": 6, "groups": 32},
    "decoder": {"inner": 2048, "layers": 9, "queries": 100},
    "tracker": {"inner": 2048, "layers": 6, "matching": "released"},  # as upstream's weights were trained; or fixed
}
RECIPES: dict[str, dict[str, Any]] = {
    # learning rate, batch size, epochs, share of warm-up, weight decay; a batch of ssv2 shows every video twice
    "ssv2": {"rate": 2e-3 * 32 / 256, "batch": 64, "epochs": 30, "warmup": 1 / 6, "decay": 0.05},
    "ucf101": {"rate": 1e-3 * 64 / 256, "batch": 64, "epochs": 50, "warmup": 0.1, "decay": 0.05},  # ours
    "hmdb51": {"rate": 1e-3 * 64 / 256, "batch": 64, "epochs": 50, "warmup": 0.1, "decay": 0.05},  # ours
    "own": {"rate": 1e-3 * 64 / 256, "batch": 64, "epochs": 50, "warmup": 0.1, "decay": 0.05},
    "ava": {"rate": 5e-4 * 32 / 256, "batch": 32, "epochs": 30, "warmup": 1 / 6, "decay": 0.05},
    "ava_kinetics": {"rate": 5e-4 * 32 / 256, "batch": 32, "epochs": 30, "warmup": 1 / 6, "decay": 0.05},
    "thumos14": {"rate": 1e-4, "batch": 2, "epochs": 35, "warmup": 1 / 7, "decay": 0.05},
    "50salads": {"rate": 5e-4, "batch": 1, "epochs": 120, "warmup": 0.0, "decay": 1e-5},
    "breakfast": {"rate": 1e-4, "batch": 1, "epochs": 120, "warmup": 0.0, "decay": 1e-5},
    "gtea": {"rate": 5e-4, "batch": 1, "epochs": 120, "warmup": 0.0, "decay": 1e-5},
    # the stages of TransVOD (8 GPUs with 4 frames, or 1 clip, each) and of DVIS: with a tenth of the videos held out
    # 20,080 and 40,160 steps, where upstream has 20,000 and 40,000
    "single": {"rate": 2e-4, "batch": 32, "epochs": 8, "warmup": 0.0, "decay": 1e-4},
    "multi": {"rate": 2e-4, "batch": 8, "epochs": 7, "warmup": 0.0, "decay": 1e-4},
    "minvis": {"rate": 1e-4, "batch": 8, "epochs": 80, "warmup": 0.0, "decay": 0.05},
    "online": {"rate": 1e-4, "batch": 8, "epochs": 160, "warmup": 0.0, "decay": 0.05},
    "offline": {"rate": 1e-4, "batch": 8, "epochs": 160, "warmup": 0.0, "decay": 0.05},
}
RESNET_SLOWER = ((".*/(resnet|backbone)/.*", 0.1),)
POINTS_SLOWER = ((".*/(offsets|start)/.*", 0.1),)  # where deformable attention looks
STAGED: dict[str, dict[str, Any]] = {
    # frames of a clip, shares of the steps after which the rate drops to a tenth, largest norm of the gradient, factors
    # of the rate, and the weights that are trained: norms of the ResNet never, and not what an earlier stage trained
    "single": {
        "frames": 1,
        "drops": (6 / 8, 7 / 8),
        "clip": 0.1,
        "factors": RESNET_SLOWER + POINTS_SLOWER,
        "tune": ("detector/(?!resnet/).*", "detector/resnet/block_[123]_.*/kernel"),
    },
    "multi": {
        "frames": 15,
        "drops": (4 / 7, 6 / 7),
        "clip": 0.1,
        "factors": RESNET_SLOWER + POINTS_SLOWER,
        "tune": ("temporal/.*",),
    },
    "minvis": {
        "frames": 1,
        "drops": (0.7,),
        "clip": 0.01,
        "factors": RESNET_SLOWER,
        "tune": ("(pixels|decoder)/.*", "backbone/.*/kernel"),
    },
    "online": {"frames": 5, "drops": (0.7,), "clip": 0.01, "factors": RESNET_SLOWER, "tune": ("tracker/.*",)},
    "offline": {"frames": 21, "drops": (0.7,), "clip": 0.01, "factors": RESNET_SLOWER, "tune": ("refiner/.*",)},
}
CANVASES = {"imagenet_vid": (600, 1000), "youtube_vis": (384, 640)}  # rows and columns, padding included
SIDES = {"imagenet_vid": 600, "youtube_vis": 360}  # short side of frames
STRIDES = {"ucf101": 4, "hmdb51": 2, "ava": 4, "ava_kinetics": 4}
STRONG: dict[str, dict[str, Any]] = {  # what keeps a vision transformer from learning its training clips by heart
    # decay of the learning rate from layer to layer, drop path, views of a video in a batch, test clips and their crops
    "ssv2": {"layers": 0.65, "path": 0.1, "repeats": 2, "clips": 2, "crops": 3},
    "ucf101": {"layers": 0.7, "path": 0.1, "repeats": 1, "clips": 5, "crops": 3},  # ours
    "hmdb51": {"layers": 0.7, "path": 0.1, "repeats": 1, "clips": 5, "crops": 3},  # ours
    "own": {"layers": 0.7, "path": 0.1, "repeats": 1, "clips": 2, "crops": 3},
    "ava": {"layers": 0.75, "path": 0.2, "repeats": 1, "clips": 1, "crops": 1},
    "ava_kinetics": {"layers": 0.75, "path": 0.2, "repeats": 1, "clips": 1, "crops": 1},
}
PLAIN = {"layers": 1.0, "path": 0.0, "repeats": 1, "clips": 1, "crops": 1}
SOFT = {"mixup": 0.8, "cutmix": 1.0, "chance": 1.0, "switch": 0.5, "smoothing": 0.1}
HARD = {"mixup": 0.0, "cutmix": 0.0, "chance": 1.0, "switch": 0.5, "smoothing": 0.0}


def get_config(preset: str = "ucf101") -> ConfigDict:
    """Return the config of a preset."""
    if preset in STAGES:
        return staged(*STAGES[preset])
    return plain(pick(preset, {*SPLITS, *STAGES}, "preset"))


def plain(preset: str, recipe_of: str = "") -> ConfigDict:
    """Return the config of a preset without stages, or what those of stages have in common with it.

    Args:
      preset: name of a data set.
      recipe_of: whose rate, batch, epochs, warm-up and decay to take, if not the data set's own.
    """
    task = recipe_of or preset.removesuffix("_tfds")
    recipe, strong = RECIPES.get(task, RECIPES["ssv2"]), STRONG.get(task, PLAIN)
    recognition = task in ("ssv2", "ucf101", "hmdb51", "own")
    config = ConfigDict()
    config.job = "finetune"
    config.seed = 0  # of initial parameters, data order and random views
    config.parallel = "jit"  # or pmap
    config.weights = ""  # file or folder of a VideoMAE to start from; empty draws all weights
    config.tune = (".*",)  # patterns of the weights that are trained
    config.evaluation_batch_size = recipe["batch"]

    config.data = ConfigDict({"name": preset, "root": "", "strict": True} | SPLITS[preset])

    config.sampling = ConfigDict(dict(CLIP))  # of frames; sets of features do not read it
    config.sampling.stride = STRIDES.get(task, 0)  # frames from one to the next; 0: evenly over the video
    config.sampling.whole = preset.startswith("ava")  # boxes need the whole frame, squeezed
    config.sampling.flip = preset != "ssv2"  # whose labels know left from right
    config.sampling.operations = 4 if recognition else 0  # of RandAugment (m7-n4-mstd0.5-inc1) on a training clip
    config.sampling.magnitude, config.sampling.spread = 7.0, 0.5  # of its operations
    config.sampling.erase = 0.25 if recognition else 0.0  # probability that a rectangle of a training clip is noise
    config.sampling.clips = strong["clips"]  # of a test video; scores of all views are averaged
    config.sampling.crops = strong["crops"]  # of a test clip
    config.sampling.canvas = ()  # rows and columns of whole frames with padding; () for squares
    config.sampling.backwards = False  # let half of the training clips run backwards
    config.sampling.tested = 0  # frames of a test clip; 0: as many as of a training clip
    config.mixing = ConfigDict(dict(SOFT if recognition else HARD))  # alphas, chances, and smoothing of labels
    config.drop_path = strong["path"]  # of the last block
    config.repeats = strong["repeats"]  # views of a video side by side in a batch
    features = preset in ("50salads", "breakfast", "gtea", "thumos14")
    config.views = 1 if features else recipe["epochs"] * config.repeats  # random ones of a clip: none comes twice
    config.every = 2 if preset == "50salads" else 1  # use every so many features; predictions stand for all frames
    config.multiple = 576 if preset == "thumos14" else 128  # of which the padded length of features is one
    config.feature = ConfigDict({"rate": 30.0, "stride": 4, "window": 16})  # of thumos14: frames per second, in frames
    config.feature.most = 2304 if preset == "thumos14" else 0  # features of a training clip; 0: whole videos

    config.points = 0  # of video_instance: at which a mask is compared; 0: at every cell
    config.guided = 0.5  # share of the steps in which the frozen part below chooses who answers for what, likewise

    config.model = ConfigDict(dict(VIT_B))
    if preset == "thumos14":
        config.model = ConfigDict(dict(ACTIONFORMER))
    elif SPLITS[preset] is MS_TCN:
        config.model = ConfigDict(dict(ASFORMER))

    optimizer = common.optimizer(recipe["rate"], warmup=recipe["warmup"], weight_decay=recipe["decay"], clip=1.0)
    config.train = common.training(recipe["epochs"], recipe["batch"], optimizer)
    config.train.log_every, config.train.checkpoint_every = 50, 1000
    config.train.optimizer.layer_decay = strong["layers"]  # 1: none
    config.train.optimizer.factors = ()  # of the rate: pairs of a pattern of weights and a number
    config.train.optimizer.drops = ()  # with the schedule `drops`: shares of the steps
    return config


def staged(name: str, stage: str) -> ConfigDict:
    """Return the config of a stage of TransVOD or DVIS."""
    task, recipe, config = name.removesuffix("_tfds"), STAGED[stage], plain(name, stage)
    config.model = ConfigDict({"stage": stage} | (TRANSVOD if task == "imagenet_vid" else DVIS))
    config.tune = recipe["tune"]
    config.sampling.frames = recipe["frames"]
    config.sampling.whole = True
    config.sampling.size, config.sampling.canvas = SIDES[task], CANVASES[task]
    if task == "youtube_vis":
        config.sampling.stride, config.sampling.short = 1, "pad"
        config.sampling.tested = 36  # labelled frames of the longest video
        config.sampling.backwards = stage == "offline"
        config.evaluation_batch_size = 1
    config.points = 12544 if task == "youtube_vis" else 0
    config.train.optimizer.schedule = "drops"
    config.train.optimizer.drops = recipe["drops"]
    config.train.optimizer.clip = recipe["clip"]
    config.train.optimizer.factors = recipe["factors"]
    return config
