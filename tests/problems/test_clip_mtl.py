"""The CLIP problem against MmAP's equations written out in torch: every class of every task encoded for itself, one
image at a time, in float64; and what sharing, weights, padding and the engine must keep."""

import math
import re
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.engine import optim, step
from jax_promptmtl.engine.parallel import parallelize, replicate
from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.models.clip.packing import pack
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import class_texts, clip_mtl
from tests.tiny import FAST

torch = pytest.importorskip("torch")
functional = torch.nn.functional

TOKENIZER = Tokenizer([])  # a letter is a token
SIZES = ClipConfig(12, 8, 4, 48, 2, 2, 20, TOKENIZER.vocab_size, 32, 2, 4, "quick_gelu")
CLASSES = (("a", "bd"), ("e f", "g_h", "a"), ("bd", "kkk"))
GROUPS = ((0, 2), (1,))
VECTORS = {"group": [0, 1, 0], "task": [0, 1, 2], "all": [0, 0, 0]}
TEMPLATE = "p {}."
MMAP = dict(name="mmap", sets=("group", "task"), length=4, rows=2, columns=8)
CASES = {  # method, sharing, tune
    "mmap": (MMAP, {"group": "group", "task": "task"}, ()),
    "coop": (dict(name="tokens", length={"text": 5}, depth={"text": 1}), {"text": "all"}, ()),
    "vpt deep": (dict(name="tokens", length={"image": 3}, depth={"image": 2}), {"image": "task"}, ()),
    "joint, flowing on": (
        dict(name="tokens", length={"text": 2, "image": 3}, depth={"text": 1, "image": 1}),
        {"text": "group", "image": "all"},
        (),
    ),
    "full fine-tuning": (dict(name="none"), {}, (".*",)),
}


def suite():
    return Suite("tiny", tuple(Task(f"task {t}", names, None, None) for t, names in enumerate(CLASSES)), "hash")


def build(case, backbone):
    method, sharing, tune = CASES[case]
    options = dict(method=method, sharing=sharing, tune=tune, template=TEMPLATE, seed=0)
    return clip_mtl.build(suite(), backbone, clip_mtl.Options(**options, groups=GROUPS))


@pytest.fixture(scope="module")
def backbone():
    """Return a random tiny CLIP, all leaves away from 0 and 1."""
    rng, scales = np.random.default_rng(0), re.compile(r".*(/|_)scale")
    draw = lambda path, leaf: rng.normal(bool(scales.fullmatch(path)), 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    params = tree.unflatten({path: draw(path, leaf) for path, leaf in tree.flatten(convert.shapes(SIZES)).items()})
    return Backbone("tiny", SIZES, params, TOKENIZER, {"image_size": 8}, "0" * 64)


def make_batch(size, seed=1):
    rng = np.random.default_rng(seed)
    task = np.arange(size, dtype=np.int32) % 3
    return {
        "image": rng.normal(size=(size, 8, 8, 3)).astype(np.float32),
        "label": np.array([rng.integers(len(CLASSES[t])) for t in task], np.int32),
        "task": task,
        "weight": rng.uniform(0.5, 1.5, size).astype(np.float32),
    }


@pytest.fixture(scope="module")
def run(backbone):
    """Return (case, batch) -> problem, loss, sums, logits, per-task gradients and gradients; one compilation a case."""
    compiled = {}

    def compile(case):
        problem = build(case, backbone)

        def everything(params, frozen, batch):
            per_task, collapse = jax.vjp(problem.expand, params)
            (loss, sums), grads = jax.value_and_grad(problem.loss, has_aux=True)(per_task, frozen, batch, None)
            logits = problem.predict(problem.prepare(per_task, frozen), frozen, batch)
            return dict(loss=loss, sums=sums, logits=logits, per_task=grads, grads=collapse(grads)[0])

        return problem, jax.jit(everything, compiler_options=FAST)

    def call(case, batch):
        if case not in compiled:
            compiled[case] = compile(case)
        problem, fn = compiled[case]
        return SimpleNamespace(problem=problem, **jax.device_get(fn(problem.params, problem.frozen, batch)))

    return call


# --- the reference ----------------------------------------------------------------------------------------------------


def norm(x, w, name):
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}/scale"], w[f"{name}/bias"], 1e-5)


def linear(x, w, name):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def block(x, w, name, heads, causal):
    h = norm(x, w, f"{name}/ln_1")
    q, k, v = (linear(h, w, f"{name}/attn/{part}").unflatten(1, (heads, -1)).transpose(0, 1) for part in PARTS)
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        logits = logits + torch.full_like(logits, -torch.inf).triu(1)
    x = x + linear((logits.softmax(-1) @ v).transpose(0, 1).flatten(1), w, f"{name}/attn/out")
    h = linear(norm(x, w, f"{name}/ln_2"), w, f"{name}/mlp/fc")
    return x + linear(h * torch.sigmoid(1.702 * h), w, f"{name}/mlp/proj")


PARTS = ("query", "key", "value")


def text_feature(w, name, prompts):
    """[SOS | prompts | words | EOT | zeros] over the whole context; learnt rows get positions in layer 0 only."""
    ids = TOKENIZER.tokenize([TEMPLATE.format(name.replace("_", " "))], SIZES.context_length)[0]
    x = w["text/token/embedding"][ids]
    slot = prompts.get(0, x[:0])
    x = torch.cat([x[:1], slot, x[1:]])[: SIZES.context_length] + w["text/position"]
    for k in range(SIZES.text_layers):
        if k and k in prompts:
            x = torch.cat([x[:1], prompts[k], x[1 + len(slot) :]])
        x = block(x, w, f"text/transformer/blocks_{k}", SIZES.text_heads, causal=True)
    end = list(ids).index(TOKENIZER.end) + len(slot)
    return norm(x[end], w, "text/ln_final") @ w["text/projection/kernel"]


def image_feature(w, image, prompts, at_end):
    """[cls | prompts | patches], or with the prompts at the end; those of layer 0 pass ln_pre without a position."""
    kernel = w["image/patch/kernel"].permute(3, 2, 0, 1)
    patches = functional.conv2d(image.permute(2, 0, 1)[None], kernel, stride=SIZES.patch_size)[0].flatten(1).T
    x = torch.cat([w["image/cls"][None], patches]) + w["image/position"]
    place = len(x) if at_end else 1
    slot = prompts.get(0, x[:0])
    x = norm(torch.cat([x[:place], slot, x[place:]]), w, "image/ln_pre")
    for k in range(SIZES.image_layers):
        if k and k in prompts:
            x = torch.cat([x[:place], prompts[k], x[place + len(slot) :]])
        x = block(x, w, f"image/transformer/blocks_{k}", SIZES.image_heads, causal=False)
    return norm(x[0], w, "image/ln_post") @ w["image/projection/kernel"]


def reference_prompts(case, method, task, tower):
    """Return layer -> tokens of one task: [P_G | P_T] with P_x = M_x (x) P_s (eq. 6-10), or free tokens."""
    slots = {subtree: VECTORS[kind][task] for subtree, kind in CASES[case][1].items()}
    if case != "mmap":
        return dict(enumerate(method[f"{tower}/tokens"][slots[tower]])) if f"{tower}/tokens" in method else {}

    def one(name, k):
        return torch.kron(method[f"{name}/{tower}"][slots[name], k], method[f"{name}/source"][slots[name], k])

    return {k: torch.cat([one("group", k), one("task", k)]) for k in range(method[f"group/{tower}"].shape[1])}


def reference(case, problem, batch, at_end):
    """Return logits (a list of [C_t]), the loss, and the gradient of every trainable leaf by its path."""
    full = tree.flatten(tree.merge(problem.params, {part: problem.frozen[part] for part in problem.params}))
    leaves = {path: torch.tensor(np.asarray(leaf, np.float64), requires_grad=True) for path, leaf in full.items()}
    w, method = (
        {path.removeprefix(part): leaf for path, leaf in leaves.items() if path.startswith(part)}
        for part in ("backbone/", "method/")
    )
    logits, loss = [], 0
    for image, label, task, weight in zip(*(batch[key] for key in ("image", "label", "task", "weight")), strict=True):
        text = [text_feature(w, name, reference_prompts(case, method, task, "text")) for name in CLASSES[task]]
        text = functional.normalize(torch.stack(text), dim=1)
        seen = torch.tensor(image, dtype=torch.float64)
        feature = image_feature(w, seen, reference_prompts(case, method, task, "image"), at_end)
        logits.append(w["logit_scale"].exp() * text @ functional.normalize(feature, dim=0))  # eq. 5
        loss = loss - float(weight) * logits[-1].log_softmax(0)[label]  # eq. 11-12
    loss.backward()
    trained = {path for path, leaf in tree.flatten(problem.params).items() if leaf is not None}
    return [row.detach().numpy() for row in logits], loss.item(), {path: leaves[path].grad.numpy() for path in trained}


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """Keep torch's threads from waiting for each other: the reference's products are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_are_those_of_the_equations(run, case):
    batch = make_batch(6)
    ours = run(case, batch)
    # "vpt deep" as in its CLIP variant (multimodal-prompt-learning): at the end of the sequence. It must not matter.
    logits, loss, grads = reference(case, ours.problem, batch, at_end=case == "vpt deep")
    for row, expected in zip(ours.logits, logits, strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(ours.loss, loss, rtol=2e-5)
    largest = max(np.abs(grad).max() for grad in grads.values())
    assert largest > 1e-2
    for path, expected in grads.items():
        scale = max(np.abs(expected).max(), 2e-3 * largest)
        np.testing.assert_allclose(tree.flatten(ours.grads)[path], expected, atol=5e-5 * scale, err_msg=path)
        assert not path.startswith("method/") or np.abs(expected).max() > 0


# --- batches, tasks and classes ---------------------------------------------------------------------------------------


def only(batch, task):
    """Return a batch of the same size with the examples of one task, each as often as it takes."""
    rows = np.resize(np.flatnonzero(batch["task"] == task), len(batch["task"]))
    return {key: value[rows] for key, value in batch.items()}, rows


def weigh(batch, weight):
    return {**batch, "weight": np.asarray(weight, np.float32)}


def assert_close(ours, expected, tolerance=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), ours, expected)


def test_a_mixed_batch_gives_each_example_what_a_batch_of_its_task_gives(run):
    batch = make_batch(6)
    mixed = run("mmap", batch).logits
    for task in range(3):
        alone, rows = only(batch, task)
        np.testing.assert_allclose(run("mmap", alone).logits, mixed[rows], rtol=1e-5, atol=1e-5)


def test_replicated_gradients_are_the_gradients_of_each_task_alone(run):
    batch = make_batch(6)
    whole = run("mmap", batch)
    for task in range(3):
        alone = run("mmap", weigh(batch, batch["weight"] * (batch["task"] == task))).grads["method"]
        mine = jax.tree.map(lambda leaf, task=task: leaf[task], whole.per_task["method"])
        for name, vector in (("group", VECTORS["group"]), ("task", VECTORS["task"])):
            assert_close(jax.tree.map(lambda leaf, s=vector[task]: leaf[s], alone[name]), mine[name])
            others = jax.tree.map(lambda leaf, s=vector[task]: np.delete(leaf, s, axis=0), alone[name])
            assert not any(leaf.any() for leaf in jax.tree.leaves(others))


def test_a_groups_gradient_is_the_sum_over_its_tasks(run):
    whole = run("mmap", make_batch(6))
    for slot, members in enumerate(GROUPS):
        total = jax.tree.map(lambda leaf, m=members: leaf[list(m)].sum(axis=0), whole.per_task["method"]["group"])
        assert_close(jax.tree.map(lambda leaf, slot=slot: leaf[slot], whole.grads["method"]["group"]), total)
    assert_close(whole.grads["method"]["task"], whole.per_task["method"]["task"])


def test_weights_express_the_mean_over_the_union_and_the_sum_of_task_means(run):
    # Tasks 0, 1, 1, 1, 2, 2: unequal numbers, so that the two differ by more than a factor.
    batch = make_batch(9)
    batch = {key: value[[0, 1, 4, 7, 2, 5]] for key, value in batch.items()}
    counts = np.bincount(batch["task"])
    assert counts.tolist() == [1, 3, 2]
    each = [
        -(row[label] - np.log(np.exp(row[np.isfinite(row)].astype(np.float64)).sum()))
        for row, label in zip(run("mmap", batch).logits, batch["label"], strict=True)
    ]
    per_task = [np.mean([loss for loss, t in zip(each, batch["task"], strict=True) if t == task]) for task in range(3)]
    mean = run("mmap", weigh(batch, np.full(6, 1 / 6)))
    np.testing.assert_allclose(mean.loss, np.mean(each), rtol=1e-5)
    summed = run("mmap", weigh(batch, 1 / counts[batch["task"]]))
    np.testing.assert_allclose(summed.loss, np.sum(per_task), rtol=1e-5)  # eq. 11 over all groups
    for task in range(3):  # eq. 12: a task's own prompt gets its own task's mean, whatever the others are
        ratio = counts[task] / 6
        of_task = partial(jax.tree.map, lambda leaf, task=task: leaf[task])
        scaled = jax.tree.map(lambda leaf, r=ratio: leaf * r, of_task(summed.grads["method"]["task"]))
        assert_close(of_task(mean.grads["method"]["task"]), scaled)


def test_sums_count_every_real_example_once_and_padding_never(run):
    batch = make_batch(6)
    weight = np.float32([0, 2, 1, 1, 1, 1])
    result = run("mmap", weigh(batch, weight))
    hits = result.logits.argmax(axis=1) == batch["label"]
    own = jax.nn.log_softmax(result.logits)[np.arange(6), batch["label"]]
    for task in range(3):
        mine = (batch["task"] == task) & (weight > 0)
        assert result.sums["count"][task] == mine.sum()
        assert result.sums["correct"][task] == hits[mine].sum()
        np.testing.assert_allclose(result.sums["loss"][task], -own[mine].sum(), rtol=1e-5)
    np.testing.assert_allclose(result.loss, -(weight * own).sum(), rtol=1e-5)


def test_logits_are_minus_infinity_beyond_the_classes_of_the_task(run):
    result, task = run("mmap", make_batch(6)), make_batch(6)["task"]
    assert result.logits.shape == (6, 3)
    for row, t in zip(result.logits, task, strict=True):
        assert np.isfinite(row).tolist() == [c < len(CLASSES[t]) for c in range(3)]
        assert np.all(row[len(CLASSES[t]) :] == -np.inf)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.grads))


def test_token_rows_are_start_slot_text_and_end(backbone):
    row = class_texts.class_tokens(backbone, ["g_h"], TEMPLATE, slot=3)[0]
    text = TOKENIZER.encode("p g h.")
    assert row.dtype == np.int32 and len(row) == SIZES.context_length
    assert row.tolist() == [TOKENIZER.start, 0, 0, 0, *text, TOKENIZER.end] + [0] * (20 - 5 - len(text))


@pytest.mark.parametrize("slot", [0, 3])
def test_cutting_rows_after_the_last_end_and_packing_them_change_nothing(backbone, slot):
    rows = [class_texts.class_tokens(backbone, names, TEMPLATE, slot) for names in CLASSES]
    rng, count = np.random.default_rng(0), [len(names) for names in CLASSES]
    prompts = {k: rng.normal(size=(3, slot, SIZES.text_width)).astype(np.float32) for k in range(2) if slot}
    per_row = {k: np.repeat(x, count, axis=0) for k, x in prompts.items()}
    long, sets = np.concatenate(rows), (range(3) if slot else [0] * 3)

    @jax.jit
    def encode(weights, prompts):
        whole, cut = (
            backbone.model.apply({"params": weights}, tokens, per_row, slot=slot, method="encode_text")
            for tokens in (long, long[:, : 1 + long.argmax(axis=1).max()])
        )
        return whole, cut, class_texts.encode_classes(backbone.model, weights, prompts, slot, texts=pack(rows, sets))

    whole, cut, packed = encode(backbone.params, prompts)
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)
    assert packed.shape == (3, 3, SIZES.embed_dim)
    flat = np.concatenate([task[:n] for task, n in zip(packed, count, strict=True)])
    np.testing.assert_allclose(flat, whole, rtol=1e-5, atol=1e-5)


# --- the engine -------------------------------------------------------------------------------------------------------

LAYOUTS = {"one": ("jit", 1), "jit": ("jit", 8), "pmap": ("pmap", 8)}


@pytest.fixture(scope="module")
def trained(backbone):
    """Return layout -> problem, state, frozen weights and losses after three steps of MmAP on batches of 12."""
    problem = build("mmap", backbone)
    sgd = dict(name="sgd", learning_rate=0.05, schedule="constant", weight_decay=5e-4, momentum=0.9, clip=None)
    tx = optim.make(sgd, mask=problem.mask, steps_per_epoch=1, total_steps=3)

    def train(mode, count):
        devices = jax.devices()[:count]
        fn = partial(step.train_step, problem=problem, tx=tx, key=jax.random.key(0))
        fn = parallelize(fn, mode, devices=devices, donate=True)
        state, frozen = replicate(step.initial(problem, tx), devices), replicate(problem.frozen, devices)
        losses = []
        for number in range(3):
            batch = make_batch(12, number)
            state, metrics = fn(state, frozen, weigh(batch, np.full(12, 1 / 12)))
            losses.append(float(metrics["loss"]))
        return problem, jax.device_get(state), jax.device_get(frozen), losses

    return {name: train(*layout) for name, layout in LAYOUTS.items()}


@pytest.mark.parametrize("layout", ["jit", "pmap"])
def test_eight_devices_train_mmap_as_one_does(trained, layout):
    assert jax.device_count() == 8
    (_, one, _, expected), (_, many, _, losses) = trained["one"], trained[layout]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert_close(many.params, one.params, 2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_moves_every_prompt_and_no_bit_of_the_backbone(trained, backbone, layout):
    problem, state, frozen, _ = trained[layout]
    assert tree.checksums(frozen["backbone"]) == tree.checksums(backbone.params)
    for path, leaf in tree.flatten(state.params["method"]).items():
        slots = np.abs(leaf - tree.flatten(problem.params["method"])[path]).reshape(len(leaf), -1)
        assert np.all(slots.max(axis=1) > 1e-5), path
