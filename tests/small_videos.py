"""Sizes of the full-size video models made small, for miniatures of data sets."""

TINY = {"width": 16, "layers": 2, "heads": 2, "inner": 32, "patch": 8}
RESNET = {"depths": (1, 1, 1), "width": 8, "strides": (2, 2, 2), "dilated": (2,), "stem": 3, "pool": False}
TRANSVOD = {
    "resnet": RESNET,
    "detector": {"width": 16, "heads": 2, "encoders": 1, "decoders": 2, "inner": 32, "queries": 8, "groups": 4},
    "selected": (4, 2),
}
DVIS = {
    "width": 16,
    "heads": 2,
    "mask_width": 16,
    "resnet": RESNET | {"depths": (1, 1, 1, 1), "strides": (2, 2, 2, 2), "dilated": ()},
    "pixels": {"points": 2, "inner": 32, "layers": 1, "groups": 4},
    "decoder": {"inner": 32, "layers": 1, "queries": 5},
    "tracker": {"inner": 32, "layers": 1},
}
STAGED = {  # stage -> changes of the miniature, beside those of SMALL
    "imagenet_vid_single": {"model": TRANSVOD},
    "imagenet_vid": {"model": TRANSVOD},
    "youtube_vis_minvis": {"model": DVIS, "points": 16},
    "youtube_vis": {"model": DVIS, "points": 16},
    "youtube_vis_offline": {"model": DVIS, "points": 16},
}
SMALL = STAGED | {
    "ucf101": {"model": TINY},
    "own": {"model": TINY},
    "ava": {"model": TINY},
    "50salads": {"model": {"width": 16, "layers": 3, "decoders": 1}, "multiple": 16},
    "thumos14": {
        "model": {"width": 16, "heads": 2, "window": 5, "stem": 1, "branch": 2, "embeddings": 1},
        "multiple": 16,
        "train": {"batch_size": 1},
    },
}
