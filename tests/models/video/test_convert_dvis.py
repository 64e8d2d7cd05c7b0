"""Checkpoints of DVIS by the names and shapes that detectron2 gives them."""

import pickle

import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.video import convert_dvis

SMALL = {"stem": 2, "depths": (1, 2, 1, 1), "width": 32, "inner": 10, "queries": 5, "classes": 3}
SMALL |= {"encoder": 2, "encoder_inner": 12, "decoder": 3, "tracker": 2}
FULL = {"stem": 64, "depths": (3, 4, 6, 3), "width": 256, "inner": 2048, "queries": 100, "classes": 40}
FULL |= {"encoder": 6, "encoder_inner": 1024, "decoder": 9, "tracker": 6}


def names(size, stage):
    """Return {name: shape} of upstream's checkpoint of a stage."""
    found, d = {}, size["width"]

    def affine(name, out, inner):
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, inner), (out,)

    def norm(name, width):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def conv(name, out, inner, side):
        found[f"{name}.weight"] = (out, inner, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.norm.{part}"] = (out,)

    def attention(name, inside):
        found[f"{name}.{inside}.in_proj_weight"], found[f"{name}.{inside}.in_proj_bias"] = (3 * d, d), (3 * d,)
        affine(f"{name}.{inside}.out_proj", d, d)
        norm(f"{name}.norm", d)

    def layers(stem, count, kinds):
        for i in range(count):
            for kind in kinds:
                inside = "multihead_attn" if kind == "cross" else "self_attn"
                attention(f"{stem}.transformer_{kind}_attention_layers.{i}", inside)
            ffn = f"{stem}.transformer_ffn_layers.{i}"
            affine(f"{ffn}.linear1", size["inner"], d)
            affine(f"{ffn}.linear2", d, size["inner"])
            norm(f"{ffn}.norm", d)
        norm(f"{stem}.decoder_norm", d)
        affine(f"{stem}.class_embed", size["classes"] + 1, d)
        for i in range(3):
            affine(f"{stem}.mask_embed.layers.{i}", d, d)

    conv("backbone.stem.conv1", size["stem"], 3, 7)
    before = size["stem"]
    for stage_number, depth in enumerate(size["depths"]):
        inner = size["stem"] * 2**stage_number
        for i in range(depth):
            block = f"backbone.res{stage_number + 2}.{i}"
            if i == 0:
                conv(f"{block}.shortcut", 4 * inner, before, 1)
            for number, shape in ((1, (inner, before, 1)), (2, (inner, inner, 3)), (3, (4 * inner, inner, 1))):
                conv(f"{block}.conv{number}", *shape)
            before = 4 * inner
    pixels = "sem_seg_head.pixel_decoder"
    for i in range(3):
        affine(f"{pixels}.input_proj.{i}.0", d, before // 2**i)
        found[f"{pixels}.input_proj.{i}.0.weight"] += (1, 1)
        norm(f"{pixels}.input_proj.{i}.1", d)
    found[f"{pixels}.transformer.level_embed"] = (3, d)
    for i in range(size["encoder"]):
        layer = f"{pixels}.transformer.encoder.layers.{i}"
        for name, out in (("sampling_offsets", 192), ("attention_weights", 96), ("value_proj", d), ("output_proj", d)):
            affine(f"{layer}.self_attn.{name}", out, d)
        norm(f"{layer}.norm1", d)
        norm(f"{layer}.norm2", d)
        affine(f"{layer}.linear1", size["encoder_inner"], d)
        affine(f"{layer}.linear2", d, size["encoder_inner"])
    affine(f"{pixels}.mask_features", d, d)
    found[f"{pixels}.mask_features.weight"] += (1, 1)
    found[f"{pixels}.adapter_1.weight"] = (d, 4 * size["stem"], 1, 1)
    found[f"{pixels}.layer_1.weight"] = (d, d, 3, 3)
    norm(f"{pixels}.adapter_1.norm", d)
    norm(f"{pixels}.layer_1.norm", d)
    predictor = "sem_seg_head.predictor"
    for name, count in (("query_feat", size["queries"]), ("query_embed", size["queries"]), ("level_embed", 3)):
        found[f"{predictor}.{name}.weight"] = (count, d)
    layers(predictor, size["decoder"], ("self", "cross"))
    if stage != "minvis":
        layers("tracker", size["tracker"], ("self", "cross"))
    if stage == "offline":
        layers("refiner", size["tracker"], ("time_self", "obj_self", "cross"))
        for i in range(size["tracker"]):
            for place, taps in ((0, 5), (2, 3)):
                name = f"refiner.conv_short_aggregate_layers.{i}.{place}"
                found[f"{name}.weight"], found[f"{name}.bias"] = (d, d, taps), (d,)
            norm(f"refiner.conv_norms.{i}", d)
        affine("refiner.activation_proj", 1, d)
    return found


def state(stage):
    rng = np.random.default_rng(0)
    drawn = {name: rng.random(shape, np.float32) for name, shape in names(SMALL, stage).items()}
    return {f"model.{name}": leaf for name, leaf in drawn.items()} | {"model.criterion.empty_weight": np.ones(4)}


@pytest.mark.parametrize("stage", ["minvis", "online", "offline"])
def test_names_shapes_and_the_config_that_they_imply(stage):
    params = convert_dvis.to_tree(state(stage))
    config = convert_dvis.infer_config(params)
    assert (config.stage, config.backbone.depths, config.backbone.width) == (stage, (1, 2, 1, 1), 2)
    assert (config.pixels.layers, config.pixels.points, config.pixels.inner) == (2, 4, 12)
    assert (config.decoder.layers, config.decoder.queries, config.decoder.classes) == (3, 5, 3)
    assert stage == "minvis" or (config.tracker.layers, config.tracker.matching) == (2, "released")


def test_files_of_upstreams(tmp_path):
    """Mask2Former's weights are pickled arrays; those of DVIS are torch's, a training around them."""
    torch = pytest.importorskip("torch")
    images = {name.removeprefix("model."): leaf for name, leaf in state("minvis").items()}
    wanted = tree.checksums(convert_dvis.to_tree(images))
    old = {name.replace("query_feat", "static_query"): leaf for name, leaf in images.items()}
    for number, names in enumerate((images, old)):
        file = tmp_path / f"model_final_{number}.pkl"
        file.write_bytes(pickle.dumps({"model": names, "__author__": "x", "matching_heuristics": True}, 2 + 2 * number))
        assert tree.checksums(convert_dvis.load(file)[1]) == wanted
    tensors = {name: torch.tensor(leaf) for name, leaf in images.items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    content = {"model": tensors, "optimizer": optimizer, "scheduler": {"last_epoch": 3}, "iteration": 39999}
    torch.save(content, tmp_path / "dvis.pth")
    config, found = convert_dvis.load(tmp_path / "dvis.pth")
    assert config.stage == "minvis" and tree.checksums(found) == wanted


def test_values_land_where_they_belong():
    given = {name.removeprefix("model."): leaf for name, leaf in state("offline").items()}
    leaves = tree.flatten(convert_dvis.to_tree(state("offline")))
    fused = given["tracker.transformer_cross_attention_layers.1.multihead_attn.in_proj_weight"]
    for i, part in enumerate(("query", "key", "value")):
        found = leaves[f"tracker/blocks_1/cross/attn/{part}/kernel"]
        np.testing.assert_array_equal(found, fused[32 * i : 32 * (i + 1)].T)
    conv = given["sem_seg_head.pixel_decoder.layer_1.weight"]
    np.testing.assert_array_equal(leaves["pixels/smooth/kernel"][2, 0], conv[:, :, 2, 0].T)
    one = given["sem_seg_head.pixel_decoder.input_proj.2.0.weight"]
    np.testing.assert_array_equal(leaves["pixels/project_2/kernel"], one[:, :, 0, 0].T)
    taps = given["refiner.conv_short_aggregate_layers.0.2.weight"]
    np.testing.assert_array_equal(leaves["refiner/blocks_0/narrow/kernel"][1], taps[:, :, 1].T)
    name = "backbone.res3.1.conv2.norm"
    x = np.linspace(-1, 1, 4)
    normal = (x - given[f"{name}.running_mean"]) / np.sqrt(given[f"{name}.running_var"] + 1e-5)
    wanted = normal * given[f"{name}.weight"] + given[f"{name}.bias"]
    path = "backbone/block_1_1/conv_2"
    np.testing.assert_allclose(x * leaves[f"{path}/scale"] + leaves[f"{path}/bias"], wanted, rtol=1e-5)
    assert leaves["backbone/block_1_0/shortcut/kernel"].shape == (1, 1, 8, 16)


def test_what_does_not_fit_is_refused():
    online = state("online")
    missing = {
        name: leaf for name, leaf in online.items() if "blocks.0" not in name and "tracker.decoder_norm" not in name
    }
    with pytest.raises(UserError, match=r"-tracker\.decoder_norm\.bias"):
        convert_dvis.to_tree(missing)
    with pytest.raises(UserError, match=r"\+tracker.extra"):
        convert_dvis.to_tree(online | {"model.tracker.extra": np.ones(1, np.float32)})
    params = convert_dvis.to_tree(online)
    params["decoder"]["level"] = params["decoder"]["level"][:, :8]
    with pytest.raises(UserError, match="decoder/level has shape"):
        convert_dvis.infer_config(params)


@pytest.mark.parametrize("stage, millions", [("minvis", 44.01), ("online", 53.69), ("offline", 68.11)])
def test_published_sizes(stage, millions):
    shapes = convert_dvis.shapes(convert_dvis.DvisConfig(stage))
    folded = [shape for name, shape in names(FULL, stage).items() if ".running_" not in name]
    assert tree.count(shapes) == sum(int(np.prod(shape)) for shape in folded)
    assert round(tree.count(shapes) / 1e6, 2) == millions
