"""The peers of the benchmark: the same methods in PyTorch on Hugging Face's CLIP, as in public codebases.

All text positions, every class in every step, prompts through full blocks, tasks sequentially with a backward pass
each (which needs the least memory). Written from the papers and their released code: KaiyangZhou/CoOp,
muzairkhattak/multimodal-prompt-learning. `mode` swaps the kernels: stock, onednn, compile, compile+onednn.
"""

import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    import torch  # type: ignore[import-not-found,unused-ignore]
    from safetensors.torch import load_file
    from torch.nn import functional as F  # type: ignore[import-not-found,unused-ignore]
    from transformers import CLIPConfig, CLIPModel  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError:  # the extra `bench`; `bench.main` asks for it
    torch = None  # type: ignore[assignment,unused-ignore]

Prompts = dict[str, dict[int, Any]]


def load_clip(path: pathlib.Path, sizes: Mapping[str, Any], attention: str = "sdpa") -> Any:
    """Return transformers' CLIP with the weights of a file, frozen.

    Args:
      path: a safetensors file with the names of `CLIPModel`.
      sizes: the fields of `ClipConfig`.
      attention: transformers' implementation, `sdpa` (its default) or `eager`.
    """
    towers = {
        f"{theirs}_config": {
            "hidden_size": sizes[f"{ours}_width"],
            "intermediate_size": 4 * sizes[f"{ours}_width"],
            "num_hidden_layers": sizes[f"{ours}_layers"],
            "num_attention_heads": sizes[f"{ours}_heads"],
            "hidden_act": sizes["activation"],
        }
        for ours, theirs in (("image", "vision"), ("text", "text"))
    }
    towers["vision_config"] |= {"image_size": sizes["image_size"], "patch_size": sizes["patch_size"]}
    towers["text_config"] |= {"vocab_size": sizes["vocab_size"], "max_position_embeddings": sizes["context_length"]}
    options: dict[str, Any] = towers | {"projection_dim": sizes["embed_dim"], "attn_implementation": attention}
    config = CLIPConfig(**options)
    with torch.device("meta"):
        clip = CLIPModel(config)
    clip.load_state_dict(load_file(path), assign=True)
    for tower in (clip.text_model, clip.vision_model):  # buffers that are not in the file
        tower.embeddings.position_ids = torch.arange(tower.embeddings.position_ids.shape[-1])[None]
    return clip.requires_grad_(False).eval()  # type: ignore[no-untyped-call,unused-ignore]


# --- kernels ----------------------------------------------------------------------------------------------------------


def use_all_cores() -> None:
    """Let torch use every core available to this process."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def set_mode(clip: Any, mode: str) -> None:
    """Swap the kernels of all blocks: oneDNN's matrix products for MKL's, torch.compile per block, or both."""
    use_all_cores()
    layers = [*clip.text_model.encoder.layers, *clip.vision_model.encoder.layers]
    if "onednn" in mode:
        product, pack = onednn_product(), torch.ops.mkldnn._reorder_linear_weight
        for module in (module for layer in layers for module in layer.modules()):
            if isinstance(module, torch.nn.Linear):  # the compiler does not support packed tensors
                use_onednn(module, product, pack if mode == "onednn" else torch.Tensor.contiguous)
    if "compile" in mode:
        torch._dynamo.config.recompile_limit = 64  # one code object serves every block, shape and tower
        for layer in layers:
            layer.compile(dynamic=False)


@functools.cache
def onednn_product() -> Any:
    """Return x @ weight.T + bias through oneDNN, differentiable in x; the weight is given in both orders."""

    @torch.library.custom_op("jax_promptmtl::linear", mutates_args=())  # opaque: the compiler wants constant weights
    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, turned: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.weight, ctx.turned = inputs[1], inputs[3]

    def backward(ctx: Any, grad: Any) -> Any:
        return linear(grad.contiguous(), ctx.turned, None, ctx.weight), None, None, None

    linear.register_fake(lambda x, weight, bias, turned: x.new_empty(*x.shape[:-1], weight.shape[0]))
    linear.register_autograd(backward, setup_context=save)
    return linear


def use_onednn(linear: Any, product: Any, pack: Any) -> None:
    """Let a frozen `nn.Linear` multiply through oneDNN, with weights laid out for it once."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    packed, turned = pack(weight), pack(weight.t().contiguous())
    linear.forward = lambda x: product(x, packed, bias, turned)


# --- prompts ----------------------------------------------------------------------------------------------------------


def tokens(params: Mapping[str, Any], recipe: Mapping[str, Any], task: int) -> Prompts:
    """Return free prompt tokens: CoOp's text prompts and VPT's deep image prompts."""
    return {tower: dict(enumerate(params[f"{tower}/tokens"][0])) for tower in recipe["method"]["length"]}


def maple(params: Mapping[str, Any], recipe: Mapping[str, Any], task: int) -> Prompts:
    """Return MaPLe's text prompts, and image prompts computed from them by a linear map per layer."""
    text = params["text/tokens"][0]
    kernel, bias = params["linear/kernel"][0], params["linear/bias"][0]
    image = {k: F.linear(text[k], kernel[k].t(), bias[k]) for k in range(len(text))}
    return {"text": dict(enumerate(text)), "image": image}


def mmap(params: Mapping[str, Any], recipe: Mapping[str, Any], task: int) -> Prompts:
    """Return MmAP's prompts of a task, group and task set side by side (eq. 6-10)."""
    group = next(g for g, members in enumerate(recipe["groups"]) if task in members)
    prompts: Prompts = {}
    for tower in ("text", "image"):
        sets = [
            [torch.kron(scale, source) for scale, source in zip(params[f"{name}/{tower}"][slot], sources, strict=True)]
            for name, slot in (("group", group), ("task", task))
            for sources in [params[f"{name}/source"][slot]]
        ]
        prompts[tower] = {k: torch.cat(pair) for k, pair in enumerate(zip(*sets, strict=True))}
    return prompts


PROMPTS = {"tokens": tokens, "maple": maple, "mmap": mmap}


# --- towers -----------------------------------------------------------------------------------------------------------


def encode_text(clip: Any, rows: Any, prompts: Mapping[int, Any], slot: int) -> Any:
    """Return the features of class texts, float[C, E]: the slot after the start token is replaced before its layers."""
    model = clip.text_model
    x = model.embeddings.token_embedding(rows)
    if 0 in prompts:
        x = torch.cat([x[:, :1], prompts[0].expand(len(x), -1, -1), x[:, 1 + slot :]], dim=1)
    x = x + model.embeddings.position_embedding.weight[: x.shape[1]]
    mask = None
    if clip.config.text_config._attn_implementation == "eager":
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)[None, None]
    for k, layer in enumerate(model.encoder.layers):
        if k > 0 and k in prompts:
            x = torch.cat([x[:, :1], prompts[k].expand(len(x), -1, -1), x[:, 1 + slot :]], dim=1)
        x = layer(x, mask, is_causal=True)
    x = model.final_layer_norm(x)
    return clip.text_projection(x[torch.arange(len(x)), rows.argmax(dim=-1)])


def encode_image(clip: Any, image: Any, prompts: Mapping[int, Any]) -> Any:
    """Return the features of images, float[B, E]: prompts are the last tokens, replaced before their layers."""
    model = clip.vision_model
    x = model.embeddings(image)
    if 0 in prompts:
        x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    x = model.pre_layrnorm(x)
    for k, layer in enumerate(model.encoder.layers):
        if k > 0 and k in prompts:
            x = torch.cat([x[:, : -prompts[k].shape[0]], prompts[k].expand(len(x), -1, -1)], dim=1)
        x = layer(x, None)
    return clip.visual_projection(model.post_layernorm(x[:, 0]))


class Peer:
    """One cell in torch.

    Args:
      folder: has cell.json, arrays.npz, params.npz and weights.safetensors.
      mode: the kernels.
      cut: truncate class texts after the last end-of-text token, which public codebases do not.
      attention: see `load_clip`.
    """

    def __init__(self, folder: pathlib.Path, mode: str = "stock", cut: bool = False, attention: str = "sdpa"):
        about = json.loads((folder / "cell.json").read_text())
        arrays = np.load(folder / "arrays.npz")
        self.cell, self.recipe, self.mode = about["cell"], about["recipe"], mode
        self.clip = load_clip(folder.parent / "weights.safetensors", about["sizes"], attention)
        set_mode(self.clip, mode)
        rows = torch.from_numpy(arrays["tokens"]).long()
        self.rows = rows[:, : int(rows.argmax(dim=-1).max()) + 1] if cut else rows
        self.batch = {key: torch.from_numpy(arrays[key]) for key in ("label", "task", "weight")}
        self.batch["label"] = self.batch["label"].long()
        self.batch["image"] = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2).contiguous()
        saved = np.load(folder / "params.npz")
        self.params = {name: torch.from_numpy(saved[name]).requires_grad_() for name in saved.files}
        options = about["optimizer"]
        self.optimizer = torch.optim.SGD(
            self.params.values(),
            lr=options["learning_rate"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
        )
        self.texts = None
        if self.cell["method"] == "vpt":  # frozen: encoded once
            self.texts = encode_text(self.clip, self.rows, {}, 0)

    def logits(self, task: int, images: Any, rows: Any) -> Any:
        """Return the logits of images of one task, float[B, C]."""
        prompts = PROMPTS[self.recipe["method"]["name"]](self.params, self.recipe, task)
        text = self.texts
        if text is None:
            text = encode_text(self.clip, rows, prompts.get("text", {}), self.recipe["slot"])
        image = encode_image(self.clip, images, prompts.get("image", {}))
        return self.clip.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).t()

    def backward(self, images_per_task: int | None = None, classes: int | None = None) -> float:
        """Accumulate gradients of the mean loss and return the loss; the limits allow a cheap rehearsal."""
        total = 0.0
        for task in torch.unique(self.batch["task"]).tolist():
            here = torch.nonzero(self.batch["task"] == task)[:images_per_task, 0]
            logits = self.logits(task, self.batch["image"][here], self.rows[:classes])
            losses = F.cross_entropy(logits, self.batch["label"][here] % logits.shape[1], reduction="none")
            loss = (losses * self.batch["weight"][here]).sum()
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            total += loss.item()
        return total

    def step(self) -> dict[str, Any]:
        """Take one training step."""
        self.optimizer.zero_grad()
        loss = self.backward()
        self.optimizer.step()
        return {"loss": loss}

    def evaluate(self) -> dict[str, Any]:
        """Predict the whole batch, encoding the class texts again, as for every batch of a test set."""
        with torch.inference_mode():
            logits = self.logits(int(self.batch["task"][0]), self.batch["image"], self.rows)
        return {"prediction": logits.argmax(dim=-1).tolist()}

    def rehearse(self) -> None:
        """Touch all code once: whole where shapes are compiled, else on one image per task and two classes."""
        if self.cell["kind"] == "evaluation":
            if "compile" in self.mode:
                self.evaluate()
            return
        self.backward(*(() if "compile" in self.mode else (1, 2)))
        self.optimizer.zero_grad()

    def run(self) -> dict[str, Any]:
        """Do what the cell measures, once."""
        return self.step() if self.cell["kind"] == "step" else self.evaluate()

    def finish(self) -> dict[str, Any]:
        """Return what else is to be known."""
        return {}


class Blocks:
    """One block of each tower, forward and backward, to find the fastest kernels.

    Args:
      folder: see `Peer`.
      mode: the kernels.
    """

    def __init__(self, folder: pathlib.Path, mode: str):
        about = json.loads((folder / "cell.json").read_text())
        sizes, cell = about["sizes"], about["cell"]
        self.clip = load_clip(folder.parent / "weights.safetensors", sizes)
        set_mode(self.clip, mode)
        count = 1 + (sizes["image_size"] // sizes["patch_size"]) ** 2
        text = torch.randn(cell["classes"], sizes["context_length"], sizes["text_width"], requires_grad=True)
        image = torch.randn(cell["batch"], count, sizes["image_width"], requires_grad=True)
        self.parts = [
            (self.clip.text_model.encoder.layers[0], text, {"is_causal": True}),
            (self.clip.vision_model.encoder.layers[0], image, {}),
        ]

    def run(self) -> dict[str, Any]:
        """Run both blocks."""
        for layer, x, options in self.parts:
            layer(x, None, **options).sum().backward()
        return {}

    def rehearse(self) -> None:
        """Touch all code once."""
        self.run()

    def finish(self) -> dict[str, Any]:
        """Return what else is to be known."""
        return {}


class Product:
    """A matrix product, for the machine's peak.

    Args:
      size: n, of n x n matrices.
      onednn: through oneDNN, not MKL.
    """

    def __init__(self, size: int, onednn: bool):
        use_all_cores()
        self.a, self.b, self.onednn = torch.randn(size, size), torch.randn(size, size), onednn

    def run(self) -> dict[str, Any]:
        """Multiply."""
        torch.ops.mkldnn._linear_pointwise(self.a, self.b, None, "none", [], "") if self.onednn else self.a @ self.b
        return {}

    def rehearse(self) -> None:
        """Touch all code once."""
        self.run()

    def finish(self) -> dict[str, Any]:
        """Return what else is to be known."""
        return {}
