"""Every method against a reference in torch, float64, written from the papers: logits, loss and gradients.

As in muzairkhattak/multimodal-prompt-learning the image prompts stand at the end of the sequence here, and every class
text is encoded over the whole context.
"""

import jax
import numpy as np
import pytest

from jax_promptmtl.core import tree

torch = pytest.importorskip("torch")
functional = torch.nn.functional

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile fast, run slow
SLOTS = {"all": [0, 0, 0], "task": [0, 1, 2], "group": [0, 1, 0]}
CASES = {  # method, sharing; CoOp and VPT alone are in tests/problems/test_clip_mtl.py
    "IVLP": (
        dict(name="tokens", length={"text": 2, "image": 3}, depth={"text": 2, "image": 3}),
        {"text": "task", "image": "all"},
    ),
    "MaPLe, J < K": (dict(name="maple", length=2, depth=2), {"text": "task", "linear": "group"}),
    "MaPLe, J = K": (dict(name="maple", length=3, depth=3), {"text": "all", "linear": "all"}),
    "MLP": (
        dict(name="mlp", length=2, source_width=5, depth=3),
        {"source": "group", "text": "all", "image": "task"},
    ),
    "image adapter": (dict(name="adapter"), {"image": "task"}),
    "both": (dict(name="adapter", side="both", ratio=0.4, reduction=2, bias=True), {"image": "group", "text": "task"}),
}


# --- the frozen CLIP --------------------------------------------------------------------------------------------------


def norm(x, w, name):
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}/scale"], w[f"{name}/bias"], 1e-5)


def affine(x, w, name):
    return functional.linear(x, w[f"{name}/kernel"].T, w[f"{name}/bias"])


def block(x, w, name, heads, causal):
    """A residual block of openai/CLIP, x [N, D]."""
    y = norm(x, w, f"{name}/ln_1")
    q, k, v = (affine(y, w, f"{name}/attn/{part}").view(len(x), heads, -1).swapaxes(0, 1) for part in QKV)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    x = x + affine(mixed.swapaxes(0, 1).reshape(x.shape), w, f"{name}/attn/out")
    y = affine(norm(x, w, f"{name}/ln_2"), w, f"{name}/mlp/fc")
    return x + affine(y * torch.sigmoid(1.702 * y), w, f"{name}/mlp/proj")


QKV = ("query", "key", "value")


def encode_text(w, backbone, name, prompts):
    """[SOS | prompts | words | EOT | zeros]: learnt rows get positions before layer 0; later ones replace them."""
    sizes = backbone.config
    ids = backbone.tokenizer.tokenize([f"p {name}."], sizes.context_length)[0].tolist()
    count = len(prompts[0]) if prompts else 0
    words = w["text/token/embedding"][ids]
    x = torch.cat([words[:1], *prompts[:1], words[1:]])[: sizes.context_length] + w["text/position"]
    for k in range(sizes.text_layers):
        if 0 < k < len(prompts):
            x = torch.cat([x[:1], prompts[k], x[1 + count :]])
        x = block(x, w, f"text/transformer/blocks_{k}", sizes.text_heads, True)
    end = ids.index(backbone.tokenizer.end) + count
    return norm(x[end], w, "text/ln_final") @ w["text/projection/kernel"]


def encode_image(w, backbone, image, prompts):
    """[cls | patches | prompts]: the first prompts pass ln_pre without a position; later ones replace them."""
    sizes, side = backbone.config, backbone.config.patch_size
    patches = image.unfold(0, side, side).unfold(1, side, side).permute(0, 1, 3, 4, 2).flatten(0, 1)  # [N, p, p, 3]
    patches = patches.flatten(1) @ w["image/patch/kernel"].flatten(0, 2)
    x = torch.cat([w["image/cls"][None], patches]) + w["image/position"]
    plain = len(x)
    x = norm(torch.cat([x, *prompts[:1]]), w, "image/ln_pre")
    for k in range(sizes.image_layers):
        if 0 < k < len(prompts):
            x = torch.cat([x[:plain], prompts[k]])
        x = block(x, w, f"image/transformer/blocks_{k}", sizes.image_heads, False)
    return norm(x[0], w, "image/ln_post") @ w["image/projection/kernel"]


# --- the methods ------------------------------------------------------------------------------------------------------


def token_prompts(p):
    return {tower: list(p[f"{tower}/tokens"]) for tower in ("text", "image") if f"{tower}/tokens" in p}


def maple_prompts(p):
    """C_k, and V_k = Linear_k(C_k) for k = 1..J."""
    words = list(p["text/tokens"])
    maps = zip(words, p["linear/kernel"], p["linear/bias"], strict=True)
    return {"text": words, "image": [functional.linear(c, kernel.T, bias) for c, kernel, bias in maps]}


def mlp_prompts(p):
    prompts = {}
    for tower in ("text", "image"):
        biases = p.get(f"{tower}/bias", torch.zeros(len(p["source/tokens"]), 1))
        maps = zip(p["source/tokens"], p[f"{tower}/kernel"], biases, strict=True)
        prompts[tower] = [source @ kernel + bias for source, kernel, bias in maps]
    return prompts


def adapt(p, tower, feature, ratio):
    """ratio ReLU(W2 ReLU(W1 f)) + (1 - ratio) f."""
    if f"{tower}/down/kernel" not in p:
        return feature
    hidden = torch.relu(feature @ p[f"{tower}/down/kernel"] + p.get(f"{tower}/down/bias", 0))
    return ratio * torch.relu(hidden @ p[f"{tower}/up/kernel"] + p.get(f"{tower}/up/bias", 0)) + (1 - ratio) * feature


PROMPTS = {"tokens": token_prompts, "maple": maple_prompts, "mlp": mlp_prompts, "adapter": lambda p: {}}


def reference(case, problem, backbone, batch, classes):
    """Return the logits (a list of [C_t]), the loss, and the gradient of every parameter of the method by its path."""
    method, sharing = CASES[case]
    double = lambda leaf: torch.tensor(np.asarray(leaf, np.float64))  # noqa: E731
    w = {path: double(leaf) for path, leaf in tree.flatten(backbone.params).items()}
    leaves = {path: double(leaf).requires_grad_() for path, leaf in tree.flatten(problem.params["method"]).items()}
    logits, loss = [], 0
    for image, label, task, weight in zip(*(batch[key] for key in ("image", "label", "task", "weight")), strict=True):
        p = {path: leaf[SLOTS[sharing[path.split("/")[0]]][task]] for path, leaf in leaves.items()}
        prompts, ratio = PROMPTS[method["name"]](p), method.get("ratio", 0.2)
        texts = [encode_text(w, backbone, name, prompts.get("text", [])) for name in classes[task]]
        texts = torch.stack([adapt(p, "text", text, ratio) for text in texts])
        feature = adapt(p, "image", encode_image(w, backbone, double(image), prompts.get("image", [])), ratio)
        logits.append(w["logit_scale"].exp() * functional.cosine_similarity(texts, feature[None]))
        loss = loss + float(weight) * functional.cross_entropy(logits[-1], torch.tensor(int(label)))
    loss.backward()
    return [row.detach().numpy() for row in logits], loss.item(), {path: leaf.grad for path, leaf in leaves.items()}


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    """Keep torch's threads from waiting for each other: the reference's products are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_are_those_of_the_reference(case, build, backbone, suite, batch):
    problem = build(*CASES[case])

    def everything(params, frozen, batch):
        per_task, collapse = jax.vjp(problem.expand, params)
        (loss, _), grads = jax.value_and_grad(problem.loss, has_aux=True)(per_task, frozen, batch, None)
        return loss, collapse(grads)[0]["method"], problem.predict(problem.prepare(per_task, frozen), frozen, batch)

    loss, grads, logits = jax.jit(everything, compiler_options=FAST)(problem.params, problem.frozen, batch)
    names = [task.class_names for task in suite.tasks]
    expected_logits, expected_loss, expected_grads = reference(case, problem, backbone, batch, names)
    for row, expected in zip(np.asarray(logits), expected_logits, strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)
    largest = max(grad.abs().max().item() for grad in expected_grads.values())
    for path, ours in tree.flatten(grads).items():
        expected = expected_grads[path].numpy()
        assert np.abs(expected).max() > 0, path
        scale = max(np.abs(expected).max(), 1e-3 * largest)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-5 * scale, err_msg=path)
