"""The peers of MmAP on the icon suite: one preset per method.

    python -m jax_promptmtl.main --config=configs/clip.py:full_ft

Presets: zero_shot, full_ft, bitfit, coop, vpt, joint (free tokens in both towers). Parameters are shared by all
tasks; to give each task its own, --config.sharing.text=task or --config.sharing.image=task where the preset has that
subtree.
"""

from ml_collections import ConfigDict

from configs import mmap

TOKENS = {"name": "tokens", "std": 0.02}
PRESETS = {  # title, method, sharing, tuned weights, learning rate
    "zero_shot": ("zero-shot again", {"name": "none"}, {}, (), 0.0),
    "full_ft": ("full fine-tuning", {"name": "none"}, {}, (".*",), 3e-4),
    "bitfit": ("BitFit", {"name": "none"}, {}, (".*/bias",), 1e-3),
    "coop": ("CoOp-MT", TOKENS | {"length": {"text": 8}, "depth": {"text": 1}}, {"text": "all"}, (), 1e-2),
    "vpt": ("VPT-MT", TOKENS | {"length": {"image": 8}, "depth": {"image": 4}}, {"image": "all"}, (), 1e-2),
    "joint": (
        "joint prompts",
        TOKENS | {"length": {"text": 8, "image": 8}, "depth": {"text": 4, "image": 4}},
        {"text": "all", "image": "all"},
        (),
        3e-3,
    ),
}


def get_config(preset: str = "full_ft") -> ConfigDict:
    """Return the config of a preset."""
    config = mmap.get_config()
    title, method, sharing, tune, rate = PRESETS[preset]
    config.title, config.tune = title, tune
    config.method, config.sharing = ConfigDict(method, convert_dict=True), ConfigDict(sharing)
    config.grouping.source = "one"
    config.train.optimizer.learning_rate = rate
    return config
