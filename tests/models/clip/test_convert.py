"""Converted weights against the models they were published for: Hugging Face's CLIP, and OpenAI's in plain torch."""

import json
from argparse import Namespace

import jax
import numpy as np
import pytest
from transformers import CLIPConfig, CLIPModel

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import CLIP

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

TINY = dict(embed_dim=64, image_size=12, patch=4, image_width=128, text_width=64, layers=2, context=9, vocab=40)


def perturb(module):
    """Move biases and norms away from 0 and 1, so that no two leaves could be confused."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def hf_model(image, text, embed_dim, activation="quick_gelu"):
    """Return a random `CLIPModel`."""
    towers = {"vision_config": image | {"hidden_act": activation}, "text_config": text | {"hidden_act": activation}}
    torch.manual_seed(0)
    return perturb(CLIPModel(CLIPConfig(**towers, projection_dim=embed_dim)))


def tiny_hf(activation="quick_gelu", image_heads=2, text_heads=1, inner=4):
    """Return a random `CLIPModel` of the sizes TINY."""
    c = TINY
    image = dict(hidden_size=c["image_width"], num_attention_heads=image_heads, image_size=c["image_size"])
    text = dict(hidden_size=c["text_width"], num_attention_heads=text_heads, vocab_size=c["vocab"])
    ids = dict(bos_token_id=c["vocab"] - 2, eos_token_id=c["vocab"] - 1, max_position_embeddings=c["context"])
    image |= dict(intermediate_size=inner * c["image_width"], num_hidden_layers=c["layers"], patch_size=c["patch"])
    text |= dict(intermediate_size=inner * c["text_width"], num_hidden_layers=c["layers"]) | ids
    return hf_model(image, text, c["embed_dim"], activation)


def inputs(image_size, context, vocab, images=2, texts=3):
    """Return images float32[B, h, w, 3] and token rows with start and end, of different lengths, padded with zeros."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((texts, context), np.int32)
    for i, row in enumerate(tokens):
        n = min(3 + 2 * i, context - 2)
        row[: n + 2] = [vocab - 2, *rng.integers(1, vocab - 2, n), vocab - 1]
    return rng.standard_normal((images, image_size, image_size, 3), dtype=np.float32), tokens


def hf_logits(model, image, tokens):
    """Return the reference's logits [B, C]."""
    with torch.no_grad():
        pixels, ids = torch.tensor(image).permute(0, 3, 1, 2), torch.tensor(tokens).long()
        return model(pixel_values=pixels, input_ids=ids).logits_per_image.numpy()


def our_logits(config, params, image, tokens):
    return np.asarray(jax.jit(CLIP(config).apply)({"params": params}, image, tokens))


def relative(a, b, scale):
    """Return the largest difference of logits over the logit scale, that is, of cosines."""
    return float(np.abs(a - b).max() / np.exp(scale))


def arrays(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def to_half(module):
    """Round to half precision what openai/CLIP `convert_weights` rounds: maps and projections."""
    for name, parameter in module.named_parameters():
        if "ln_" not in name and "embedding" not in name and parameter.ndim:
            parameter.data = parameter.data.half()


@pytest.fixture(scope="module")
def openai(openai_clip):
    """Return the module, its inputs and its logits."""
    torch.manual_seed(0)
    module = perturb(openai_clip(TINY))
    image, tokens = inputs(TINY["image_size"], TINY["context"], TINY["vocab"])
    with torch.no_grad():
        logits = module(torch.tensor(image).permute(0, 3, 1, 2), torch.tensor(tokens).long()).numpy()
    return module, image, tokens, logits


@pytest.fixture(scope="module")
def hf():
    """Return the tiny Hugging Face model, its inputs and its logits."""
    model = tiny_hf()
    image, tokens = inputs(TINY["image_size"], TINY["context"], TINY["vocab"])
    return model, image, tokens, hf_logits(model, image, tokens)


# --- the published sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [16, 32])
def test_logits_equal_transformers_at_vit_b(patch):
    model = hf_model({"patch_size": patch}, {}, 512)  # the defaults of transformers are ViT-B
    state = arrays(model)
    params = convert.to_tree(state)
    config = convert.infer_config(params, "quick_gelu")
    assert (config.image_layers, config.image_heads, config.image_size, config.patch_size) == (12, 12, 224, patch)
    assert (config.text_layers, config.text_heads, config.vocab_size, config.context_length) == (12, 8, 49408, 77)
    assert tree.count(params) == sum(p.numel() for p in model.parameters())
    assert patch != 16 or tree.count(params) == 149_620_737
    back = convert.to_hf(params)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], state[name]) for name in state)
    image, tokens = inputs(224, 77, 49408)
    expected = hf_logits(model, image, tokens)
    ours = our_logits(config, params, image, tokens)
    scale = float(params["logit_scale"])
    assert relative(ours, expected, scale) <= 1e-5
    assert np.ptp(expected) > 1e-2 * np.exp(scale)  # images and texts differ by far more than the tolerance


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("heads, inner", [((2, 1), 4), ((4, 2), 4), ((2, 1), 3)])
def test_hugging_face_folder_there_and_back(tmp_path, activation, heads, inner):
    model = tiny_hf(activation, *heads, inner)
    image, tokens = inputs(TINY["image_size"], TINY["context"], TINY["vocab"])
    expected = hf_logits(model, image, tokens)
    model.save_pretrained(tmp_path / "theirs")
    config, params, _ = convert.load(tmp_path / "theirs")
    assert (config.activation, config.image_heads, config.text_heads) == (activation, *heads)
    scale = float(params["logit_scale"])
    assert relative(our_logits(config, params, image, tokens), expected, scale) <= 1e-5
    written = convert.save(tmp_path / "ours", config, params)
    again = CLIPModel.from_pretrained(tmp_path / "ours").eval()
    assert relative(hf_logits(again, image, tokens), expected, scale) <= 1e-6
    config2, params2, sha2 = convert.load(tmp_path / "ours")
    assert (config2, sha2) == (config, written)
    assert tree.checksums(params2) == tree.checksums(params)


def test_saved_precision_is_the_leaves_own(tmp_path, hf):
    params = convert.to_tree(arrays(hf[0]))
    config = convert.infer_config(params, "quick_gelu")
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), params)
    convert.save(tmp_path, config, half)
    stored = convert.read_state(tmp_path / "model.safetensors")
    assert {leaf.dtype for leaf in stored.values()} == {np.dtype(np.float16)}
    assert CLIPModel.from_pretrained(tmp_path).logit_scale.dtype in (torch.float16, torch.float32)
    loaded = convert.load(tmp_path)[1]
    assert tree.checksums(loaded) == tree.checksums(jax.tree.map(lambda leaf: leaf.astype(np.float32), half))


def test_old_hugging_face_bin_with_position_ids(tmp_path, hf):
    model, image, tokens, expected = hf
    ids = {f"{tower}_model.embeddings.position_ids": torch.arange(9)[None] for tower in ("text", "vision")}
    torch.save(dict(model.state_dict()) | ids, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    config, params, _ = convert.load(tmp_path)
    assert relative(our_logits(config, params, image, tokens), expected, params["logit_scale"]) <= 1e-5


def open_clip_config(**changes):
    c = TINY
    image = {"image_size": c["image_size"], "layers": c["layers"], "width": c["image_width"], "patch_size": c["patch"]}
    text = {"context_length": c["context"], "vocab_size": c["vocab"], "width": c["text_width"], "heads": 1, "layers": 2}
    return json.dumps({"model_cfg": {"embed_dim": c["embed_dim"], "vision_cfg": image, "text_cfg": text} | changes})


def weights_only(module):
    return {name: p.detach().contiguous() for name, p in module.named_parameters()}


def test_open_clip_folder(tmp_path, openai):
    module, image, tokens, expected = openai
    safetensors_torch.save_file(weights_only(module), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(open_clip_config(quick_gelu=True))
    config, params, _ = convert.load(tmp_path)
    assert config.activation == "quick_gelu"
    assert relative(our_logits(config, params, image, tokens), expected, params["logit_scale"]) <= 1e-5
    (tmp_path / "open_clip_config.json").write_text(open_clip_config())
    assert convert.load(tmp_path)[0].activation == "gelu"


def rename_custom_text(name):
    return name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"


@pytest.mark.parametrize("rename", [lambda name: f"module.{name}", rename_custom_text], ids=["trainer", "custom_text"])
def test_open_clip_checkpoint(tmp_path, openai, rename):
    module = openai[0]
    state = {rename(name): tensor for name, tensor in weights_only(module).items()}
    torch.save({"epoch": 1, "name": "x", "state_dict": state}, tmp_path / "epoch_1.pt")
    _, params, _ = convert.load(tmp_path, activation="gelu")
    assert tree.checksums(params) == tree.checksums(convert.to_tree(arrays(module)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_openai_torchscript_in_half_precision(tmp_path, openai, openai_clip):
    _, image, tokens, expected = openai
    torch.manual_seed(0)
    module = perturb(openai_clip(TINY))
    traced = torch.jit.trace(module, (torch.tensor(image).permute(0, 3, 1, 2), torch.tensor(tokens).long()))
    to_half(traced)
    traced.save(tmp_path / "ViT-tiny.pt")
    stored = convert.read_state(tmp_path / "ViT-tiny.pt")
    assert {str(a.dtype) for a in stored.values()} == {"float16", "float32", "int64"}
    config, params, _ = convert.load(tmp_path / "ViT-tiny.pt")
    assert config.activation == "quick_gelu"
    assert all(leaf.dtype == np.float32 for leaf in tree.flatten(params).values())
    to_half(module)
    module.float()  # the reference computes in float32 on the rounded weights, as we do
    with torch.no_grad():
        rounded = module(torch.tensor(image).permute(0, 3, 1, 2), torch.tensor(tokens).long()).numpy()
    ours = our_logits(config, params, image, tokens)
    assert relative(ours, rounded, params["logit_scale"]) <= 1e-5
    assert relative(ours, expected, params["logit_scale"]) > 1e-5  # the rounding itself is visible


def test_bfloat16_safetensors(tmp_path, hf):
    model = hf[0]
    state = {name: tensor.bfloat16() for name, tensor in weights_only(model).items()}
    safetensors_torch.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    params = convert.load(tmp_path)[1]
    expected = convert.to_tree({name: tensor.float().numpy() for name, tensor in state.items()})
    assert tree.checksums(params) == tree.checksums(expected)


def test_square_projections_are_transposed(hf, openai):
    """Text and embedding width are equal in ViT-B/16 as they are here: no shape would betray a lost transpose."""
    model, image, tokens, expected = hf
    params = convert.to_tree(arrays(model))
    weight = model.text_projection.weight.detach().numpy()
    assert weight.shape[0] == weight.shape[1]
    np.testing.assert_array_equal(params["text"]["projection"]["kernel"], weight.T)
    kernel = convert.to_tree(arrays(openai[0]))["text"]["projection"]["kernel"]
    np.testing.assert_array_equal(kernel, openai[0].text_projection.detach().numpy())
    config = convert.infer_config(params, "quick_gelu")
    params["text"]["projection"]["kernel"] = weight
    assert relative(our_logits(config, params, image, tokens), expected, params["logit_scale"]) > 1e-2


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["hf", "openai"])
def test_missing_and_surplus_leaves_are_named(request, source):
    state = arrays(request.getfixturevalue(source)[0])
    lost = next(name for name in state if name.endswith(("fc1.bias", "c_fc.bias")))
    broken = {name: leaf for name, leaf in state.items() if name != lost} | {"adapter.weight": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=rf"-{lost}, \+adapter\.weight \(") as caught:
        convert.to_tree(broken)
    assert "\n" not in str(caught.value)


def test_missing_fused_and_long_lists(openai):
    state = arrays(openai[0])
    with pytest.raises(UserError, match=r"-transformer\.resblocks\.0\.attn\.key\.weight"):
        convert.to_tree({n: a for n, a in state.items() if n != "transformer.resblocks.0.attn.in_proj_weight"})
    with pytest.raises(UserError, match="and 8 more"):
        convert.to_tree({n: a for n, a in state.items() if not n.startswith("visual.transformer.resblocks.0.")})
    with pytest.raises(UserError, match=r"\+module\.logit_scale"):
        convert.to_tree(state | {"module.logit_scale": np.zeros((), np.float32)})


def test_other_architectures_are_refused(openai):
    state = arrays(openai[0])
    resnet = state | {"visual.layer1.0.conv1.weight": np.zeros((2, 2, 1, 1), np.float32)}
    for other in (resnet, {"layer.weight": np.zeros(2, np.float32)}, {}):
        with pytest.raises(UserError, match="not a CLIP with a ViT image tower"):
            convert.to_tree(other)


LIKE = {
    "vision_model.head.probe": "a SigLIP",
    "visual.trunk.attn_pool.q.weight": "a SigLIP of open_clip",
    "visual.trunk.stem.0.weight": "from timm",
    "visual.blocks.0.attn.q_proj.weight": "an EVA-CLIP",
    "visual.layer1.0.conv1.weight": "a ResNet",
    "text_decoder.ln_final.weight": "a CoCa",
    "visual_encoder.blocks.0.norm1.weight": "a BLIP",
    "text.transformer.embeddings.word_embeddings.weight": "a text tower of Hugging Face",
}


@pytest.mark.parametrize("leaf", LIKE)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_other_models_are_refused_as_what_they_are(openai, leaf, prefix):
    given = {prefix + leaf: np.zeros((2, 2), np.float32)}
    if leaf.startswith("visual.layer1"):
        given |= {prefix + name: array for name, array in arrays(openai[0]).items()}
    with pytest.raises(UserError, match=f"are .*{LIKE[leaf]}.*, not a CLIP with a ViT image tower"):
        convert.to_tree(given)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model_state_dict": state, "epoch": 3},
        lambda state: {"state_dict": {f"model.{name}": leaf for name, leaf in state.items()}, "hyper_parameters": {}},
        lambda state: {
            "model": state,
            "model_ema": {name: leaf + 1 for name, leaf in state.items()},
            "args": Namespace(a=1),
        },
        lambda state: {"module": {f"module._orig_mod.{name}": leaf for name, leaf in state.items()}},
    ],
    ids=["model_state_dict", "Lightning", "average", "compiled"],
)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_wrappers_of_trainings(tmp_path, openai, wrap, new):
    module = openai[0]
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    content = wrap(weights_only(module)) | {"optimizer": optimizer}
    torch.save(content, tmp_path / "last.ckpt", _use_new_zipfile_serialization=new)
    _, params, _ = convert.load(tmp_path, activation="quick_gelu")
    assert tree.checksums(params) == tree.checksums(convert.to_tree(arrays(module)))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_folders_with_weights_in_several_files(tmp_path, hf, kind):
    model = hf[0]
    state, stem = weights_only(model), {"safetensors": "model", "bin": "pytorch_model"}[kind]
    places = {name: f"{stem}-{1 + number % 3:05}-of-00003.{kind}" for number, name in enumerate(state)}
    for place in set(places.values()):
        part = {name: leaf for name, leaf in state.items() if places[name] == place}
        (safetensors_torch.save_file if kind == "safetensors" else torch.save)(part, tmp_path / place)
    (tmp_path / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    _, params, sha256 = convert.load(tmp_path)
    assert tree.checksums(params) == tree.checksums(convert.to_tree(arrays(model))) and len(sha256) == 64


def test_quantised_and_misshapen_leaves_are_refused(openai):
    state = arrays(openai[0])
    with pytest.raises(UserError, match=r"'visual\.proj' as int8"):
        convert.to_tree(state | {"visual.proj": np.zeros((128, 64), np.int8)})
    with pytest.raises(UserError, match=r"'visual\.conv1\.weight' with 2 axes and not 4"):
        convert.to_tree(state | {"visual.conv1.weight": np.zeros((128, 48), np.float32)})
    for name, shape, message in (
        ("visual.proj", (96, 64), r"image/projection/kernel has shape \(96, 64\) not \(128, 64\)"),
        ("visual.positional_embedding", (11, 128), r"11 positions, not 1 \+ a square"),
        ("token_embedding.weight", (40, 60), "do not tell the number of heads"),
    ):
        params = convert.to_tree(state | {name: np.zeros(shape, np.float32)})
        with pytest.raises(UserError, match=message):
            convert.infer_config(params, "gelu")
    with pytest.raises(UserError, match="Unknown activation 'relu'"):
        convert.infer_config(convert.to_tree(state), "relu")


def test_activation_is_never_guessed(tmp_path, hf):
    model = hf[0]
    safetensors_torch.save_file(weights_only(model), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"tells its activation; set --config\.backbone\.activation=quick_gelu"):
        convert.load(tmp_path)
    assert convert.load(tmp_path, activation="gelu")[0].activation == "gelu"
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    with pytest.raises(UserError, match="have activation 'gelu' but declare 'quick_gelu'"):
        convert.load(tmp_path, activation="gelu")


def test_config_that_belongs_to_other_weights(tmp_path, hf):
    model = hf[0]
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for tower, key, value, message in (
        ("text_config", "num_hidden_layers", 3, "have text_layers 2 but declare 3"),
        ("vision_config", "hidden_act", "gelu", "towers that differ"),
        ("text_config", "layer_norm_eps", 1e-6, "towers that differ"),
        ("vision_config", "num_attention_heads", 3, "image_heads 3 does not divide"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {tower: config[tower] | {key: value}}))
        with pytest.raises(UserError, match=message):
            convert.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        convert.load(tmp_path)


def test_unreadable_files(tmp_path, hf):
    with pytest.raises(UserError, match="No weights at"):
        convert.load(tmp_path)
    hf[0].save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"Cannot read .* fetch the file again"):
        convert.load(tmp_path)
