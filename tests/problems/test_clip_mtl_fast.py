"""The fast paths against the plain way, in float64 to 1e-10: every class text of every task as a whole row of the whole
context, every prompt through whole blocks, written with the same weights but none of the package's layers."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.engine.parallel import make_mesh
from jax_promptmtl.methods.make import make_method
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import clip_mtl, image_features

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile fast, run slow
TOKENIZER = Tokenizer([])  # a letter is a token
SIZES = ClipConfig(10, 8, 4, 24, 2, 2, 20, TOKENIZER.vocab_size, 16, 2, 2, "quick_gelu")
CLASSES = (("a", "bd"), ("e f", "g_h", "a"), ("bd", "a", "kkk"))
GROUPS = ((0, 2), (1,))
WORDS, NAMES = "p q {}.", "{}"


def tokens(text=(), image=()):
    """Return free tokens: (length, depth) of each tower."""
    both = {"text": text, "image": image}
    length, depth = ({tower: pair[i] for tower, pair in both.items() if pair} for i in range(2))
    return dict(name="tokens", length=length, depth=depth, std=1.0)


MMAP = dict(name="mmap", sets=("group", "task"), length=4, rows=2, columns=8, source_std=1.0)
GLOBAL = MMAP | dict(sets=("group",))
NONE = dict(name="none")
CASES = {  # method, sharing, tune, template
    "zero-shot": (NONE, {}, (), WORDS),
    "CoOp": (tokens(text=(4, 1)), {"text": "all"}, (), WORDS),
    "CoOp, names only": (tokens(text=(4, 1)), {"text": "all"}, (), NAMES),
    "CoOp, one per task": (tokens(text=(4, 1)), {"text": "task"}, (), WORDS),
    "CoOp, one per group": (tokens(text=(4, 1)), {"text": "group"}, (), NAMES),
    "VPT shallow": (tokens(image=(3, 1)), {"image": "all"}, (), WORDS),
    "VPT deep": (tokens(image=(3, 2)), {"image": "task"}, (), NAMES),
    "joint": (tokens(text=(2, 2), image=(3, 2)), {"text": "all", "image": "task"}, (), WORDS),
    "joint, J < K": (tokens(text=(2, 1), image=(3, 1)), {"text": "group", "image": "group"}, (), WORDS),
    "MaPLe, J < K": (dict(name="maple", length=2, depth=1, std=1.0), {"text": "all", "linear": "task"}, (), WORDS),
    "MaPLe, J = K": (dict(name="maple", length=2, depth=2, std=1.0), {"text": "all", "linear": "all"}, (), NAMES),
    "MmAP": (MMAP, {"group": "group", "task": "task"}, (), WORDS),
    "MmAP, names only": (MMAP, {"group": "group", "task": "task"}, (), NAMES),
    "MmAP, global": (GLOBAL, {"group": "all"}, (), NAMES),
    "CLIP-Adapter": (dict(name="adapter", side="both", reduction=2), {"image": "all", "text": "task"}, (), WORDS),
    "full fine-tuning": (NONE, {}, (".*",), WORDS),
    "BitFit": (NONE, {}, (".*/bias",), NAMES),
    "BitFit and CoOp": (tokens(text=(4, 1)), {"text": "all"}, (".*/bias",), WORDS),
}

SHARED = ("CoOp", "CoOp, one per group", "joint", "MaPLe, J < K", "MmAP, global")  # text prompts of several tasks


def build(backbone, case, classes=CLASSES, groups=GROUPS, **options):
    method, sharing, tune, template = CASES[case]
    suite = Suite("tiny", tuple(Task(f"task {t}", names, None, None) for t, names in enumerate(classes)), "hash")
    part = dict(method=method, sharing=sharing, tune=tune, template=template, seed=0, groups=groups)
    return clip_mtl.build(suite, backbone, clip_mtl.Options(**part, **options))


@pytest.fixture(scope="module", autouse=True)
def double():
    """Compute in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def backbone():
    """Return a random tiny CLIP, all leaves away from 0 and 1."""
    rng, scales = np.random.default_rng(0), re.compile(r".*(/|_)scale")
    draw = lambda path, leaf: rng.normal(bool(scales.fullmatch(path)), 0.3, leaf.shape)  # noqa: E731
    params = tree.unflatten({path: draw(path, leaf) for path, leaf in tree.flatten(convert.shapes(SIZES)).items()})
    return Backbone("tiny", SIZES, params, TOKENIZER, {"image_size": 8}, "0" * 64)


def make_batch(size=5, classes=CLASSES):
    rng = np.random.default_rng(1)
    task = np.arange(size, dtype=np.int32)[::-1] % len(classes)
    return {
        "image": rng.normal(size=(size, 8, 8, 3)),
        "label": np.array([rng.integers(len(classes[t])) for t in task], np.int32),
        "task": task,
        "weight": rng.uniform(0.5, 1.5, size),
    }


# --- the plain way ----------------------------------------------------------------------------------------------------


def norm(x, w):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * w["scale"] + w["bias"]


def linear(x, w):
    return x @ w["kernel"] + w["bias"]


def block(x, w, heads, causal):
    """Run one sequence [N, D] through a whole block."""
    h = norm(x, w["ln_1"])
    q, k, v = (linear(h, w["attn"][part]).reshape(len(x), heads, -1) for part in ("query", "key", "value"))
    logits = jnp.einsum("nhc,mhc->hnm", q, k) / math.sqrt(q.shape[-1])
    if causal:
        logits = jnp.where(np.tril(np.ones((len(x), len(x)), bool)), logits, -jnp.inf)
    x = x + linear(jnp.einsum("hnm,mhc->nhc", jax.nn.softmax(logits), v).reshape(x.shape), w["attn"]["out"])
    h = linear(norm(x, w["ln_2"]), w["mlp"]["fc"])
    return x + linear(h * jax.nn.sigmoid(1.702 * h), w["mlp"]["proj"])


def tower(x, w, prompts, at, heads, causal):
    """Run [before | prompts | after]; layer 0's prompts are in `x` already."""
    for k in range(len(w)):
        if k and k in prompts:
            x = jnp.concatenate([x[:at], prompts[k], x[at + len(prompts[k]) :]])
        x = block(x, w[f"blocks_{k}"], heads, causal)
    return x


def text_feature(w, prompts, ids, end):
    """Encode a text without placeholders, ids int[context length]."""
    x = w["token"]["embedding"][ids]
    slot = prompts.get(0, x[:0])
    x = jnp.concatenate([x[:1], slot, x[1:]])[: SIZES.context_length] + w["position"]
    x = tower(x, w["transformer"], prompts, 1, SIZES.text_heads, causal=True)
    return norm(x[end + len(slot)], w["ln_final"]) @ w["projection"]["kernel"]


def image_feature(w, image, prompts):
    patches = [image[i : i + 4, j : j + 4].reshape(-1) for i in (0, 4) for j in (0, 4)]
    x = jnp.stack(patches) @ w["patch"]["kernel"].reshape(-1, SIZES.image_width)
    x = jnp.concatenate([w["cls"][None], x]) + w["position"]
    x = norm(jnp.concatenate([x[:1], prompts.get(0, x[:0]), x[1:]]), w["ln_pre"])
    x = tower(x, w["transformer"], prompts, 1, SIZES.image_heads, causal=False)
    return norm(x[0], w["ln_post"]) @ w["projection"]["kernel"]


def plain(case, per_task, frozen, batch, classes=CLASSES):
    """Return the loss and the logits float[B, C], -inf beyond the classes of an example's task."""
    method, _, _, template = CASES[case]
    module = make_method(method, {"towers": SIZES.towers, "embed_dim": SIZES.embed_dim})
    w, most = tree.merge(per_task["backbone"], frozen["backbone"]), max(map(len, classes))
    texts = [[template.format(name.replace("_", " ")) for name in names] for names in classes]
    ids = np.stack([TOKENIZER.tokenize((rows + rows[:1] * most)[:most], SIZES.context_length) for rows in texts])
    real = np.array([[c < len(names) for c in range(most)] for names in classes])

    def classify(task, image):
        variables = {"params": jax.tree.map(lambda leaf: leaf[task], per_task["method"])}
        prompts = module.apply(variables)
        text = jax.vmap(partial(text_feature, w["text"], prompts.get("text", {})))
        text = text(jnp.asarray(ids)[task], jnp.argmax(jnp.asarray(ids)[task] == TOKENIZER.end, axis=1))
        image = image_feature(w["image"], image, prompts.get("image", {}))
        image, text = (module.apply(variables, *pair, method="adapt") for pair in (("image", image), ("text", text)))
        image, text = (x / jnp.sqrt((x**2).sum(axis=-1, keepdims=True)) for x in (image, text))
        return jnp.where(jnp.asarray(real)[task], jnp.exp(w["logit_scale"]) * text @ image, -jnp.inf)

    logits = jax.vmap(classify)(batch["task"], batch["image"])
    likely = jax.nn.log_softmax(logits)[np.arange(len(logits)), batch["label"]]
    return -(batch["weight"] * likely).sum(), logits


# --- fast equals plain ------------------------------------------------------------------------------------------------


def same_leaves(ours, expected):
    ours, expected = ({k: x for k, x in tree.flatten(t).items() if x is not None} for t in (ours, expected))
    assert ours.keys() == expected.keys()
    scale = max((np.abs(leaf).max() for leaf in expected.values()), default=0)
    for path, leaf in expected.items():
        assert ours[path].dtype == np.float64
        np.testing.assert_allclose(ours[path], leaf, rtol=1e-10, atol=1e-10 * scale, err_msg=path)
    assert not expected or scale > 1e-3


def compare(backbone, case, classes=CLASSES, groups=GROUPS, **options):
    """Compare logits, loss, each task's gradients, and the gradients when tasks need not be told apart."""
    batch = make_batch(classes=classes)
    exact, merged = (build(backbone, case, classes, groups, task_gradients=flag, **options) for flag in (True, False))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), exact.params)

    @partial(jax.jit, compiler_options=FAST)
    def run(params, frozen):
        per_task, collapse = jax.vjp(exact.expand, params)
        forward = jax.value_and_grad(partial(plain, case), has_aux=True)
        (loss, rows), expected = forward(per_task, frozen, batch, classes=classes)
        (ours, _), grads = jax.value_and_grad(exact.loss, has_aux=True)(per_task, frozen, batch, None)
        logits = exact.predict(exact.prepare(per_task, frozen), frozen, batch)
        fast = collapse(grads)[0]
        if case in SHARED:
            fast = jax.grad(lambda p: merged.loss(merged.expand(p), frozen, batch, None)[0])(params)
        return (loss, rows, expected, collapse(expected)[0]), (ours, logits, grads, fast)

    (loss, rows, expected, summed), (ours, logits, grads, fast) = jax.device_get(run(params, exact.frozen))
    np.testing.assert_allclose(ours, loss, rtol=1e-10)
    np.testing.assert_allclose(logits, rows, rtol=1e-10, atol=1e-10)
    same_leaves(grads, expected)
    same_leaves(fast, summed)


USUAL = ("CoOp", "VPT deep", "MaPLe, J < K", "MmAP", "CLIP-Adapter", "BitFit and CoOp")
others = pytest.mark.slow


@pytest.mark.parametrize("case", [case if case in USUAL else pytest.param(case, marks=others) for case in CASES])
def test_fast_equals_plain(backbone, case):
    compare(backbone, case)


@others
@pytest.mark.parametrize("case", ["CoOp", "MmAP"])
def test_fast_equals_plain_with_one_task(backbone, case):
    compare(backbone, case, classes=CLASSES[1:2], groups=((0,),))


@others
def test_fast_equals_plain_with_one_class(backbone):
    # All texts are equal: the common beginning stops before their end.
    compare(backbone, "MmAP", classes=(("a",), ("a",), ("a", "bd")))


@pytest.mark.parametrize("case", [pytest.param("MmAP", marks=others), "full fine-tuning"])
def test_saving_memory_changes_nothing(backbone, case):
    compare(backbone, case, remat=True, class_chunk=1)


@pytest.mark.parametrize("case", ["MmAP", *(pytest.param(c, marks=others) for c in ("CoOp", "full fine-tuning"))])
def test_class_texts_divided_among_eight_devices_change_nothing(backbone, case):
    assert jax.device_count() == 8
    compare(backbone, case, mesh=make_mesh())


@others
def test_class_texts_divided_among_eight_devices_and_chunks_change_nothing(backbone):
    compare(backbone, "BitFit and CoOp", mesh=make_mesh(), remat=True, class_chunk=1)


def test_each_device_encodes_its_own_texts(backbone):
    names = tuple(a + b for a in "abcdefgh" for b in "ijklmnop")
    problem, batch = build(backbone, "MmAP", (names,) * 3, mesh=make_mesh()), make_batch(classes=(names,) * 3)
    loss = jax.make_jaxpr(problem.loss)(problem.expand(problem.params), problem.frozen, batch, None).jaxpr
    (divided,) = [e.params["jaxpr"] for e in loss.eqns if e.primitive.name == "shard_map"]
    sets, rows, texts, _ = divided.outvars[0].aval.shape
    assert sets == 3 and 64 / 8 <= rows * texts < 2 * 64 / 8


@pytest.mark.parametrize("case", ["MmAP", pytest.param("BitFit and CoOp", marks=others)])
def test_images_one_by_one_change_nothing(backbone, case):
    compare(backbone, case, image_chunk=1)


def test_images_that_cannot_be_divided_are_refused(backbone):
    problem = build(backbone, "VPT shallow", image_chunk=3)
    with pytest.raises(UserError, match=r"image_chunk is 3.* 5 images"):
        problem.loss(problem.expand(problem.params), problem.frozen, make_batch(), None)


def predict(problem, batch):
    """Return the logits of the initial parameters."""

    @partial(jax.jit, compiler_options=FAST)
    def logits(params, frozen):
        return problem.predict(problem.prepare(problem.expand(params), frozen), frozen, batch)

    return np.asarray(logits(problem.params, problem.frozen))


@pytest.mark.parametrize("case", ["VPT deep", "CoOp"])
def test_cached_features_of_a_constant_image_tower(backbone, case):
    problem, batch = build(backbone, case), make_batch()
    (cached,) = image_features.encode_images(backbone, [batch])
    assert "image" not in cached and cached["features"].shape == (5, SIZES.embed_dim)
    if case == "CoOp":
        np.testing.assert_allclose(*(predict(problem, data) for data in (batch, cached)), rtol=1e-10)
    else:
        with pytest.raises(UserError, match="changes the image tower"):
            problem.loss(problem.expand(problem.params), problem.frozen, cached, None)


# --- nothing is computed that nobody reads ----------------------------------------------------------------------------


def outputs(jaxpr):
    """Yield (primitive, shape) of everything that a jaxpr computes, inner ones too."""
    for equation in jaxpr.eqns:
        yield from ((equation.primitive.name, var.aval.shape) for var in equation.outvars)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(value, "eqns"):
                yield from outputs(value)


def weight_gradients(backbone, case):
    """Return the shapes of products in the gradient that are shapes of a weight matrix, as no activation is."""
    classes = CLASSES[1:2]  # one task: other numbers of prompt tokens could be the width
    problem, batch = build(backbone, case, classes, ((0,),), task_gradients=False), make_batch(7, classes)

    def gradients(params, frozen):
        return jax.grad(lambda p: problem.loss(problem.expand(p), frozen, batch, None)[0])(params)

    jaxpr = jax.make_jaxpr(gradients)(problem.params, problem.frozen).jaxpr
    matrices = {leaf.shape for path, leaf in tree.flatten(backbone.params).items() if path.endswith("kernel")}
    matrices |= {shape[::-1] for shape in matrices}
    return {shape for name, shape in outputs(jaxpr) if name == "dot_general" and shape in matrices}


@pytest.mark.parametrize("case", ["CoOp", "VPT deep", "MaPLe, J < K", "MmAP", "CLIP-Adapter"])
def test_the_graph_holds_no_gradient_of_a_frozen_weight(backbone, case):
    assert not weight_gradients(backbone, case)
    assert len(weight_gradients(backbone, "full fine-tuning")) >= 5


@pytest.mark.parametrize("case", ["zero-shot", "VPT deep", "CLIP-Adapter", "CoOp", "BitFit"])
def test_class_features_that_training_does_not_change_are_no_part_of_the_step(backbone, case):
    problem = build(backbone, case)
    assert ("classes" in problem.frozen) == (case not in ("CoOp", "BitFit"))
    step = jax.make_jaxpr(problem.loss)(problem.expand(problem.params), problem.frozen, make_batch(), None).jaxpr
    width = (SIZES.text_width, 4 * SIZES.text_width)
    assert any(shape[-1:] in ((w,) for w in width) for _, shape in outputs(step)) == ("classes" not in problem.frozen)


def test_narrow_towers_keep_wide_masters_norms_and_logits(backbone):
    single = Backbone(**vars(backbone) | {"params": jax.tree.map(np.float32, backbone.params)})
    with jax.enable_x64(False):
        wide, slim = (build(single, "MmAP", dtype=dtype) for dtype in ("float32", "bfloat16"))
        leaves = tree.flatten(slim.frozen["backbone"])
        narrow = {path for path, leaf in leaves.items() if leaf.dtype == jnp.bfloat16}
        assert {path.split("/")[-1] for path in narrow} == {"kernel", "bias"}
        assert not any("/ln_" in path or "projection" in path or "token" in path for path in narrow)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(slim.params))
        batch = make_batch() | {"image": np.float32(make_batch()["image"])}
        ours, expected = predict(slim, batch), predict(wide, batch)
    assert ours.dtype == np.float32
    seen = np.isfinite(expected)
    assert 0 < np.abs(ours[seen] - expected[seen]).max() < 0.1 * np.abs(expected[seen]).max()
