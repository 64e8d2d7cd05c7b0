"""MmAP, its peers and its ablations on the icon suite: one preset per row of a table.

    python -m jax_promptmtl.main --config=configs/clip.py:maple

All start from configs/mmap.py: same data, epochs and batch size. Where a preset has prompts, no layer sees more than 8
of them, as many as the embedded CLIP's pretraining. Presets:

  zero_shot, full_ft, bitfit, coop, vpt, maple, clip_adapter, joint, mlp   one set of parameters for all tasks
  coop_single, vpt_single, maple_single                                    one set per task, trained on that task alone
  full_ft_single                                                           for a suite cut to one of its four tasks
  mmap                                                                     group-shared and task-specific prompts
  mmap_task, mmap_group, mmap_random, mmap_one                             Table 3: one kind of prompt, other groups

The three *_single runs equal separate runs: every batch has the same number of images of every task, a task's
parameters get the gradient of its own mean loss, and the optimisers are element-wise.
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import mmap
from jax_promptmtl.core.errors import pick

MMAP = mmap.get_config()
NONE = {"name": "none"}
TOKENS = {"name": "tokens", "std": 0.02}
METHODS = {  # family: method, tuned weights of the backbone
    "zero_shot": (NONE, ()),
    "full_ft": (NONE, (".*",)),
    "bitfit": (NONE, (".*/bias",)),
    "coop": (TOKENS | {"length": {"text": 8}, "depth": {"text": 1}}, ()),
    "vpt": (TOKENS | {"length": {"image": 8}, "depth": {"image": 4}}, ()),
    "joint": (TOKENS | {"length": {"text": 8, "image": 8}, "depth": {"text": 4, "image": 4}}, ()),
    "maple": ({"name": "maple", "length": 8, "depth": 4, "std": 0.02}, ()),
    "mlp": ({"name": "mlp", "length": 8, "source_width": 64, "depth": 4, "bias": True, "std": 0.02}, ()),
    "clip_adapter": ({"name": "adapter", "side": "image", "ratio": 0.2, "reduction": 4, "bias": False}, ()),
    "mmap": (MMAP.method.to_dict(), ()),
}
RATES = {  # family: learning rate, from configs/benchmark.py:rates; single-task and ablation presets use their family's
    "zero_shot": 0.0,
    "full_ft": 1e-4,
    "bitfit": 3e-3,
    "coop": 3e-3,
    "vpt": 3e-3,
    "joint": 3e-3,
    "maple": 3e-3,
    "mlp": 1e-2,
    "clip_adapter": 3e-3,
    "mmap": MMAP.train.optimizer.learning_rate,
}
SETS = {"group": "group", "task": "task"}
PRESETS = {  # title, family, sharing, grouping source
    "zero_shot": ("zero-shot again", "zero_shot", {}, "one"),
    "full_ft": ("full fine-tuning", "full_ft", {}, "one"),
    "full_ft_single": ("full fine-tuning, one task", "full_ft", {}, "one"),
    "bitfit": ("BitFit", "bitfit", {}, "one"),
    "coop": ("CoOp-MT", "coop", {"text": "all"}, "one"),
    "coop_single": ("CoOp", "coop", {"text": "task"}, "one"),
    "vpt": ("VPT-MT", "vpt", {"image": "all"}, "one"),
    "vpt_single": ("VPT", "vpt", {"image": "task"}, "one"),
    "maple": ("MaPLe-MT", "maple", {"text": "all", "linear": "all"}, "one"),
    "maple_single": ("MaPLe", "maple", {"text": "task", "linear": "task"}, "one"),
    "clip_adapter": ("CLIP-Adapter", "clip_adapter", {"image": "all"}, "one"),
    "joint": ("joint prompts", "joint", {"text": "all", "image": "all"}, "one"),
    "mlp": ("MLP prompts", "mlp", {"source": "all", "text": "all", "image": "all"}, "one"),
    "mmap": ("MmAP", "mmap", SETS, "learn"),
    "mmap_task": ("MmAP, task-specific only", "mmap", {"task": "task"}, "one"),
    "mmap_group": ("MmAP, group-shared only", "mmap", {"group": "group"}, "learn"),
    "mmap_random": ("MmAP, random groups", "mmap", SETS, "random"),
    "mmap_one": ("MmAP, one group", "mmap", SETS, "one"),
}
TASKS = 4  # of the icon suite and Office-Home


def get_config(preset: str = "full_ft") -> ConfigDict:
    """Return the config of a preset."""
    config = choose(mmap.get_config(), preset, METHODS)
    config.train.optimizer.learning_rate = RATES[PRESETS[preset][1]]
    if preset == "full_ft_single":
        config.train.batch_size //= TASKS  # as many steps, and images of a task in each, as the other *_single
    if len(config.sharing) == 1 and config.method.name == "mmap":
        config.method.length = config.method.rows = 8  # one set, as many prompts in a layer as two
    return config


def choose(config: ConfigDict, preset: str, methods: dict) -> ConfigDict:
    """Fill in what a preset trains, whatever the data and the schedule; `methods` is such as METHODS."""
    title, family, sharing, groups = PRESETS[pick(preset, PRESETS, "preset")]
    method, tune = methods[family]
    if family == "mmap":
        method = method | {"sets": tuple(sharing)}
    config.title, config.tune = title, tune
    config.method, config.sharing = ConfigDict(method, convert_dict=True), ConfigDict(sharing)
    config.grouping.source = groups
    if "task" in sharing.values() and family != "mmap":
        config.train.sampler, config.train.reduction = "stratified", "sum_of_task_means"
    return config
