"""The video problem with tiny vision transformers: what the halves, caches, modes and masks must keep, and a task that
only an auxiliary can solve."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import middle_cache
from jax_promptmtl.data.video_batches import Clips, Elsewhere, Prefixed, all_batches, training_batches
from jax_promptmtl.engine import optim, step
from jax_promptmtl.engine.parallel import parallelize, replicate
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.video import videomae
from jax_promptmtl.models.video.middle import Cut
from jax_promptmtl.models.video.view import View, pack, unpack
from jax_promptmtl.problems import video_mtl
from jax_promptmtl.problems.video_tasks import SPECS
from tests.tiny import FAST

SIZES = videomae.VideoMaeConfig(4, 8, patch=4, channels=1, width=16, layers=4, heads=2, inner=32, classes=4)
DLM = {"name": "dlm", "num_prompts": 3, "head_dim": 8, "bottleneck": 4, "adapter_rank": 4}
OPTIMIZER = dict(name="adamw", learning_rate=2e-3, schedule="constant", weight_decay=0.0, momentum=0.9, b2=0.999)
SGD = OPTIMIZER | {"name": "sgd", "learning_rate": 0.1, "clip": None}
MODES = ("dynamic", "batch_mean")


def vit(seed, sizes=SIZES, middle=None):
    """Return a random tiny backbone, all leaves away from 0 and 1."""
    shapes = jax.eval_shape(videomae.VideoClassifier(sizes).init, jax.random.key(0), jnp.zeros((1, 4, 8, 8, 1)))
    rng = np.random.default_rng(seed)
    draw = lambda path, leaf: (path[-1].key == "scale") + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    params = jax.tree_util.tree_map_with_path(draw, shapes["params"])
    return videomae.handle(f"vit_{seed}", sizes, params, Cut(middle))


def sees(key):
    return lambda batch: batch[key]


def views():
    return View(vit(0), sees("frames")), {"one": View(vit(1), sees("frames")), "two": View(vit(2), sees("frames"))}


def clips(count=6, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(count, 4, 8, 8, 1)).astype(np.float32)
    return Clips({"frames": frames, "label": rng.integers(0, 4, count).astype(np.int32)})


def pipeline(method=DLM, **options):
    primary, aux = views()
    aux = options.pop("aux", aux)
    sizes = video_mtl.method_sizes(primary.backbone, {name: view.backbone for name, view in aux.items()})
    made = make_method(method, sizes)
    return video_mtl.Pipeline(primary, aux, SPECS["recognition"].task, made, **options)


def batch_of(count=6, **options):
    return next(all_batches([clips(count)], batch_size=count, **options))


def away(params, seed=5):
    """Return parameters with noise on every leaf."""
    leaves, shape = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(shape, [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def advance(problem, batches, steps=3):
    """Train some steps; returns the parameters."""
    tx = optim.make(OPTIMIZER | {"clip": None}, mask=problem.mask, steps_per_epoch=1, total_steps=steps)
    run = jax.jit(partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0)), compiler_options=FAST)
    state = step.initial(problem, tx)
    for _ in range(steps):
        state, _ = run(state, problem.frozen, next(batches))
    return state.params


def lowered(pipe, name):
    """Return the compiled lower half of one model, from the arrays of clips to the arrays of middle states."""
    view = pipe.primary if name == "primary" else pipe.aux[name]
    run = jax.jit(lambda weights, batch: pack(view.backbone.lower(weights, view.adapt(batch)), name))
    return partial(run, view.backbone.params)


def recipe(name):
    return middle_cache.Recipe(name, "0", {}, 2, "float32", "clips")


def test_without_prompts_the_outputs_are_those_of_the_whole_model():
    pipe = pipeline({"name": "none"}, aux={})
    problem, batch = video_mtl.build(pipe, example=batch_of()), batch_of()
    whole = videomae.VideoClassifier(SIZES).apply({"params": pipe.primary.backbone.params}, batch["frames"])
    np.testing.assert_array_equal(pipe.outputs(problem.params, problem.frozen, batch)[0], whole)
    losses = -np.take_along_axis(np.asarray(jax.nn.log_softmax(whole)), batch["label"][:, None], axis=1)[:, 0]
    total, sums = problem.loss(problem.params, problem.frozen, batch, None)
    np.testing.assert_allclose([total, sums["loss"][0]], losses.sum(), rtol=1e-5)
    assert sums["count"].tolist() == [6] and tree.count(problem.params) == 0


def test_training_from_caches_equals_training_without_bit_for_bit(tmp_path):
    source, names = clips(), ("primary", "one", "two")
    pipe = pipeline(cached=names)
    lowers = {name: lowered(pipe, name) for name in names}

    def on_the_fly():
        for batch in training_batches([source], batch_size=3, seed=0):
            yield {**batch, **{k: v for lower in lowers.values() for k, v in lower(batch).items()}}

    def cached(place):
        opened = [
            middle_cache.open_cache(
                lowers[name], source, recipe(name), place=place, batch_size=3, folder=str(tmp_path), log=list
            )
            for name in names
        ]
        return training_batches([source, *opened], batch_size=3, seed=0)

    problem = video_mtl.build(pipe, example=next(on_the_fly()))
    wanted = advance(problem, on_the_fly())
    for place in middle_cache.PLACES:
        jax.tree.map(np.testing.assert_array_equal, wanted, advance(problem, cached(place)))
    inside = video_mtl.build(pipeline(), example=batch_of())  # the lower halves within the step
    together = advance(inside, training_batches([source], batch_size=3, seed=0))
    # Adam divides by the size of a gradient, so where that is almost 0, as of key biases, rounding grows.
    for path, leaf in tree.flatten(wanted["method"]).items():
        if not path.endswith("key/bias"):
            np.testing.assert_allclose(tree.flatten(together["method"])[path], leaf, atol=1e-4, err_msg=path)


def test_frozen_bytes_stay_and_gradients_reach_every_leaf_of_the_mapper():
    pipe, batch = pipeline(), batch_of()
    problem = video_mtl.build(pipe, example=batch)
    before = tree.checksums(problem.frozen)
    params = advance(problem, training_batches([clips()], batch_size=3, seed=0))
    assert tree.checksums(problem.frozen) == before
    assert {path.split("/")[0] for path in before} == {"primary", "aux"}
    assert all(leaf is None for leaf in tree.flatten(params["primary"]).values())
    start = {**problem.params, "method": away(problem.params["method"])}
    grads = jax.jit(jax.grad(lambda p: problem.loss(p, problem.frozen, batch, None)[0]), compiler_options=FAST)(start)
    for path, grad in tree.flatten(grads["method"]).items():
        size = float(np.abs(grad).max())
        assert size < 1e-5 if path.endswith("key/bias") else size > 1e-6, (path, size)  # a key's bias cancels


def test_padding_has_no_weight_in_loss_sums_or_mean_prompts():
    source = clips(5)
    whole, padded = (next(all_batches([source], batch_size=size)) for size in (5, 7))
    padded["frames"][5:] = 100.0
    for mode in MODES:
        pipe = pipeline(prompt_mode=mode)
        problem = video_mtl.build(pipe, example=whole)
        run = jax.jit(lambda batch, problem=problem: problem.loss(problem.params, problem.frozen, batch, None))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), run(whole), run(padded))


def test_static_prompts_are_the_mean_and_batch_mean_trains_with_them():
    source = clips()
    dynamic, mean = (pipeline(prompt_mode=mode) for mode in MODES)
    problem = video_mtl.build(dynamic, example=batch_of())
    params = {**problem.params, "method": away(problem.params["method"])}
    args = params["method"], problem.frozen["aux"], batch_of()
    rows = np.asarray(dynamic.prompts(*args))
    static = video_mtl.static_prompts(mean, problem, params, all_batches([source], batch_size=4))
    assert rows.std(axis=0).max() > 1e-4  # they differ from clip to clip
    np.testing.assert_allclose(static, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(np.asarray(mean.prompts(*args))[0], static, atol=1e-6)
    free = pipeline({"name": "middle_prompts", "num_prompts": 6}, aux={})
    frozen = video_mtl.build(free, example=batch_of(), initial={"tokens": static})
    outputs = free.outputs(frozen.params, frozen.frozen, batch_of())[0]
    np.testing.assert_allclose(outputs, mean.outputs(params, problem.frozen, batch_of())[0], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_eight_devices_train_as_one(mode):
    assert jax.device_count() == 8
    problem = video_mtl.build(pipeline(prompt_mode=mode), example=batch_of())
    tx = optim.make(SGD, mask=problem.mask, steps_per_epoch=1, total_steps=2)
    fn = partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0))
    batch, found = next(all_batches([clips(13)], batch_size=16)), {}  # three examples of padding
    batch["weight"] *= np.linspace(0.5, 1.5, 16, dtype=np.float32) / 16
    start = {**problem.params, "method": away(problem.params["method"])}
    for name, parallel, count in (("one", "jit", 1), ("jit", "jit", 8), ("pmap", "pmap", 8)):
        devices = jax.devices()[:count]
        run, frozen = parallelize(fn, parallel, devices=devices), replicate(problem.frozen, devices)
        state = replicate(step.initial(replace(problem, params=start), tx), devices)
        for _ in range(2):
            state, _ = run(state, frozen, dict(batch))
        found[name] = tree.flatten(jax.device_get(state.params["method"]))
    first = tree.flatten(start["method"])
    moved = max(float(np.abs(leaf - first[path]).max()) for path, leaf in found["one"].items())
    for name in ("jit", "pmap"):
        for path, leaf in found[name].items():
            np.testing.assert_allclose(leaf, found["one"][path], atol=1e-3 * moved, err_msg=f"{name} {path}")


def test_each_reading_of_the_auxiliaries_input_sees_what_it_should():
    other, own = clips(seed=1), clips(seed=2)
    batch = batch_of(companions=[Prefixed(other, "other/"), Prefixed(own, "one/"), Prefixed(own, "two/")])
    problem = video_mtl.build(pipeline(), example=batch)
    params = away(problem.params["method"])
    made = {
        kind: pipeline(aux_input=kind).prompts(params, problem.frozen["aux"], batch) for kind in video_mtl.AUX_INPUTS
    }
    by_hand = {
        kind: pipeline().prompts(params, problem.frozen["aux"], next(all_batches([source], batch_size=6)))
        for kind, source in (("same_clip", clips()), ("other_clip", other), ("aux_data", own))
    }
    for kind in ("same_clip", "other_clip"):
        np.testing.assert_array_equal(made[kind], by_hand[kind])
    assert made["aux_data"].shape == (1, 6, 16)
    np.testing.assert_allclose(made["aux_data"][0], by_hand["aux_data"].mean(axis=0), atol=1e-6)
    assert float(np.abs(made["same_clip"] - made["other_clip"]).max()) > 1e-3


def test_prompts_before_the_first_block_are_vpt_shallow():
    shallow = View(vit(0, middle=0), sees("frames"))
    sizes = video_mtl.method_sizes(shallow.backbone, {})
    method = make_method({"name": "middle_prompts", "num_prompts": 5}, sizes)
    pipe = video_mtl.Pipeline(shallow, {}, SPECS["recognition"].task, method)
    problem = video_mtl.build(pipe, example=batch_of(), tune=("pool/head/.*",))
    assert tree.count(problem.params) == 5 * 16 + 16 * 4 + 4
    assert float(np.abs(problem.params["method"]["tokens"]).max()) <= (6 / (768 + 16)) ** 0.5
    model, params = videomae.VideoClassifier(SIZES), shallow.backbone.params
    whole = model.apply({"params": params}, batch_of()["frames"], {0: problem.params["method"]["tokens"]})
    np.testing.assert_allclose(pipe.outputs(problem.params, problem.frozen, batch_of())[0], whole, atol=1e-5)


def test_full_fine_tuning_trains_the_lower_half_too_and_the_adapter_the_seam():
    full = video_mtl.build(pipeline({"name": "none"}, aux={}), example=batch_of(), tune=(".*",))
    assert tree.count(full.params) == tree.count(views()[0].backbone.params)
    grads = jax.jit(jax.grad(lambda p: full.loss(p, full.frozen, batch_of(), None)[0]), compiler_options=FAST)(
        full.params
    )
    assert float(np.abs(grads["primary"]["trunk"]["patch"]["kernel"]).max()) > 1e-4
    adapted = pipeline({"name": "middle_adapter", "rank": 2}, aux={})
    problem = video_mtl.build(adapted, example=batch_of())
    params = {**problem.params, "method": away(problem.params["method"])}
    plain = adapted.outputs(problem.params, problem.frozen, batch_of())[0]
    assert tree.count(params) == 2 * 16 * 2 + 2 + 16
    assert float(np.abs(plain - adapted.outputs(params, problem.frozen, batch_of())[0]).max()) > 1e-3


def test_a_mapper_layer_can_start_as_a_block_of_its_auxiliary():
    sizes = replace(SIZES, inner=64)  # the mapper's feed-forward is four times as wide as the tokens
    aux = {"one": View(vit(1, sizes), sees("frames"))}
    pipe, path = pipeline(aux=aux), "trunk/transformer/blocks_2"
    problem = video_mtl.build(pipe, example=batch_of(), start_layer={"one": path})
    block = aux["one"].backbone.params["trunk"]["transformer"]["blocks_2"]
    jax.tree.map(np.testing.assert_array_equal, problem.params["method"]["one"]["layer"], block)
    with pytest.raises(UserError, match=r"cannot start as 'trunk/patch' of 'vit_1': -attn/key/bias"):
        video_mtl.build(pipe, example=batch_of(), start_layer={"one": "trunk/patch"})


def test_weights_above_the_middle_can_be_tuned_with_a_cached_primary_and_those_below_cannot():
    pipe = pipeline({"name": "none"}, aux={}, cached=("primary",))
    batch = {**batch_of(), **lowered(pipe, "primary")(batch_of())}
    head = video_mtl.build(pipe, example=batch, tune=("pool/.*",))
    assert tree.count(head.params) == 16 * 2 + 16 * 4 + 4
    with pytest.raises(UserError, match=r"trains 'trunk/transformer/blocks_0/.*', which the cached lower half"):
        video_mtl.build(pipe, example=batch, tune=("trunk/transformer/.*",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: pipeline(prompt_mode="static"), "Unknown prompt_mode 'static'; legal values: batch_mean, dynamic"),
        (lambda: pipeline(aux_input="same"), "Unknown aux_input 'same'"),
        (lambda: pipeline(cached=("three",)), "Unknown cached model 'three'"),
        (lambda: pipeline(cached=("one",)), "brings no middle state of 'one'"),
        (lambda: pipeline(DLM | {"prompts": 3}), "Unknown option of the method 'dlm' 'prompts'"),
        (lambda: pipeline(aux={}), "no auxiliary model"),
        (lambda: pipeline(aux={"primary": views()[0]}), "must not be named 'primary'"),
        (
            lambda: pipeline(aux={"one": View(replace(vit(1), dim=32), sees("frames"))}),
            "of the auxiliary 'one' are 16 wide, not 32",
        ),
    ],
)
def test_what_cannot_be_built_is_one_sentence(change, message):
    with pytest.raises(UserError, match=message):
        video_mtl.build(change(), example=batch_of())


def test_middle_states_survive_as_flat_arrays():
    state = videomae.Middle(
        jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool), {"boxes": jnp.zeros(1), "levels": (1, {"a": 2})}
    )
    again = unpack(pack(state, "m"), "m")
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert unpack(pack(state._replace(carry=()), "m"), "m").carry == ()


# --- a bit that only the auxiliary sees ---

BITS = videomae.VideoMaeConfig(2, 8, patch=4, channels=1, width=32, layers=4, heads=2, inner=64, classes=4)
STEPS, COUNT = 120, 4096


def bit_clips(seed):
    """Return clips with two bits: one in `frames`, the other in `elsewhere`; the label counts both."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (2, COUNT))
    pattern = np.random.default_rng(7).normal(size=(2, 1, 2, 8, 8, 1))
    seen = (bits[..., None, None, None, None] - 0.5) * pattern + 0.5 * rng.normal(size=(2, COUNT, 2, 8, 8, 1))
    frames, elsewhere = seen.astype(np.float32)
    return {"frames": frames, "elsewhere": elsewhere, "label": (2 * bits[0] + bits[1]).astype(np.int32)}


def fit(pipe, arrays, **options):
    """Train a pipeline's problem; returns it and the parameters."""
    source = Clips(arrays)
    problem = video_mtl.build(pipe, example=source.take(np.arange(2)) | {"weight": np.ones(2)}, **options)
    stream = training_batches([source, Prefixed(Elsewhere(source, 0), "other/")], batch_size=64, seed=0)
    return problem, advance(problem, stream, STEPS)


def accuracy(pipe, problem, params, arrays):
    source = Clips(arrays)
    batches = all_batches([source, Prefixed(Elsewhere(source, 1), "other/")], batch_size=256)
    predict = replace(problem, predict=lambda p, f, b: pipe.task.decode(pipe.outputs(p, f, b)[0], b))
    return video_mtl.evaluate(predict, params, pipe.task, batches)["top1"] / 100


@pytest.mark.slow
def test_only_prompts_from_the_auxiliary_of_this_clip_carry_what_only_it_sees():
    train, test, task = bit_clips(1), bit_clips(2), SPECS["recognition"].task
    start = vit_of_bits(0)

    def pretrained(seen, label):
        pipe = video_mtl.alone(View(start, sees("frames")), task)
        arrays, held = ({"frames": part[seen], "label": label(part["label"])} for part in (train, test))
        problem, params = fit(pipe, arrays, tune=(".*",))
        return replace(start, params=params["primary"]), accuracy(pipe, problem, params, held)

    primary, seen_alone = pretrained("frames", lambda label: label)
    aux, aux_alone = pretrained("elsewhere", lambda label: label % 2)
    assert aux_alone > 0.95 and 0.4 < seen_alone < 0.65  # each sees its own bit; the other one is chance
    see_primary, see_aux = View(primary, sees("frames")), View(aux, sees("elsewhere"))
    mapper = {"name": "dlm", "num_prompts": 4, "head_dim": 16, "bottleneck": 8, "adapter_rank": 8}

    def pipe_of(config, auxiliaries):
        sizes = video_mtl.method_sizes(primary, {name: view.backbone for name, view in auxiliaries.items()})
        made = make_method(config, sizes)
        return video_mtl.Pipeline(see_primary, auxiliaries, task, made)

    dlm = pipe_of(mapper, {"aux": see_aux})
    problem, params = fit(dlm, train)
    found = {"dynamic": accuracy(dlm, problem, params, test)}
    found["other clip"] = accuracy(replace(dlm, aux_input="other_clip"), problem, params, test)
    static = video_mtl.static_prompts(dlm, problem, params, all_batches([Clips(train)], batch_size=256))
    free = pipe_of({"name": "middle_prompts", "num_prompts": 4}, {})
    fixed = video_mtl.build(free, example={}, initial={"tokens": static})
    found["static"] = accuracy(free, fixed, fixed.params, test)
    for name, control in (("mid_prompt", free), ("self-aux", pipe_of(mapper, {"aux": see_primary}))):
        found[name] = accuracy(control, *fit(control, train), test)
    bare = pipe_of({"name": "none"}, {})
    nothing = video_mtl.build(bare, example={})
    found["frozen"] = accuracy(bare, nothing, nothing.params, test)
    assert found["dynamic"] > 0.9, found
    assert all(value < 0.65 for name, value in found.items() if name != "dynamic"), found


def vit_of_bits(seed):
    """Return the tiny model of the bits with ordinary initial weights."""
    params = jax.jit(videomae.VideoClassifier(BITS).init)(jax.random.key(seed), jnp.zeros((1, 2, 8, 8, 1)))["params"]
    return videomae.handle("bits", BITS, params)
