"""DVIS as a whole: halves, prompts, padding, and what each stage makes of the segmenter's queries."""

import hashlib

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods.dlm import DoubleLayerMapper
from jax_promptmtl.models.video import dvis
from jax_promptmtl.models.video.dvis import Dvis, DvisConfig
from jax_promptmtl.models.video.mask_decoder import MaskDecoderConfig
from jax_promptmtl.models.video.middle import Cut, Middle
from jax_promptmtl.models.video.pixel_decoder import PixelDecoderConfig
from jax_promptmtl.models.video.resnet import ResNetConfig
from jax_promptmtl.models.video.tracker import TrackerConfig
from jax_promptmtl.models.video.view import pack, unpack
from jax_promptmtl.tasks import instance
from tests.weights import draw, fast

COMMON = {"width": 8, "heads": 2, "mask_width": 4}
TINY = {
    "backbone": ResNetConfig((1, 1, 1), 2, (1, 2, 2), dilated=(), stem=3, pool=False),
    "pixels": PixelDecoderConfig(**COMMON, inner=8, layers=2, levels=2, groups=2),
    "decoder": MaskDecoderConfig(**COMMON, inner=8, layers=2, queries=4, levels=2, classes=3),
    "tracker": TrackerConfig(**COMMON, inner=8, layers=1, classes=3, matching="fixed"),
}
SIZE, FRAMES = (12, 16), 3
WIDTH = {"minvis": 3, "online": 1, "offline": 1}  # layers of the last part


def clips(junk=0.0):
    """Return two clips, the second of two frames and one that is padding."""
    video = np.random.default_rng(0).standard_normal((2, FRAMES, *SIZE, 3)).astype(np.float32)
    mask = np.array([[True, True, True], [True, True, False]])
    video[~mask] = junk
    return {"video": video, "mask": mask}


def model(stage="online", **options):
    config = DvisConfig(stage, **TINY)
    inputs = clips()
    params = draw(Dvis(config), inputs["video"], inputs["mask"])
    return config, params, dvis.handle("instances", config, params, SIZE, **options)


def prompts(batch=2, count=5):
    return np.random.default_rng(1).standard_normal((batch, count, 8)).astype(np.float32)


def shown(outputs):
    """Return what counts of the outputs: logits and masks of the frames that are no padding."""
    valid = np.asarray(outputs.valid)
    return [np.moveaxis(np.asarray(x), 0, 2)[valid] for x in outputs[:2]] + [np.asarray(x)[valid] for x in outputs[2:4]]


def close(one, other, atol=1e-5):
    for a, b in zip(shown(one), shown(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize(
    "stage", ["online", pytest.param("minvis", marks=pytest.mark.slow), pytest.param("offline", marks=pytest.mark.slow)]
)
def test_the_halves_are_the_whole_and_padding_has_no_influence(stage):
    config, params, handle = model(stage)
    assert (handle.depth, handle.middle, handle.dim) == (2, 1, 8)
    inputs, lower, upper = clips(), fast(handle.lower), fast(handle.upper)
    state = lower(params, inputs)
    assert state.tokens.shape == (2, FRAMES * (3 * 4 + 6 * 8), 8)
    np.testing.assert_array_equal(state.mask.sum(axis=1), [180, 120])
    whole = fast(Dvis(config).apply)({"params": params}, inputs["video"], inputs["mask"])
    halved = upper(params, state, None)
    close(halved, whole)
    close(upper(params, state, prompts()[:, :0]), whole)
    assert halved.logits.shape == (WIDTH[stage], 2, FRAMES, 4, 4) and halved.masks.shape[-2:] == SIZE
    given = upper(params, state, prompts())
    close(upper(params, lower(params, clips(junk=9.0)), prompts()), given)
    assert np.abs(shown(given)[1] - shown(halved)[1]).max() > 1e-3


@pytest.mark.slow
def test_without_prompts_the_halves_are_the_whole_bit_for_bit():
    config, params, handle = model("minvis")
    inputs = clips()
    whole = Dvis(config).apply({"params": params}, inputs["video"], inputs["mask"])
    state = handle.lower(params, inputs)
    for given in (None, prompts()[:, :0]):
        jax.tree.map(np.testing.assert_array_equal, handle.upper(params, state, given), whole)


@pytest.mark.slow
def test_prompts_of_a_clip_go_to_all_its_frames_in_any_order_and_leave_when_told():
    _, params, handle = model(cut=Cut(0))
    state, given, upper = fast(handle.lower)(params, clips()), prompts(), fast(handle.upper)
    out = upper(params, state, given)
    close(upper(params, state, given[:, ::-1]), out)
    same = upper(params, state, np.repeat(given[:1], 2, 0))
    close(upper(params, state, given[:1]), same)
    swapped = Middle(*jax.tree.map(lambda x: x[::-1], tuple(state)))
    back = upper(params, swapped, given[::-1])
    np.testing.assert_allclose(back.masks[:, ::-1], out.masks, atol=1e-5)
    once, plain = (fast(model(cut=Cut(0, n))[2].upper)(params, state, given) for n in (1, 2))
    close(plain, out)
    assert np.abs(shown(once)[1] - shown(out)[1]).max() > 1e-4


@pytest.mark.slow
def test_gradients_reach_the_whole_mapper_and_leave_frozen_weights_alone():
    _, params, handle = model()
    before = {path: hashlib.sha256(leaf.tobytes()).digest() for path, leaf in tree.flatten(params).items()}
    state = unpack(pack(fast(handle.lower)(params, clips()), "instances"), "instances")
    mapper = DoubleLayerMapper({"other": 8}, 8, handle.middle, num_prompts=3, head_dim=4, bottleneck=4, adapter_rank=2)
    context = {"other": (state.tokens, state.mask)}
    weights, mask = draw(mapper, context), np.random.default_rng(2).random((2, FRAMES, 2, *SIZE)) > 0.5
    labels = {"mask": mask, "label": np.array([[0, 1], [2, 0]]), "valid": np.ones((2, 2), bool)}

    def total(weights):
        prompts = mapper.apply({"params": weights}, context)["primary"][handle.middle]
        return instance.loss(handle.upper(params, state, prompts), labels)[0].sum()

    step = fast(jax.value_and_grad(total))
    for _ in range(3):
        value, grads = step(weights)
        weights = jax.tree.map(lambda weight, grad: weight - 1e-3 * grad, weights, grads)
    assert np.isfinite(value)
    for path, leaf in tree.flatten(grads).items():
        assert path.endswith("key/bias") or np.abs(leaf).max() > 0, path  # softmax cancels a bias of all keys
    assert before == {path: hashlib.sha256(leaf.tobytes()).digest() for path, leaf in tree.flatten(params).items()}


@pytest.mark.slow
def test_prompts_as_queries_of_the_mask_decoder_change_its_upper_half_alone():
    _, params, handle = model("minvis", insertion="decoder_queries")
    state, upper = fast(handle.lower)(params, clips()), fast(handle.upper)
    plain, given = upper(params, state, None), upper(params, state, prompts())
    close(upper(params, state, prompts()[:, :0]), plain)
    close(upper(params, state, prompts()[:, ::-1]), given)
    one, other = (np.sort(out.masks, axis=3) for out in (given, plain))  # the order of the queries is the last layer's
    np.testing.assert_allclose(one[:2], other[:2], atol=1e-5)
    assert np.abs(one[2] - other[2]).max() > 1e-3
    with pytest.raises(UserError, match="drop_after is 1"):
        model("minvis", insertion="decoder_queries", cut=Cut(drop_after=1))


@pytest.mark.parametrize("stage", ["minvis", "online"])
def test_the_queries_of_all_frames_are_put_in_the_order_of_the_first(stage):
    config, params, _ = model(stage)
    rng = np.random.default_rng(0)
    order = np.array([rng.permutation(4) for _ in range(FRAMES)])
    order[0] = np.arange(4)
    logits, masks, queries = (rng.standard_normal(shape) for shape in ((4, 4), (4, *SIZE), (4, 8)))
    said = [x[order][None].astype(np.float32) for x in (logits, masks, queries)]
    arguments = (
        said[0][None],
        said[1][None],
        said[2],
        np.zeros((1, FRAMES, *SIZE, 4), np.float32),
        clips()["mask"][:1],
    )
    found = fast(lambda *x: Dvis(config).apply({"params": params}, *x, method="instances"))(*arguments)
    for frame in range(FRAMES):
        np.testing.assert_allclose(found.guide_logits[0, frame], logits, rtol=1e-6)
        np.testing.assert_allclose(found.guide_masks[0, frame], masks, rtol=1e-6)
    if stage == "minvis":
        np.testing.assert_array_equal(found.logits[-1], found.guide_logits)


def test_what_does_not_fit_is_refused():
    _, params, handle = model()
    with pytest.raises(UserError, match=r"frames, 12, 16, 3\]"):
        handle.lower(params, {"video": np.zeros((1, 2, 16, 12, 3)), "mask": np.ones((1, 2), bool)})
    with pytest.raises(UserError, match="stage of DVIS"):
        DvisConfig("live")
