"""What `clip_mtl.build` makes of a config: trainable parameters at ViT-B/16, and one sentence for a mistake."""

import jax
import pytest
from ml_collections import ConfigDict

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import clip_mtl

CLIP_WEIGHTS = 149_620_737
BUDGET = dict(name="mmap", sets=("group", "task"), length=14, rows=14, columns=128)
COOP = dict(name="tokens", length={"text": 16}, depth={"text": 1})
VPT = dict(name="tokens", length={"image": 8}, depth={"image": 12})
NONE = dict(name="none")
SETS = {"group": "group", "task": "task"}
COUNTS = {
    "zero-shot": (NONE, {}, (), 0),
    "full fine-tuning": (NONE, {}, (".*",), CLIP_WEIGHTS),
    "BitFit": (NONE, {}, (".*/bias",), 171_008),
    "MmAP, paper_budget": (BUDGET, SETS, (), 129_744),
    "MmAP, wide": (BUDGET | dict(length=16, rows=16), SETS, (), 148_176),
    "MmAP, the global prompt": (BUDGET | dict(sets=("all",)), {"all": "all"}, (), 21_624),
    "CoOp-MT": (COOP, {"text": "all"}, (), 8_192),
    "CoOp, one per task": (COOP, {"text": "task"}, (), 32_768),
    "VPT, one per group": (VPT, {"image": "group"}, (), 147_456),
    "prompts and biases": (COOP, {"text": "all"}, (".*/bias",), 8_192 + 171_008),
}


@pytest.fixture(scope="module")
def vit_b16():
    """Return shapes instead of weights: no array of that size is made."""
    sizes = ClipConfig(512, 224, 16, 768, 12, 12, 77, 49408, 512, 12, 8, "quick_gelu")
    return Backbone("ViT-B/16", sizes, convert.shapes(sizes), Tokenizer([]), {"image_size": 224}, "f" * 64)


def build(backbone, method, sharing, tune=(), template="a photo of a {}."):
    tasks = tuple(Task(name, ("a", "b_c"), None, None) for name in ("art", "clipart", "product", "real"))
    options = ConfigDict(dict(method=method, sharing=sharing, tune=tune, template=template))  # as in config files
    return clip_mtl.build(
        Suite("tiny", tasks, "hash"), backbone, clip_mtl.Options(**options, seed=0, groups=[[0, 3], [1, 2]])
    )


@pytest.mark.parametrize("case", COUNTS)
def test_trainable_parameters_with_four_tasks_in_two_groups(vit_b16, case):
    method, sharing, tune, expected = COUNTS[case]
    problem = build(vit_b16, method, sharing, tune)
    assert tree.count(problem.params) == expected
    assert tree.count((problem.params["backbone"], problem.frozen["backbone"])) == CLIP_WEIGHTS
    assert tree.count(problem.frozen["method"]) == 0
    leaves = tree.flatten(problem.params)
    assert {path: leaf is not None for path, leaf in leaves.items()} == tree.flatten(problem.mask)


def test_slots_follow_the_sharing_and_start_apart(vit_b16):
    problem = build(vit_b16, BUDGET, SETS)
    params, per_task = problem.params["method"], problem.expand(problem.params)["method"]
    assert [params[name]["source"].shape[0] for name in ("group", "task")] == [2, 4]
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(per_task))
    for name, slots in {"group": [0, 1, 1, 0], "task": [0, 1, 2, 3]}.items():
        rows = per_task[name]["image"]
        for i in range(4):
            assert [bool((rows[i] == rows[j]).all()) for j in range(4)] == [slots[i] == slot for slot in slots]


def test_the_problem_describes_itself(vit_b16):
    problem = build(vit_b16, NONE, {})
    assert problem.tasks == ("art", "clipart", "product", "real")
    about = problem.about
    reference = {"name": "ViT-B/16", "sha256": "f" * 64, "activation": "quick_gelu", "tokenizer": ""}
    assert about["backbone"] == reference | {"dtype": "float32"}
    assert about["class_names"]["art"] == ["a", "b_c"]
    assert about["groups"] == [[0, 3], [1, 2]]
    assert about["split_hash"] == "hash" and about["template"] == "a photo of a {}."


PHOTO, LONG = "a photo of a {}.", "a photograph of a {}, in colour."
ERRORS = {
    "method": (BUDGET | dict(name="mmapp"), SETS, (), PHOTO, r"Unknown method 'mmapp'.*Did you mean 'mmap'"),
    "option": (BUDGET | dict(lenght=4), SETS, (), PHOTO, r"Unknown option of the method 'mmap' 'lenght'.*'length'"),
    "sharing": (BUDGET, {"group": "all"}, (), PHOTO, r"sharing names \['group'\].*are \['group', 'task'\]"),
    "kind": (BUDGET, SETS | dict(group="groups"), (), PHOTO, r"Unknown sharing 'groups'.*Did you mean 'group'"),
    "tune": (NONE, {}, (".*/bias", "bias"), PHOTO, r"'bias' in config.tune matches no weight"),
    "rows": (BUDGET | dict(rows=4), SETS, (), PHOTO, r"rows 4 must divide the prompt length 14"),
    "columns": (BUDGET | dict(columns=512), SETS, (), PHOTO, r"columns 512 must divide the image width 768"),
    "length": (COOP | dict(length={"text": 56}), {"text": "all"}, (), LONG, r"'a photograph of a a,.* at most 21 fit"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_wrong_config_is_one_sentence(vit_b16, case):
    method, sharing, tune, template, message = ERRORS[case]
    with pytest.raises(UserError, match=message):
        build(vit_b16, method, sharing, tune, template)


def test_a_text_in_place_of_patterns_is_refused():
    with pytest.raises(UserError, match="tuple of patterns"):
        tree.trainable({"fc": {"bias": 0}}, ".*")
