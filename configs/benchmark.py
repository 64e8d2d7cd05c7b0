"""The benchmark: methods x suites x shots x seeds, one record per run.

    python -m jax_promptmtl.benchmark --config=configs/benchmark.py
    python -m jax_promptmtl.report runs/benchmark

Killed at any time, the same command does what is missing; the same command on another machine that sees the folder, or
a second time on this one, shares the work. Presets:

  (none)           18 methods, 3 seeds, the icon suite, 12 shots
  smoke            a few methods for one epoch at one shot, to see that everything runs
  rates            three learning rates of every family, on drawings held out for tuning, one seed
  shots            the k-shot curves: 1, 3, 6 and 12 shots
  office_home, mini_domainnet
                   the paper's Tables 1 and 2 with CLIP ViT-B/16; give --config.suites.office_home.root=... and
                   --config.backbone=ViT-B-16.pt
  video            tables 1 and 2 and figure 3 of DLM-VMTL on the moving icons: 12 rows, 6 primaries, 3 seeds
  video_four       the same of the first four primaries, with three auxiliaries each and one learning rate for most rows
  video_rates      four learning rates of every family of its rows for one primary of every kind of model, one seed, on
                   drawings held out for tuning
"""

from ml_collections import ConfigDict

from jax_promptmtl.configs import clip, clip_vit_b16, common, dlm
from jax_promptmtl.core.errors import pick

METHODS = tuple(clip.PRESETS)
CURVES = ("zero_shot", "coop", "vpt", "maple", "mmap")
SMOKE = ("zero_shot", "bitfit", "coop", "clip_adapter", "mmap", "mmap_random")
RATES = {  # preset that stands for its family: learning rates to try
    "full_ft": (1e-4, 3e-4, 1e-3),
    "bitfit": (3e-4, 1e-3, 3e-3),
    "coop": (3e-3, 1e-2, 3e-2),
    "vpt": (3e-3, 1e-2, 3e-2),
    "maple": (1e-3, 3e-3, 1e-2),
    "clip_adapter": (1e-3, 3e-3, 1e-2),
    "joint": (1e-3, 3e-3, 1e-2),
    "mlp": (1e-3, 3e-3, 1e-2),
    "mmap": (1e-3, 3e-3, 1e-2),
}
VIDEO_ROWS = ("frozen", "full_ft", "vpt", "hps", "mvlpt", "dlm", "single_layer")
VIDEO_ROWS += ("mid_prompt", "self_aux", "other_clip", "own_data", "adapter")
VIDEO_RATES = {  # row that stands for its family: learning rates to try
    "full_ft": (1e-4, 3e-4, 1e-3, 3e-3),
    "hps": (3e-4, 1e-3, 3e-3, 1e-2),
    "vpt": (1e-4, 1e-3, 1e-2, 3e-2),
    "dlm": (1e-4, 3e-4, 1e-3, 3e-3),
}
ICONS = {"name": "icons", "evaluate_on": "test", "data_dir": ""}


def get_config(preset: str = "icons") -> ConfigDict:
    """Return the config of a preset."""
    return CONFIGS[pick(preset, CONFIGS, "preset")]()


def icons() -> ConfigDict:
    """Return the whole grid of the icon suite."""
    config = common.grid("benchmark", {name: clip.get_config(name) for name in METHODS})
    config.methods = METHODS  # which of the presets below to run
    config.suites = ConfigDict({"icons": ICONS})  # options of data/suites; shots and seed come from the grid
    config.shots = (12,)  # training images per class and task
    config.separate = ("full_ft_single",)  # presets that are trained once per task
    config.backbone = ""  # path of other weights than the presets'
    config.presets.zero_shot.title = "zero-shot"
    return config


def smoke() -> ConfigDict:
    """Return a grid of a few minutes."""
    config = icons()
    config.methods, config.shots, config.seeds = SMOKE, (1,), (0,)
    for part in config.presets.values():
        part.train.epochs = part.grouping.train.epochs = 1
        part.grouping.warmup_epochs = 0.0
    return config


def rates() -> ConfigDict:
    """Return the search for learning rates: the same effort for every family, never on test data."""
    config = icons()
    config.methods, config.seeds, config.rates = tuple(RATES), (0,), ConfigDict(RATES)
    config.suites = ConfigDict({"icons_tune": ICONS | {"evaluate_on": "tune"}})
    return config


def shots() -> ConfigDict:
    """Return the k-shot curves (Figure 5)."""
    config = icons()
    config.methods, config.shots = CURVES, (1, 3, 6, 12)
    return config


def paper(name: str, shots: tuple[int, ...], batch_size: int) -> ConfigDict:
    """Return the grid of a table of the paper."""
    config = icons()
    names = [*METHODS, "full_ft_tuned", "maple_deep"]
    config.methods, config.shots = tuple(names), shots
    config.suites = ConfigDict({name: {"name": name, "root": "", "reserve": 0, "strict": True, "manifest": ""}})
    config.presets = ConfigDict({preset: clip_vit_b16.get_config(preset) for preset in names})
    config.presets.zero_shot.title = "zero-shot"
    for preset, part in config.presets.items():
        part.train.batch_size = batch_size // 4 if preset in config.separate else batch_size
        part.grouping.train.batch_size = batch_size
    return config


def video() -> ConfigDict:
    """Return the grid of the video job."""
    config = common.grid("video_benchmark", {task: dlm.get_config(task) for task in dlm.TASKS})
    config.tasks = dlm.TASKS  # primaries
    config.rows = VIDEO_ROWS
    config.models = ""  # folder of other frozen models than the presets'
    for part in config.presets.values():
        part.clips.train //= 2
        part.train.epochs = 4
    return config


def video_four() -> ConfigDict:
    """Return the grid of the tasks whose models are a vision transformer or read the features of one."""
    config = video()
    config.tasks = four = dlm.TASKS[:4]
    for task in four:
        config.presets[task].aux = tuple(other for other in four if other != task)
        config.presets[task].rates = ConfigDict({"full_ft": 1e-4, "hps": 1e-4})
    return config


def video_rates() -> ConfigDict:
    """Return the search for learning rates of the rows of the video job, never on test data."""
    config = video()
    config.tasks, config.seeds = ("recognition", "segmentation", "video_object"), (0,)
    config.rows, config.rates = tuple(VIDEO_RATES), ConfigDict(VIDEO_RATES)
    for part in config.presets.values():
        part.clips.evaluate_on, part.clips.test, part.curves = "tune", 512, ()
    return config


CONFIGS = {
    "video": video,
    "video_four": video_four,
    "video_rates": video_rates,
    "icons": icons,
    "smoke": smoke,
    "rates": rates,
    "shots": shots,
    "office_home": lambda: paper("office_home", (6, 12), 16),
    "mini_domainnet": lambda: paper("mini_domainnet", (3, 6), 4),
}
