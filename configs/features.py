"""Write a frozen VideoMAE's features of videos, on which ActionFormer and ASFormer train.

    python -m jax_promptmtl.main --config=configs/features.py --config.root=videos --workdir=videomae_features \
        --config.weights=vit_b_k710_dl_from_giant.pth
    python -m jax_promptmtl.main --config=configs/features.py:frames --config.root=videos --workdir=videomae_frames \
        --config.weights=vit_b_k710_dl_from_giant.pth

windows: one feature per window of 16 frames every 4 frames, as VideoMAEv2's extract_tad_feature.py has them, [T, 768];
frames: one per frame, [768, T], as the sets of action segmentation have them. The same command again goes on where it
was stopped.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import video_full
from jax_promptmtl.core.errors import pick

RULES = ("windows", "frames")


def get_config(rule: str = "windows") -> ConfigDict:
    """Return the config of a rule."""
    config = ConfigDict()
    config.job = "features"
    config.rule = pick(rule, RULES, "preset")
    config.task = "recognition"  # of the model, a VideoMAE with a norm of the mean
    config.root = ""  # folder of videos, files or folders of frames, with all below
    config.weights = ""  # a published VideoMAE with its last norm, or a model file of configs/video_full.py
    config.model = ConfigDict(dict(video_full.VIT_B))  # sizes, where no card beside the weights says them
    config.window = 16  # frames that the model sees at a time, as in its training
    config.stride = 4  # frames from one window to the next; not read by the rule frames
    config.size = 224  # side of the square that whole frames are squeezed into
    config.pixels = "shares" if rule == "windows" else "normalised"  # 0 to 1 as upstream's; or ImageNet's mean and std
    config.batch_size = 8  # windows at a time
    return config
