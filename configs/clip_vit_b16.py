"""MmAP, its peers and its ablations on your own images with CLIP ViT-B/16, as the papers size and train them.

    python -m jax_promptmtl.main --config=configs/clip_vit_b16.py:maple \
        --config.backbone.path=ViT-B-16.pt --config.suite.root=office_home

Presets: those of configs/clip.py; maple_deep (prompts in all 12 layers); full_ft_tuned (AdamW 1e-5, weight decay 0.1,
cosine, where full_ft is the paper's SGD 0.0035). Data and schedule: configs/mmap_vit_b16.py. The released code's sizes
are the defaults; what fits the paper's parameter counts is in the comments.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import clip, common, mmap_vit_b16

SIZES = {  # family: what differs from configs/clip.py
    "coop": {"length": {"text": 16}},
    "vpt": {"length": {"image": 8}, "depth": {"image": 12}},  # 18 is the paper's 0.17 M
    "joint": {"length": {"text": 4, "image": 4}, "depth": {"text": 12, "image": 12}},
    "maple": {"length": 2, "depth": 9},  # length 16 and depth 12 are the paper's 4.8 M
    "clip_adapter": {"reduction": 4},  # both sides, reduction 2 and biases are the paper's 0.53 M
    "mlp": {"length": 4, "source_width": 256, "depth": 12},  # the paper's 3.96 M
    "mmap": mmap_vit_b16.get_config().method.to_dict(),
}
METHODS = {family: (method | SIZES.get(family, {}), tune) for family, (method, tune) in clip.METHODS.items()}


def get_config(preset: str = "full_ft") -> ConfigDict:
    """Return the config of a preset."""
    name = {"full_ft_tuned": "full_ft", "maple_deep": "maple"}.get(preset, preset)
    config = clip.choose(mmap_vit_b16.get_config(), name, METHODS)
    if config.train.sampler == "stratified":
        config.train.batch_size *= clip.TASKS  # every task has the paper's batch to itself
    if preset == "maple_deep":
        config.title, config.method.depth = "MaPLe-MT, all layers", 12
    if preset == "full_ft_tuned":
        config.title = "full fine-tuning, AdamW"
        config.train.optimizer = common.optimizer(1e-5, weight_decay=0.1)
    return config
