"""TransVOD against the same net written out in torch, its sizes, halves, prompts and padding."""

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import convert_transvod, transvod
from jax_promptmtl.models.video.deformable_detr import DetectorConfig
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.transvod import TransVod, TransVodConfig
from jax_promptmtl.models.video.view import pack, unpack
from tests.weights import draw, fast

SMALL = ResNetConfig(depths=(1, 1), width=2, strides=(2, 2), dilated=(1,), stem=3, pool=False)
SIZES = {"width": 8, "heads": 2, "points": 2, "encoders": 2, "decoders": 2, "inner": 16, "queries": 5, "classes": 3}
TINY = TransVodConfig(DetectorConfig(SMALL, **SIZES, groups=4), selected=(3, 2), keys=0, temporal_points="fixed")
FRAMES, SIZE, SHAPE = 3, (8, 12), (4, 6)
DEEP = replace(TINY, detector=DetectorConfig(ResNetConfig(depths=(1, 1, 1, 2), width=2), **SIZES, groups=4))


def clips(size=SIZE, seed=0):
    """Return two clips, the second of which is padded right and below."""
    rng = np.random.default_rng(seed)
    video, mask = rng.standard_normal((2, FRAMES, *size, 3)).astype(np.float32), np.ones((2, *size), bool)
    mask[1, size[0] * 3 // 4 :], mask[1, :, size[1] * 2 // 3 :] = False, False
    return {"video": video * mask[:, None, ..., None], "mask": mask}


@pytest.fixture(scope="module")
def params():
    return draw(TransVod(TINY), *clips().values())


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """Return the torch module, and its weights as upstream keeps them."""
    from tests import detr_torch

    net = detr_torch.shaken(detr_torch.TransVod(DEEP))
    return net, detr_torch.state_of(net)


@pytest.mark.parametrize("temporal_points", ["released", pytest.param("fixed", marks=pytest.mark.slow)])
def test_every_key_frame_equals_the_reference(reference, temporal_points):
    import torch

    net, state = reference
    net.released = temporal_points == "released"
    inputs, model = clips((64, 96)), TransVod(replace(DEEP, temporal_points=temporal_points))
    ours = fast(model.apply)({"params": convert_transvod.to_tree(state)}, **inputs)
    assert ours.logits.shape == (2, 3, FRAMES, 5, 3)
    for clip, key in ((0, 0), (0, 2), (1, 1)):
        order = [key, *(f for f in range(FRAMES) if f != key)]
        video = torch.tensor(inputs["video"][clip][order]).permute(0, 3, 1, 2)
        with torch.no_grad():
            stages = net(video, torch.tensor(inputs["mask"][clip]).expand(FRAMES, -1, -1))
        for s, (logits, boxes) in enumerate(stages):
            np.testing.assert_allclose(ours.logits[clip, s, key], logits, atol=2e-5)
            np.testing.assert_allclose(ours.boxes[clip, s, key], boxes, atol=1e-5)
    assert np.abs(ours.logits[:, 2] - ours.logits[:, 1]).max() > 0.1  # what the temporal part changes


def test_checkpoint_files(reference, tmp_path):
    import torch

    net, state = reference
    names = {"model": {f"module.{name}": leaf for name, leaf in net.state_dict().items()}, "epoch": 6}
    names |= {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "args": argparse.Namespace(lr=2e-4, lr_drop=[4])}
    torch.save(names, tmp_path / "checkpoint0006.pth")
    told = TransVodConfig(DetectorConfig(heads=2, groups=4), selected=(3, 2), keys=0, temporal_points="fixed")
    config, params = convert_transvod.load(tmp_path / "checkpoint0006.pth", told)
    assert config == DEEP
    jax.tree.map(np.testing.assert_array_equal, params, convert_transvod.to_tree(state))
    single = {name: leaf for name, leaf in state.items() if "temp" not in name and "decoder.bbox_embed" not in name}
    params = convert_transvod.to_tree(single)
    assert convert_transvod.infer_config(params, told).selected == () and "temporal" not in params
    torch.save({name: net.state_dict()[name] for name in single}, tmp_path / "single.pth")
    assert not convert_transvod.load(tmp_path / "single.pth", told)[0].detector.refine
    del single["bbox_embed.1.layers.0.bias"]
    with pytest.raises(UserError, match="-detector/place_1/fc_0/bias"):
        convert_transvod.infer_config(convert_transvod.to_tree(single), told)
    with pytest.raises(UserError, match=r"input_proj\.1\.0\.weight"):
        convert_transvod.to_tree(state | {"input_proj.1.0.weight": np.zeros((2, 2, 1, 1))})


@pytest.mark.parametrize("selected, millions", [((), 34.81), ((80, 50, 30), 39.05)])
def test_parameter_counts_are_those_of_the_paper_s_models(selected, millions):
    shapes = convert_transvod.shapes(TransVodConfig(selected=selected))
    assert round(tree.count(shapes) / 1e6, 2) == millions


# --- halves and prompts -----------------------------------------------------------------------------------------------

PROMPTS = np.random.default_rng(2).standard_normal((2, 4, 8)).astype(np.float32)
IN_DECODER = pytest.param("decoder_queries", marks=pytest.mark.slow)


def handle_of(params, insertion="joint_softmax", middle=None, drop_after=0):
    return transvod.handle("video", TINY, params, FRAMES, SIZE, Cut(middle, drop_after), insertion)


def equal(ours, theirs, **tolerance):
    """Compare detections, bit for bit where no tolerance is given."""
    check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: check(a, b, **tolerance), ours, theirs)


@pytest.fixture(scope="module")
def whole(params):
    """Return what the unsplit model finds, not compiled."""
    return TransVod(TINY).apply({"params": params}, **clips())


@pytest.fixture(scope="module", params=["joint_softmax", IN_DECODER])
def halves(request, params):
    """Return the rule of insertion, the compiled upper half, and the middle state."""
    handle = handle_of(params, request.param)
    return request.param, fast(handle.upper), fast(handle.lower)(params, clips())


@pytest.mark.parametrize("insertion", ["joint_softmax", IN_DECODER])
def test_the_halves_are_the_whole_bit_for_bit(params, whole, insertion):
    handle = handle_of(params, insertion)
    state = handle.lower(params, clips())
    assert handle.middle == 1 and state.tokens.shape == (2, FRAMES * (24 if insertion == "joint_softmax" else 5), 8)
    equal(handle.upper(params, state, jnp.zeros((2, 0, 8))), whole)
    equal(handle.upper(params, unpack(pack(state, "v"), "v"), None), whole)  # what a cache does


def test_prompts_count_everywhere_but_their_order_does_not(params, whole, halves):
    insertion, upper, state = halves
    out = upper(params, state, PROMPTS)
    equal(upper(params, state, PROMPTS[:, ::-1]), out, atol=1e-4)
    changed = np.abs(out.logits - whole.logits).max(axis=(3, 4))
    above = 0 if insertion == "joint_softmax" else 1  # a stage below the prompts stays what it is
    assert (changed[:, above:] > 1e-4).all() and not (changed[:, :above] > 1e-5).any()
    mixed = upper(params, state, np.concatenate([PROMPTS[:1], PROMPTS[:1]]))
    equal(jax.tree.map(lambda x: x[0], mixed), jax.tree.map(lambda x: x[0], out), atol=1e-5)


def test_padding_has_no_influence(params, halves):
    insertion, upper, state = halves
    if insertion == "joint_softmax":
        junk = state._replace(tokens=jnp.where(state.mask[..., None], state.tokens, 50.0))
    else:
        cells = jnp.where(state.carry["mask"][..., None], state.carry["cells"], 50.0)
        junk = state._replace(carry=state.carry | {"cells": cells})
    equal(upper(params, junk, PROMPTS), upper(params, state, PROMPTS), atol=1e-5)


@pytest.mark.slow
def test_a_gradient_reaches_every_prompt(params, halves):
    _, upper, state = halves

    def total(prompts):
        found = upper.__wrapped__(params, state, prompts)  # options of a compilation are for the outermost one
        return found.logits[:, -1].sum() + found.boxes[:, -1].sum()

    gradient = fast(jax.grad(total))(PROMPTS)
    assert (np.abs(gradient).max(axis=-1) > 0).all() and np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("insertion", transvod.INSERTIONS)
def test_prompts_leave_after_as_many_layers_as_told(params, insertion):
    state = fast(handle_of(params, insertion, 0).lower)(params, clips())

    def out(given, drop_after):
        return fast(handle_of(params, insertion, 0, drop_after=drop_after).upper)(params, state, given).logits[:, -1]

    kept, once = out(PROMPTS, 0), out(PROMPTS, 1)
    np.testing.assert_array_equal(out(PROMPTS, 2), kept)
    assert np.abs(once - kept).max() > 1e-4 and np.abs(once - out(None, 0)).max() > 1e-4


@pytest.mark.slow
def test_one_key_frame_is_the_first_of_all(params, whole):
    one = fast(TransVod(replace(TINY, keys=1)).apply)({"params": params}, **clips())
    equal(one, jax.tree.map(lambda x: x[:, :, :1], whole), atol=1e-5)


@pytest.mark.slow
def test_frames_without_the_temporal_part_do_not_know_each_other(params):
    model, inputs = TransVod(replace(TINY, selected=())), clips()
    apply = fast(lambda video: model.apply({"params": params}, video, inputs["mask"]))
    out, turned = apply(inputs["video"]), apply(inputs["video"][:, ::-1])
    assert out.logits.shape[1] == 2
    equal(turned, jax.tree.map(lambda x: x[:, :, ::-1], out), atol=1e-5)


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(UserError, match="insertion"):
        handle_of(params, "append")
    with pytest.raises(UserError, match=r"give \[clips, 3, 8, 12, 3\]"):
        handle_of(params).lower(params, clips((8, 8)))
    with pytest.raises(UserError, match="cannot see 1 frames; give 2 or more"):
        TINY.keys_of(1)
