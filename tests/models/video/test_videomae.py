"""VideoMAE against Hugging Face's model, its weights in every published naming, and the seam between its halves."""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.layers.transformer import Pass, Transformer
from jax_promptmtl.models.video import convert_videomae, roi_head, videomae
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.roi_head import RoiDetector
from jax_promptmtl.models.video.videomae import VideoClassifier, VideoMaeConfig
from tests.weights import opengvlab

TINY = VideoMaeConfig(4, 24, patch=8, width=32, layers=4, heads=2, inner=48, classes=5)


def clips(config, batch=2, seed=0, size=None):
    shape = (batch, config.frames, size or config.image_size, size or config.image_size, config.channels)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def params():
    """Return random parameters of TINY, none of them 0 or 1."""
    tree_ = VideoClassifier(TINY).init(jax.random.key(0), clips(TINY))["params"]
    keys = iter(jax.random.split(jax.random.key(1), 200))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), tree_)


# --- parity -----------------------------------------------------------------------------------------------------------


def hf_model(config):
    """Return a random `VideoMAEForVideoClassification` with upstream's epsilon."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = dict(hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads)
    sizes |= dict(intermediate_size=config.inner, num_frames=config.frames, tubelet_size=config.tubelet)
    sizes |= dict(image_size=config.image_size, patch_size=config.patch, num_labels=config.classes)
    theirs = transformers.VideoMAEConfig(**sizes, layer_norm_eps=1e-6, use_mean_pooling=True)
    model = transformers.VideoMAEForVideoClassification(theirs).eval()
    model.fc_norm.eps = 1e-6  # it ignores the config and says 1e-5
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape)
    return model


def compare(config, batch):
    """Check logits and middle state against the reference, and return the converted parameters and its state."""
    model = hf_model(config)
    import torch

    video = clips(config, batch)
    with torch.no_grad():
        out = model(torch.tensor(video).permute(0, 1, 4, 2, 3), output_hidden_states=True)
    state = {name: leaf.numpy() for name, leaf in model.state_dict().items()}
    params = convert_videomae.to_tree(state)
    found = convert_videomae.infer_config(params, config.heads, config.frames, config.image_size)
    assert found == config
    handle = videomae.handle("video", config, params)
    middle = jax.jit(handle.lower)(params, video)
    np.testing.assert_allclose(middle.tokens, out.hidden_states[handle.middle].numpy(), atol=1e-5)
    logits = jax.jit(handle.upper)(params, middle, None)
    np.testing.assert_allclose(logits, out.logits.numpy(), atol=1e-5)
    assert np.ptp(out.logits.numpy()) > 0.1
    return params, state


def test_tiny_equals_transformers():
    compare(TINY, batch=2)


@pytest.mark.slow
def test_vit_b_equals_transformers():
    params, _ = compare(VideoMaeConfig(), batch=1)
    key_biases = 12 * 768  # zeros that the published model does not have
    assert tree.count(params["trunk"]) + tree.count(params["pool"]["fc_norm"]) == 86_227_200 + key_biases
    assert tree.count(params["pool"]["head"]) == 545_990


def test_sizes_of_the_published_vit_b():
    shapes = convert_videomae.shapes(VideoMaeConfig())
    assert tree.count(shapes["trunk"]["transformer"]["blocks_0"]) == 7_087_104 + 768
    assert tree.count(shapes) == 86_227_200 + 545_990 + 12 * 768


# --- names ------------------------------------------------------------------------------------------------------------


def without_key_bias(params):
    """Set the key biases to zero, as converted weights have them."""
    return tree.unflatten(
        {path: leaf * ("attn/key/bias" not in path) + 0.0 for path, leaf in tree.flatten(params).items()}
    )


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "encoder.", "_orig_mod.", "module.backbone."])
def test_opengvlab_names_under_every_prefix(params, prefix):
    expected = without_key_bias(params)
    state = {prefix + name: leaf for name, leaf in opengvlab(params).items()}
    found = convert_videomae.to_tree(state)
    assert tree.describe_difference(expected, found) == ""
    for path, leaf in tree.flatten(found).items():
        np.testing.assert_array_equal(leaf, tree.flatten(expected)[path], err_msg=path)


def test_a_key_bias_changes_nothing(params):
    model, video = VideoClassifier(TINY), clips(TINY)
    logits = model.apply({"params": params}, video)
    np.testing.assert_allclose(model.apply({"params": without_key_bias(params)}, video), logits, atol=1e-5)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name, key", [("vit.pth", "model"), ("mp_rank_00_model_states.pt", "module")])
def test_checkpoints_with_options_and_an_optimizer_beside_the_weights(params, tmp_path, name, key, new):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(leaf) for name, leaf in opengvlab(params).items()}
    content = {key: state, "optimizer": {"exp_avg": torch.ones(3)}, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
    config, found, sha256 = convert_videomae.load(tmp_path, heads=2, frames=4, image_size=24)
    assert (config, len(sha256)) == (TINY, 64)
    assert tree.checksums(found) == tree.checksums(without_key_bias(params))


def test_what_was_fine_tuned_on_ava_has_a_norm_of_tokens_and_a_head_for_boxes(params, tmp_path):
    state = {name.replace("fc_norm", "norm"): leaf for name, leaf in opengvlab(params).items()}
    safetensors.numpy.save_file({f"module.{name}": leaf for name, leaf in state.items()}, tmp_path / "ava.safetensors")
    config, found, _ = convert_videomae.load(tmp_path / "ava.safetensors", heads=2, frames=4, image_size=24)
    plain = without_key_bias(params)
    wanted = roi_head.from_classifier(plain, plain["pool"]["head"])
    assert config == TINY and tree.checksums(found) == tree.checksums(wanted)
    boxes = np.array([[[0.1, 0.1, 0.9, 0.8]]], np.float32)
    assert RoiDetector(config).apply({"params": found}, clips(TINY, 1), boxes).shape == (1, 1, TINY.classes)
    both = {**state, "fc_norm.weight": state["norm.weight"], "fc_norm.bias": state["norm.bias"]}
    assert "pool" in convert_videomae.to_tree(both)  # a classifier whose pretraining's last norm was left in


def test_hugging_face_folder_in_old_and_new_names(tmp_path):
    params, state = compare(TINY, batch=1)
    old = {name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): leaf for name, leaf in state.items()}
    assert old.keys() != state.keys()
    for folder, names in (("new", state), ("old", old)):
        (tmp_path / folder).mkdir()
        safetensors.numpy.save_file(names, tmp_path / folder / "model.safetensors")
        told = {"num_attention_heads": 2, "num_frames": 4, "image_size": 24}
        (tmp_path / folder / "config.json").write_text(json.dumps(told))
        config, found, _ = convert_videomae.load(tmp_path / folder)
        assert config == TINY
        assert tree.checksums(found) == tree.checksums(params)


def test_a_trunk_without_a_head_loads(params):
    state = {name: leaf for name, leaf in opengvlab(params).items() if not name.startswith("head")}
    found = convert_videomae.to_tree(state)
    assert list(found) == ["trunk"]
    config = convert_videomae.infer_config(found, 2, 4, 24)
    assert config.classes == 0
    tokens = videomae.handle("trunk", config, found).lower(found, clips(TINY)).tokens
    assert tokens.shape == (2, 18, 32)


def test_what_does_not_fit_is_named(params, tmp_path):
    state = opengvlab(params)
    missing = {name: leaf for name, leaf in state.items() if name != "blocks.1.attn.v_bias"}
    with pytest.raises(UserError, match=r"-blocks\.1\.attn\.value\.bias"):
        convert_videomae.to_tree(missing)
    with pytest.raises(UserError, match=r"\+pos_embed"):
        convert_videomae.to_tree(state | {"pos_embed": np.zeros((1, 18, 32), np.float32)})
    with pytest.raises(UserError, match="not a VideoMAE"):
        convert_videomae.to_tree({"conv1.weight": np.zeros(3)})
    with pytest.raises(UserError, match="7 heads"):
        convert_videomae.infer_config(convert_videomae.to_tree(state), 7, 4, 24)
    lost = {name: leaf * ("q_bias" not in name) for name, leaf in state.items()}
    safetensors.numpy.save_file(lost, tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match="query bias"):
        convert_videomae.load(tmp_path / "vit.safetensors", 2, 4, 24)


# --- halves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("middle", [None, 0, 1, 3])
def test_the_halves_are_the_whole_bit_for_bit(params, middle):
    handle, video = videomae.handle("video", TINY, params, Cut(middle)), clips(TINY)
    assert handle.middle == (2 if middle is None else middle)
    whole = VideoClassifier(TINY).apply({"params": params}, video)
    state = handle.lower(params, video)
    np.testing.assert_array_equal(handle.upper(params, state, None), whole)
    np.testing.assert_array_equal(handle.upper(params, state, jnp.zeros((2, 0, 32))), whole)
    assert state.mask.all() and state.tokens.shape == (2, 18, handle.dim)


def test_drop_path_leaves_out_whole_branches_of_some_clips(params):
    handle, video = videomae.handle("video", TINY, params), clips(TINY)
    plain = handle.upper(params, handle.lower(params, video), None)
    ones = handle.upper(params, handle.lower(params, video, jnp.ones((2, 4, 2))), None)
    np.testing.assert_array_equal(ones, plain)
    keep = jnp.ones((2, 4, 2)).at[1].set(0).at[1, 2, 1].set(2.0)  # of the second clip, one perceptron at twice its size
    found = handle.upper(params, handle.lower(params, video, keep), None)
    np.testing.assert_array_equal(found[0], plain[0])
    kernels = tree.flatten(params)
    for path in list(kernels):  # the same with weights: a branch whose last map is zero adds nothing
        if "attn/out" in path or "mlp/proj" in path:
            kernels[path] = kernels[path] * (2.0 if "blocks_2/mlp" in path else 0.0)
    wanted = VideoClassifier(TINY).apply({"params": tree.unflatten(kernels)}, video)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)
    assert np.abs(found[1] - plain[1]).max() > 1e-3


def test_drop_path_rises_with_depth_and_keeps_the_mean():
    keep = np.asarray(videomae.drop_path(0.4, 5, 4000, jax.random.key(0)))
    assert keep.shape == (4000, 5, 2)
    np.testing.assert_allclose((keep == 0).mean((0, 2)), [0, 0.1, 0.2, 0.3, 0.4], atol=0.02)
    np.testing.assert_allclose(keep.max((0, 2)), 1 / (1 - np.array([0, 0.1, 0.2, 0.3, 0.4])), rtol=1e-6)
    assert abs(np.corrcoef(keep[:, 4, 0], keep[:, 4, 1])[0, 1]) < 0.05


def test_prompts_count_but_their_order_does_not(params):
    handle = videomae.handle("video", TINY, params)
    state = handle.lower(params, clips(TINY))
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 32))
    out = handle.upper(params, state, prompts)
    np.testing.assert_allclose(handle.upper(params, state, prompts[:, ::-1]), out, atol=1e-4)
    assert np.abs(out - handle.upper(params, state, None)).max() > 1e-2
    shared = handle.upper(params, state, prompts[:1])
    np.testing.assert_allclose(shared[0], out[0], atol=1e-5)
    np.testing.assert_allclose(shared[1], handle.upper(params, state, prompts[:1].repeat(2, 0))[1], atol=1e-5)


def test_prompts_before_the_first_block_are_the_shallow_ones(params):
    handle, video = videomae.handle("video", TINY, params, Cut(0)), clips(TINY)
    prompts = jax.random.normal(jax.random.key(2), (1, 5, 32))
    expected = VideoClassifier(TINY).apply({"params": params}, video, {0: prompts})
    np.testing.assert_array_equal(handle.upper(params, handle.lower(params, video), prompts), expected)


def test_prompts_leave_after_as_many_blocks_as_told(params):
    kept, state = (
        videomae.handle("video", TINY, params),
        videomae.handle("video", TINY, params).lower(params, clips(TINY)),
    )
    prompts = jax.random.normal(jax.random.key(2), (2, 5, 32))
    one = videomae.handle("video", TINY, params, Cut(drop_after=1)).upper(params, state, prompts)
    trunk = {"params": params["trunk"]["transformer"]}
    blocks = Transformer(TINY.layers, TINY.heads, "gelu", epsilon=videomae.EPSILON, inner=TINY.inner)
    after = blocks.apply(trunk, state.tokens, {2: prompts}, Pass(at=0, start=2, stop=3))
    rest = videomae.handle("video", TINY, params, Cut(3)).upper(params, state._replace(tokens=after), None)
    np.testing.assert_allclose(one, rest, atol=1e-5)
    assert np.abs(one - kept.upper(params, state, prompts)).max() > 1e-3
    both = videomae.handle("video", TINY, params, Cut(drop_after=2)).upper(params, state, prompts)
    np.testing.assert_array_equal(both, kept.upper(params, state, prompts))
    with pytest.raises(UserError, match="drop_after is 3, and 2 layers"):
        videomae.handle("video", TINY, params, Cut(drop_after=3))


def test_other_clip_sizes_resize_the_positions(params):
    model = VideoClassifier(TINY)
    same = model.apply({"params": params}, clips(TINY))
    assert model.apply({"params": params}, clips(TINY, size=32)).shape == same.shape


@pytest.mark.parametrize(
    "shape, message",
    [((1, 4, 20, 24, 3), "20 x 24"), ((1, 1, 24, 24, 3), "1 frames"), ((1, 4, 24, 24, 1), "1 channels")],
)
def test_clips_that_do_not_fit_are_refused(params, shape, message):
    with pytest.raises(UserError, match=message):
        videomae.handle("video", TINY, params).lower(params, np.zeros(shape, np.float32))


def test_a_middle_outside_is_refused(params):
    with pytest.raises(UserError, match="middle 4"):
        videomae.handle("video", TINY, params, Cut(4))
