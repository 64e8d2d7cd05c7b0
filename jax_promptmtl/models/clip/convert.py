"""Convert weights of CLIP from OpenAI, open_clip and Hugging Face, and to Hugging Face, without torch.

Each layout is one table of (torch name, our path, transposition); `{i}` is the number of a block.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.models.clip import architecture
from jax_promptmtl.models.clip.model import CLIP, ClipConfig, inner_width
from jax_promptmtl.models.weights.files import digest, locate, optional_json, read_state
from jax_promptmtl.models.weights.table import (
    KEEP,
    LINEAR,
    Axes,
    Row,
    State,
    affine,
    arrange,
    expand,
    norm,
    split_fused,
    transpose,
)
from jax_promptmtl.models.weights.wrappers import under

PATCH: Axes = (2, 3, 1, 0)  # torch keeps [out, channel, row, column]


def block(torch_name: str, path: str, names: Mapping[str, str]) -> list[Row]:
    """Return the rows of a residual block, given the torch names of its six maps and two norms."""
    rows = [row for ours in ("ln_1", "ln_2") for row in norm(f"{torch_name}.{names[ours]}", f"{path}/{ours}")]
    maps = ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/fc", "mlp/proj")
    return rows + [row for ours in maps for row in affine(f"{torch_name}.{names[ours]}", f"{path}/{ours}")]


OPENAI_BLOCK = {  # query, key and value come fused as attn.in_proj_*; `split_fused` gives them these names
    **{"ln_1": "ln_1", "ln_2": "ln_2", "mlp/fc": "mlp.c_fc", "mlp/proj": "mlp.c_proj"},
    **{"attn/query": "attn.query", "attn/key": "attn.key", "attn/value": "attn.value", "attn/out": "attn.out_proj"},
}
OPENAI: list[Row] = [
    ("visual.conv1.weight", "image/patch/kernel", PATCH),
    ("visual.class_embedding", "image/cls", KEEP),
    ("visual.positional_embedding", "image/position", KEEP),
    *norm("visual.ln_pre", "image/ln_pre"),
    *norm("visual.ln_post", "image/ln_post"),
    ("visual.proj", "image/projection/kernel", KEEP),
    *block("visual.transformer.resblocks.{i}", "image/transformer/blocks_{i}", OPENAI_BLOCK),
    ("token_embedding.weight", "text/token/embedding", KEEP),
    ("positional_embedding", "text/position", KEEP),
    *norm("ln_final", "text/ln_final"),
    ("text_projection", "text/projection/kernel", KEEP),
    *block("transformer.resblocks.{i}", "text/transformer/blocks_{i}", OPENAI_BLOCK),
    ("logit_scale", "logit_scale", KEEP),
]
HF_BLOCK = {
    **{"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp/fc": "mlp.fc1", "mlp/proj": "mlp.fc2"},
    **{"attn/query": "self_attn.q_proj", "attn/key": "self_attn.k_proj", "attn/value": "self_attn.v_proj"},
    "attn/out": "self_attn.out_proj",
}
HF: list[Row] = [
    ("vision_model.embeddings.patch_embedding.weight", "image/patch/kernel", PATCH),
    ("vision_model.embeddings.class_embedding", "image/cls", KEEP),
    ("vision_model.embeddings.position_embedding.weight", "image/position", KEEP),
    *norm("vision_model.pre_layrnorm", "image/ln_pre"),  # sic
    *norm("vision_model.post_layernorm", "image/ln_post"),
    ("visual_projection.weight", "image/projection/kernel", LINEAR),
    *block("vision_model.encoder.layers.{i}", "image/transformer/blocks_{i}", HF_BLOCK),
    ("text_model.embeddings.token_embedding.weight", "text/token/embedding", KEEP),
    ("text_model.embeddings.position_embedding.weight", "text/position", KEEP),
    *norm("text_model.final_layer_norm", "text/ln_final"),
    ("text_projection.weight", "text/projection/kernel", LINEAR),  # square in ViT-B/16: a missing transpose is silent
    *block("text_model.encoder.layers.{i}", "text/transformer/blocks_{i}", HF_BLOCK),
    ("logit_scale", "logit_scale", KEEP),
]
LAYOUTS = {"visual.conv1.weight": OPENAI, "vision_model.embeddings.patch_embedding.weight": HF}
TEXT = re.compile(r"^text\.")  # of open_clip's CustomTextCLIP
OTHERS = {  # leaves that identify other models
    r"vision_model\.head\.probe": "a SigLIP",
    r"visual\.trunk\.attn_pool\..*": "a SigLIP of open_clip",
    r"visual\.trunk\..*": "a CLIP whose image tower comes from timm, such as ConvNeXt or EVA",
    r"visual\.blocks\.0\..*": "an EVA-CLIP",
    r"visual\.layer1\..*": "a CLIP with a ResNet as image tower",
    r"visual\.head\.proj\.weight": "a CLIP with another image tower",
    r"text_decoder\..*": "a CoCa",
    r"visual_encoder\..*": "a BLIP or an ALBEF",
    r"transformer\.embeddings\..*": "a CLIP with a text tower of Hugging Face",
    r"image_encoder\..*": "a MobileCLIP",
}
NOT_WEIGHTS = re.compile(r"(.*\.)?(position_ids|attn_mask|input_resolution|context_length|vocab_size)")


def to_tree(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert a state_dict in the layout of OpenAI, open_clip or Hugging Face to float32 parameters of `CLIP`.

    Raises:
      UserError: another architecture, or leaves missing (-) or left over (+).
    """
    found = split_fused(strip(state))
    layout = next((rows for name, rows in LAYOUTS.items() if name in found), None)
    told = (what for leaf, what in OTHERS.items() if any(re.fullmatch(rf"(.*\.)?{leaf}", name) for name in found))
    other = next(told, None)
    if layout is None or other:
        what = other or f"something else (first leaf {next(iter(state), None)!r})"
        raise UserError(f"These weights are {what}, not a CLIP with a ViT image tower; give one (docs/weights.md).")
    return arrange(expand(layout, found), found, "CLIP")


def to_hf(params: Mapping[str, Any]) -> State:
    """Return the state_dict of `transformers.CLIPModel` in the precision of the leaves, the inverse of `to_tree`."""
    leaves = tree.flatten(params)
    rows = expand([(path, name, None if axes is None else tuple(np.argsort(axes))) for name, path, axes in HF], leaves)
    return {name: transpose(leaves[path], axes, path) for path, name, axes in rows}


def strip(state: Mapping[str, np.ndarray]) -> State:
    """Drop prefixes added by trainers, and buffers that are not weights.

    >>> strip({"module.visual.conv1.weight": 0, "module.text.ln_final.bias": 1, "module.context_length": 77})
    {'visual.conv1.weight': 0, 'ln_final.bias': 1}
    """
    inside = under(state, LAYOUTS)
    stripped = {TEXT.sub("", name): leaf for name, leaf in (state if inside is None else inside).items()}
    return {name: leaf for name, leaf in stripped.items() if not NOT_WEIGHTS.fullmatch(name)}


# --- sizes ------------------------------------------------------------------------------------------------------------


def infer_config(params: Mapping[str, Any], activation: str, heads: tuple[int, int] | None = None) -> ClipConfig:
    """Return the sizes that the shapes of the weights imply, and check every shape against `CLIP` of those sizes.

    Args:
      params: the tree of `to_tree`.
      activation: quick_gelu or gelu; not implied by shapes.
      heads: of image and text tower; None is one per 64 channels, true of published models up to image width 1024.
    """
    image, text = params["image"], params["text"]
    patch, _, _, image_width = image["patch"]["kernel"].shape
    text_width = text["token"]["embedding"].shape[-1]
    grid = int(np.sqrt(len(image["position"]) - 1))
    if 1 + grid**2 != len(image["position"]):
        raise UserError(
            f"The image tower has {len(image['position'])} positions, not 1 + a square; give square images."
        )
    if heads is None and (image_width % 64 or text_width % 64 or image_width > 1024):
        raise UserError(
            f"Widths {image_width} and {text_width} do not tell the number of heads, as multiples of 64 up to 1024 do; "
            "put the config.json or open_clip_config.json of the weights beside them."
        )
    image_heads, text_heads = heads or (image_width // 64, text_width // 64)
    for name, width, number in (("image", image_width, image_heads), ("text", text_width, text_heads)):
        if width % number:
            raise UserError(f"{name}_heads {number} does not divide the width {width}; correct the config file.")
    config = ClipConfig(
        embed_dim=image["projection"]["kernel"].shape[1],
        image_size=grid * patch,
        patch_size=patch,
        image_width=image_width,
        image_layers=len(image["transformer"]),
        image_heads=image_heads,
        context_length=len(text["position"]),
        vocab_size=len(text["token"]["embedding"]),
        text_width=text_width,
        text_layers=len(text["transformer"]),
        text_heads=text_heads,
        activation=pick(activation, ("quick_gelu", "gelu"), "activation"),
        image_inner=inner_width(image, image_width),
        text_inner=inner_width(text, text_width),
    )
    if difference := tree.describe_difference(shapes(config), params):
        raise UserError(f"The weights do not fit a CLIP: {difference[:300]}; give complete, unmodified weights.")
    return config


def shapes(config: ClipConfig) -> dict[str, Any]:
    """Return the tree of shapes of `CLIP`, without computing anything."""
    size = config.image_size
    inputs = (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.int32))
    found: dict[str, Any] = jax.eval_shape(CLIP(config).init, jax.random.key(0), *inputs)["params"]
    return found


def declared(folder: Path) -> dict[str, Any]:
    """Return the fields of `ClipConfig` that config.json or open_clip_config.json in the folder declares.

    With such a file, activation and heads are always among them: an absent key has the default of transformers
    (`CLIPTextConfig`, `CLIPVisionConfig`) or open_clip (`CLIP`).
    """
    hf, open_clip = (optional_json(folder / name) for name in ("config.json", "open_clip_config.json"))
    architecture.refuse_others(hf, open_clip, str(folder))
    if "vision_config" in hf:
        image, text = hf["vision_config"], hf.get("text_config", {})
        activations = {tower.get("hidden_act", "quick_gelu") for tower in (image, text)}
        if len(activations) > 1 or {tower.get("layer_norm_eps", 1e-5) for tower in (image, text)} != {1e-5}:
            raise UserError(
                f"{str(folder / 'config.json')!r} has towers that differ from CLIP's (hidden_act, layer_norm_eps); "
                "give a CLIP with one activation and epsilon 1e-5."
            )
        fields = {"activation": activations.pop(), "embed_dim": hf.get("projection_dim")}
        fields |= {
            "image_heads": image.get("num_attention_heads", 12),
            "text_heads": text.get("num_attention_heads", 8),
        }
        fields |= {"image_layers": image.get("num_hidden_layers"), "text_layers": text.get("num_hidden_layers")}
    elif model := open_clip.get("model_cfg"):
        image, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
        fields = {"activation": "quick_gelu" if model.get("quick_gelu", False) else "gelu"}
        fields |= {
            "image_heads": image.get("width", 768) // image.get("head_width", 64),
            "text_heads": text.get("heads", 8),
        }
        fields |= {
            "image_layers": image.get("layers"),
            "text_layers": text.get("layers"),
            "embed_dim": model.get("embed_dim"),
        }
    else:
        return {}
    return {name: value for name, value in fields.items() if value is not None}


# --- files ------------------------------------------------------------------------------------------------------------


def load(path: str | Path, activation: str | None = None) -> tuple[ClipConfig, dict[str, Any], str]:
    """Load a CLIP from a folder or file of Hugging Face, open_clip or OpenAI.

    Args:
      path: a folder, or a .safetensors, .pt or .bin file; config files are looked for beside it.
      activation: if there is no config file: quick_gelu for OpenAI's weights, gelu for most others.

    Returns:
      The sizes, the float32 parameters of `CLIP`, and the SHA-256 of the weights file.
    """
    file = locate(path)
    state = read_state(file)
    told = declared(file.parent)
    if not told and any(name.rpartition(".")[2] == "input_resolution" for name in state):
        told = {"activation": "quick_gelu"}  # only OpenAI's own archives have this scalar, and all use QuickGELU
    chosen = activation or told.get("activation")
    if chosen is None:
        raise UserError(
            f"Nothing beside {str(file)!r} tells its activation; set --config.backbone.activation=quick_gelu (OpenAI's "
            "weights, and what was trained from them) or =gelu (most others), or put their config file beside them."
        )
    params = to_tree(state)
    heads = (told["image_heads"], told["text_heads"]) if "image_heads" in told else None
    config = infer_config(params, chosen, heads)
    for name, value in told.items():
        if getattr(config, name) != value:
            raise UserError(
                f"The weights at {str(file)!r} have {name} {getattr(config, name)!r} but declare {value!r}."
            )
    return config, params, digest(file)


def save(folder: str | Path, config: ClipConfig, params: Mapping[str, Any]) -> str:
    """Write model.safetensors and config.json as `transformers.CLIPModel.from_pretrained` reads them.

    Returns:
      The SHA-256 of the weights file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(to_hf(params), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(hf_config(config), indent=2) + "\n", "utf-8")
    return hashlib.sha256(data).hexdigest()


def hf_config(config: ClipConfig) -> dict[str, Any]:
    """Return the content of config.json; every size is written, so that no reader needs a default."""
    end = config.vocab_size - 1

    def tower(width: int, layers: int, heads: int, inside: int) -> dict[str, Any]:
        sizes = {"hidden_size": width, "intermediate_size": inside or 4 * width, "num_hidden_layers": layers}
        shared = {"hidden_act": config.activation, "layer_norm_eps": 1e-5, "projection_dim": config.embed_dim}
        return sizes | {"num_attention_heads": heads} | shared

    image = tower(config.image_width, config.image_layers, config.image_heads, config.image_inner)
    text = tower(config.text_width, config.text_layers, config.text_heads, config.text_inner)
    ids = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": 0}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "text_config": text | {"max_position_embeddings": config.context_length, "vocab_size": config.vocab_size} | ids,
        "vision_config": image | {"image_size": config.image_size, "patch_size": config.patch_size},
    }
