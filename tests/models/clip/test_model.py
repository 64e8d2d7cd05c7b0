"""Files with the leaves of the published CLIPs, in every naming: what sizes are read from them, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.inference.image_predictor import NOTHING, Predictor
from jax_promptmtl.models.clip import convert, load
from jax_promptmtl.models.clip.model import Backbone
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import clip_mtl

SIZES = {  # patch, image, width and heads of the image tower, of the text tower, embedding; one layer stands for all
    "ViT-B/32": (32, 224, 768, 12, 512, 8, 512),
    "ViT-B/16": (16, 224, 768, 12, 512, 8, 512),
    "ViT-L/14": (14, 224, 1024, 16, 768, 12, 768),
    "ViT-L/14@336": (14, 336, 1024, 16, 768, 12, 768),
    "ViT-H/14": (14, 224, 1280, 16, 1024, 16, 1024),
}
LAYERS, VOCAB, CONTEXT = 1, 514, 77
TOKENIZER = Tokenizer([])


def openai_leaves(name):
    """Return {name: shape} as openai/CLIP and open_clip have them."""
    patch, image, width, _, text, _, embed = SIZES[name]
    leaves = {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + (image // patch) ** 2, width),
        "visual.proj": (width, embed),
        "token_embedding.weight": (VOCAB, text),
        "positional_embedding": (CONTEXT, text),
        "text_projection": (text, embed),
        "logit_scale": (),
    }
    for norm, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        leaves |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    for stem, size in (("visual.transformer", width), ("transformer", text)):
        for i in range(LAYERS):
            at = f"{stem}.resblocks.{i}"
            leaves |= {f"{at}.attn.in_proj_weight": (3 * size, size), f"{at}.attn.in_proj_bias": (3 * size,)}
            maps = {"attn.out_proj": (size, size), "mlp.c_fc": (4 * size, size), "mlp.c_proj": (size, 4 * size)}
            for part, (rows, columns) in maps.items():
                leaves |= {f"{at}.{part}.weight": (rows, columns), f"{at}.{part}.bias": (rows,)}
            for norm in ("ln_1", "ln_2"):
                leaves |= {f"{at}.{norm}.weight": (size,), f"{at}.{norm}.bias": (size,)}
    return leaves


def hf_leaves(name):
    """Return {name: shape} as transformers has them."""
    patch, image, width, _, text, _, embed = SIZES[name]
    leaves = {"visual_projection.weight": (embed, width), "text_projection.weight": (embed, text), "logit_scale": ()}
    vision, words = "vision_model.embeddings", "text_model.embeddings"
    leaves |= {f"{vision}.patch_embedding.weight": (width, 3, patch, patch), f"{vision}.class_embedding": (width,)}
    leaves |= {f"{vision}.position_embedding.weight": (1 + (image // patch) ** 2, width)}
    leaves |= {f"{words}.token_embedding.weight": (VOCAB, text), f"{words}.position_embedding.weight": (CONTEXT, text)}
    norms = {"vision_model.pre_layrnorm": width, "vision_model.post_layernorm": width}
    for norm, size in (norms | {"text_model.final_layer_norm": text}).items():
        leaves |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    for stem, size in (("vision_model", width), ("text_model", text)):
        for i in range(LAYERS):
            at = f"{stem}.encoder.layers.{i}"
            maps = {f"self_attn.{part}_proj": (size, size) for part in ("q", "k", "v", "out")}
            maps |= {"mlp.fc1": (4 * size, size), "mlp.fc2": (size, 4 * size)}
            for part, (rows, columns) in maps.items():
                leaves |= {f"{at}.{part}.weight": (rows, columns), f"{at}.{part}.bias": (rows,)}
            for norm in ("layer_norm1", "layer_norm2"):
                leaves |= {f"{at}.{norm}.weight": (size,), f"{at}.{norm}.bias": (size,)}
    return leaves


def open_clip_config(name):
    _, image, width, heads, text, text_heads, embed = SIZES[name]
    vision = {"image_size": image, "layers": LAYERS, "width": width, "head_width": width // heads}
    words = {"width": text, "heads": text_heads, "layers": LAYERS}
    return {"model_cfg": {"embed_dim": embed, "vision_cfg": vision, "text_cfg": words}}


def hf_config(name):
    _, _, _, heads, _, text_heads, embed = SIZES[name]
    vision = {"num_attention_heads": heads, "num_hidden_layers": LAYERS, "hidden_act": "gelu"}
    text = {"num_attention_heads": text_heads, "num_hidden_layers": LAYERS, "hidden_act": "gelu"}
    return {"projection_dim": embed, "vision_config": vision, "text_config": text}


LAYOUTS = {
    "hugging face": (hf_leaves, "model.safetensors", "config.json", hf_config),
    "open_clip": (openai_leaves, "open_clip_model.safetensors", "open_clip_config.json", open_clip_config),
}


def check(config, name):
    patch, image, width, heads, text, text_heads, embed = SIZES[name]
    assert (config.patch_size, config.image_size, config.image_width, config.image_heads) == (
        patch,
        image,
        width,
        heads,
    )
    assert (config.text_width, config.text_heads, config.embed_dim) == (text, text_heads, embed)
    assert (config.image_layers, config.text_layers, config.vocab_size) == (LAYERS, LAYERS, VOCAB)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sizes_come_from_the_folder(layout, name, tmp_path):
    leaves, file, config_file, config = LAYOUTS[layout]
    save_file({leaf: np.zeros(shape, np.float16) for leaf, shape in leaves(name).items()}, tmp_path / file)
    (tmp_path / config_file).write_text(json.dumps(config(name)))
    TOKENIZER.save(tmp_path)
    backbone = load.load(str(tmp_path))
    check(backbone.config, name)
    assert backbone.config.activation == "gelu" and backbone.preprocess["size"] == SIZES[name][1]


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_leaves_alone(name):
    params = convert.to_tree({leaf: np.zeros(shape, np.float16) for leaf, shape in openai_leaves(name).items()})
    if name == "ViT-H/14":  # 16 heads of 80 channels, which no shape tells
        with pytest.raises(UserError, match=r"do not tell the number of heads.*open_clip_config.json"):
            convert.infer_config(params, "gelu")
    else:
        check(convert.infer_config(params, "quick_gelu"), name)


def backbone_of(width):
    """Return a backbone of zeros, 16 channels per head."""
    config = convert.ClipConfig(16, 8, 4, width, 2, width // 16, 16, VOCAB, width, 2, width // 16, "gelu")
    params = {
        path: np.zeros(leaf.shape, np.float32) for path, leaf in convert.tree.flatten(convert.shapes(config)).items()
    }
    pixels = {"size": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Backbone("zeros", config, convert.tree.unflatten(params), TOKENIZER, pixels, "0" * 64)


def test_prompts_of_another_backbone_are_one_sentence():
    method = {"name": "tokens", "length": {"text": 2}, "depth": {"text": 1}}
    config = {"method": method, "sharing": {"text": "all"}, "tune": ()}
    suite = Suite("tiny", (Task("ink", ("a", "b"), NOTHING, NOTHING),), "0")
    problem = clip_mtl.build(suite, backbone_of(32), clip_mtl.Options(template="{}", seed=0, groups=((0,),), **config))
    leaves = {path: np.asarray(x) for path, x in convert.tree.flatten(problem.params).items() if x is not None}
    meta = {"config": config, "about": problem.about}
    assert Predictor(meta, leaves, backbone_of(32)).problem("ink").params["method"]
    with pytest.raises(UserError, match=r"do not fit the backbone: .*text/tokens.*; give that of the training") as said:
        Predictor(meta, leaves, backbone_of(64)).problem("ink")
    assert "\n" not in str(said.value)
