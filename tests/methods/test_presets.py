"""The presets of configs/clip.py and configs/clip_vit_b16.py: what they train, how much of it, and at which rates."""

import functools
import pathlib
import runpy
import sys

import jax
import pytest

from configs import clip, clip_vit_b16, mmap
from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.methods.sharing import slots
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import ClipConfig

ROOT = pathlib.Path(clip.__file__).parents[1]
GROUPS = ((0, 3), (1, 2))  # four tasks in two groups
VIT_B16 = ClipConfig(512, 224, 16, 768, 12, 12, 77, 49408, 512, 12, 8, "quick_gelu")
ICON_CLIP = ClipConfig(128, 48, 8, 192, 4, 3, 32, 2562, 128, 4, 2, "quick_gelu")
weights_of = functools.cache(convert.shapes)
COUNTS = {  # preset: trainable parameters at ViT-B/16 and of the embedded CLIP
    "zero_shot": (0, 0),
    "full_ft": (149_620_737, tree.count(weights_of(ICON_CLIP))),
    "full_ft_single": (149_620_737, tree.count(weights_of(ICON_CLIP))),
    "bitfit": (171_008, 4 * 11 * 320 + 128 + 2 * 192),
    "coop": (8_192, 8 * 128),
    "coop_single": (32_768, 4 * 8 * 128),
    "vpt": (73_728, 4 * 8 * 192),
    "vpt_single": (294_912, 4 * 4 * 8 * 192),
    "maple": (3_555_072, 103_168),
    "maple_single": (14_220_288, 4 * 103_168),
    "clip_adapter": (131_072, 8_192),
    "joint": (1280 * 4 * 12, 320 * 8 * 4),
    "mlp": (3_959_808, 4 * (8 * 64 + 65 * 320)),
    "mmap": (129_744, 6 * 1_044),
    "mmap_task": (4 * 21_624, 4 * 2_068),
    "mmap_group": (2 * 21_624, 2 * 2_068),
    "mmap_random": (129_744, 6 * 1_044),
    "mmap_one": (5 * 21_624, 5 * 1_044),
}


def trained(config, sizes):
    """Return the number of trainable parameters and the method's prompts, from shapes alone."""
    method = make_method(config.method, {"towers": sizes.towers, "embed_dim": sizes.embed_dim})
    prompts, variables = jax.eval_shape(method.init_with_output, jax.random.key(0))
    params = variables.get("params", {})
    assert set(params) == set(config.sharing)
    groups = (tuple(range(4)),) if config.grouping.source == "one" else GROUPS
    counts = [int(slots(kind, 4, groups).max() + 1) * tree.count(params[name]) for name, kind in config.sharing.items()]
    weights = weights_of(sizes)
    return sum(counts) + tree.count(tree.partition(weights, tree.trainable(weights, config.tune))[0]), prompts


@pytest.mark.parametrize("preset", COUNTS)
def test_counts_at_vit_b16_with_four_tasks_in_two_groups(preset):
    assert trained(clip_vit_b16.get_config(preset), VIT_B16)[0] == COUNTS[preset][0]


def test_prompts_in_every_layer_count_as_in_the_paper():
    config = clip_vit_b16.get_config("maple_deep")
    assert trained(config, VIT_B16)[0] == 12 * (512 * 2 + 393_984)
    config.method.length = 16
    assert trained(config, VIT_B16)[0] == 4_826_112
    config = clip_vit_b16.get_config("vpt")
    config.method.length.image = 18
    assert trained(config, VIT_B16)[0] == 165_888


@pytest.mark.parametrize("preset", COUNTS)
def test_counts_at_the_embedded_scale_and_eight_prompts_or_none(preset):
    total, prompts = trained(clip.get_config(preset), ICON_CLIP)
    assert total == COUNTS[preset][1]
    assert {tokens.shape[0] for layers in prompts.values() for tokens in layers.values()} <= {8}


def test_every_preset_is_counted_and_titles_differ():
    assert COUNTS.keys() == clip.PRESETS.keys()
    titles = [clip.get_config(preset).title for preset in clip.PRESETS]
    assert len(set(titles)) == len(titles)
    assert {family for _, family, *_ in clip.PRESETS.values()} == clip.RATES.keys() == clip.METHODS.keys()


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_differ_from_mmaps_config_only_in_what_they_train(preset):
    config, base = clip.get_config(preset).to_dict(), mmap.get_config().to_dict()
    train, expected = config.pop("train"), base.pop("train")
    assert train["optimizer"].pop("learning_rate") == clip.RATES[clip.PRESETS[preset][1]]
    expected["optimizer"].pop("learning_rate")
    if preset.endswith("_single"):
        alone = {"batch_size": 8} if preset == "full_ft_single" else STRATIFIED
        expected |= alone
    assert train == expected
    config["grouping"].pop("source"), base["grouping"].pop("source")
    for key in ("title", "method", "sharing", "tune"):
        config.pop(key), base.pop(key)
    assert config == base


STRATIFIED = {"sampler": "stratified", "reduction": "sum_of_task_means"}


def test_the_mmap_preset_is_mmaps_config():
    assert clip.get_config("mmap").to_dict() == mmap.get_config().to_dict()


def test_single_task_presets_give_every_task_its_own_parameters():
    for preset in ("coop", "vpt", "maple"):
        shared, single = clip.get_config(preset), clip.get_config(f"{preset}_single")
        assert shared.method.to_dict() == single.method.to_dict()
        assert set(shared.sharing.values()) == {"all"} and set(single.sharing.values()) == {"task"}
        assert clip_vit_b16.get_config(f"{preset}_single").train.batch_size == 64  # 16 of every task


def test_both_schedules_of_full_fine_tuning():
    paper, tuned = (clip_vit_b16.get_config(name).train.optimizer for name in ("full_ft", "full_ft_tuned"))
    assert (paper.name, paper.learning_rate, paper.schedule) == ("sgd", 0.0035, "dassl_cosine")
    assert (tuned.name, tuned.learning_rate, tuned.weight_decay, tuned.schedule) == ("adamw", 1e-5, 0.1, "cosine")


@pytest.mark.parametrize("module", [clip, clip_vit_b16])
def test_an_unknown_preset_names_the_nearest(module):
    with pytest.raises(UserError, match=r"Unknown preset 'mapl'.*Did you mean 'maple'"):
        module.get_config("mapl")


@pytest.mark.parametrize("name", ["mmap", "clip", "mmap_vit_b16", "clip_vit_b16"])
def test_configs_run_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path and pathlib.Path(path).resolve() != ROOT])
    for module in [module for module in sys.modules if module.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, module)
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]()
    assert config.job == "tune"
