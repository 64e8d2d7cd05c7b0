"""Keys beside weights: those of published CLIPs pass, those of other models are refused by name."""

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.clip import architecture

DFN = {
    "embed_dim": 1024,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 378, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}


def changed(model, part, **keys):
    return model | {part: model[part] | keys}


def test_published_files_of_open_clip_pass():
    architecture.refuse_others({}, {"model_cfg": DFN, "preprocess_cfg": {"resize_mode": "squash"}}, "x")
    harmless = changed(DFN, "vision_cfg", patch_dropout=0.5, ls_init_value=None, pool_type="tok", norm_kwargs={})
    architecture.refuse_others({}, {"model_cfg": changed(harmless, "text_cfg", no_causal_mask=False)}, "x")


@pytest.mark.parametrize("style", ["fresh", "old"])
def test_what_transformers_writes_passes(style):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig().to_dict()
    if style == "old":  # every default of generation was written down
        junk = {"max_length": 20, "top_k": 50, "is_decoder": False, "add_cross_attention": False, "pruned_heads": {}}
        config = config | {"text_config_dict": None, "text_config": config["text_config"] | junk}
    architecture.refuse_others(config, {}, "x")


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("vision_cfg", "pool_type", "avg"),
        ("vision_cfg", "final_ln_after_pool", True),
        ("vision_cfg", "attentional_pool", True),
        ("vision_cfg", "no_ln_pre", True),
        ("vision_cfg", "pos_embed_type", "sin_cos_2d"),
        ("vision_cfg", "norm_kwargs", {"eps": 1e-6}),
        ("vision_cfg", "timm_model_name", "vit_base_patch16_224"),
        ("vision_cfg", "ls_init_value", 1e-5),
        ("vision_cfg", "sparkle", 3),
        ("text_cfg", "no_causal_mask", True),
        ("text_cfg", "pool_type", "last"),
        ("text_cfg", "tokenizer_kwargs", {"clean": "canonicalize"}),
        ("text_cfg", "hf_tokenizer_name", "bert-base-uncased"),
        ("text_cfg", "proj_type", "mlp"),
        ("text_cfg", "act_kwargs", {"approximate": "tanh"}),
    ],
)
def test_other_models_of_open_clip_are_refused_by_name(part, key, value):
    with pytest.raises(UserError, match=rf"{part}\.{key}"):
        architecture.refuse_others({}, {"model_cfg": changed(DFN, part, **{key: value})}, "x")


@pytest.mark.parametrize(
    "key, value", [("multimodal_cfg", {"width": 9}), ("init_logit_bias", -10), ("moe", {"experts": 8})]
)
def test_other_parts_of_open_clip_are_refused_by_name(key, value):
    with pytest.raises(UserError, match=rf"model_cfg\.{key}"):
        architecture.refuse_others({}, {"model_cfg": DFN | {key: value}}, "x")


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "siglip"}, "model_type 'siglip'"),
        ({"architectures": ["SiglipModel"]}, "architectures"),
        ({"sparkle": 1}, "sparkle '1'.*no such key"),
        ({"vision_config": {"num_channels": 1}}, r"vision_config\.num_channels"),
        ({"vision_config": {"vision_use_head": True}}, r"vision_config\.vision_use_head"),
        ({"text_config": {"is_decoder": True}}, r"text_config\.is_decoder"),
        ({"text_config": {"layers": 2}}, r"text_config\.layers"),
        ({"text_config": {"num_hidden_layers": 2}, "text_config_dict": {"num_hidden_layers": 3}}, "text_config_dict"),
    ],
)
def test_other_models_of_hugging_face_are_refused_by_name(config, message):
    with pytest.raises(UserError, match=message):
        architecture.refuse_others({"vision_config": {}} | config, {}, "x")
