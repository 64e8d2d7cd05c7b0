"""Pretraining of the small embedded CLIP on named icons: the corpus as a stream of batches, and the loss.

Five differences from Radford et al. 2021, stated in the model card:

- captions are shortened at random to one word or to the icon's concept;
- every text whose words all belong to an icon is a positive of that icon, and random concept names and words join
  every batch as further texts;
- the icons are undistorted and black on white at first, then more and more distorted, and in random colours;
- the image tower sees a random part of the patches for most of the schedule (FLIP, Li et al. 2023);
- in a share of the steps random tokens stand in the prompt slots of both towers ("prompt dropout"), so that the towers
  work with and without prompts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.problem import Batch, Problem, Sums
from jax_promptmtl.data.icons.plain import plain_batch
from jax_promptmtl.models.clip.model import CLIP, ClipConfig, normalize, score
from jax_promptmtl.models.clip.tokenizer import Tokenizer

Array = jax.Array
PyTree = Any
MAX_SCALE = np.log(100.0)  # as in Radford et al. 2021


@dataclass(frozen=True)
class View:
    """How the batch of one step is sampled.

    Attributes:
      size: images B.
      seed: of the stream.
      printed: share of the images in black on white.
      warp: strength of the distortions of the images, 0 to 1.
      cluttered: share of the images with patchy colours, rims, uneven light, blur and noise.
      patches: number of patches of an image.
      keep: share of the patches that the image tower sees, drawn per image.
      slot: prompt tokens per layer in a prompted step.
      prompted: share of the prompted steps.
    """

    size: int
    seed: int
    printed: float
    warp: float
    cluttered: float
    patches: int
    keep: float
    slot: int
    prompted: float


class Captions:
    """Batches of named icons and texts, as a pure function of (seed, step).

    Args:
      masks: uint8[I, 64, 64], 255 = ink.
      words: the words of each icon's name, in order.
      concepts: the concept of each icon, or None.
      tokenizer: text to ids.
      length: ids in a row of text; a longer name loses its last words.
      extra: numbers of random concept names and of random words that join every batch as texts.
      labels: concept names to use, such as those of another corpus; all that occur if None.
    """

    def __init__(
        self,
        masks: np.ndarray,
        words: Sequence[Sequence[str]],
        concepts: Sequence[str | None],
        tokenizer: Tokenizer,
        length: int,
        extra: tuple[int, int],
        labels: Sequence[str] | None = None,
    ):
        self.labels = tuple(sorted({concept for concept in concepts if concept}) if labels is None else labels)
        concepts = [concept if concept in self.labels else None for concept in concepts]
        self.masks, self.words, self.concepts = masks, words, concepts
        self.tokenizer, self.length, self.extra = tokenizer, length, extra
        names = [{*row, *(concept or "").split()} for row, concept in zip(words, concepts, strict=True)]
        self.vocabulary = sorted(set().union(*names))
        self.column = {word: i for i, word in enumerate(self.vocabulary)}
        self.belongs = np.zeros((len(names), len(self.vocabulary)), bool)
        for row, name in zip(self.belongs, names, strict=True):
            row[[self.column[word] for word in name]] = True
        named = [icon for icon, concept in enumerate(concepts) if concept]
        self.epoch = np.array([*range(len(masks)), *named])  # an icon with a concept is listed twice
        root = np.sqrt(self.belongs.sum(axis=0))  # frequent words are downsampled
        self.chance = root / root.sum()

    def positives(self, icons: np.ndarray, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Return bool[len(icons), len(texts)], true where all words of the text belong to the icon."""
        rows = self.belongs[icons]
        return np.stack([rows[:, [self.column[word] for word in text]].all(axis=1) for text in texts], axis=1)

    def caption(self, icon: int, rng: np.random.Generator) -> list[str]:
        """Return the words of one caption: the whole name (40 %), the concept (30 %) or one word (the rest)."""
        draw, words, concept = rng.random(), self.words[icon], self.concepts[icon]
        if draw < 0.4:
            return list(words)
        if draw < 0.7 and concept:
            return concept.split()
        return [words[int(rng.integers(len(words)))]]

    def tokenize(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[Sequence[str]]]:
        """Return ids int32[len(texts), length] and the texts, truncated to whole words that fit."""
        kept = []
        for text in texts:
            while len(text) > 1 and len(self.tokenizer.encode(" ".join(text))) > self.length - 2:
                text = text[:-1]
            kept.append(text)
        return self.tokenizer.tokenize([" ".join(text) for text in kept], self.length), kept

    def batch(self, step: int, view: View) -> dict[str, np.ndarray]:
        """Return the batch of a step, counted from 0.

        Returns:
          image float32[B, 48, 48, 3] in [-1, 1]; keep int32[B, n], the patches to see; tokens int32[M, slot + N], the B
          captions first; slot int32[B, P], whose second axis is the number of placeholders in `tokens` (0 in a step
          without prompts: shapes alone choose the program); positive bool[B, M]; label, task, weight as everywhere.
        """
        rng = np.random.default_rng([view.seed, step])
        icons = self.icons(step, view.size, view.seed)
        texts: list[Sequence[str]] = [self.caption(icon, rng) for icon in icons]
        names, others = self.extra
        labels = rng.choice(len(self.labels), min(names, len(self.labels)), replace=False)
        texts += [self.labels[label].split() for label in labels]
        words = rng.choice(len(self.vocabulary), others, replace=False, p=self.chance)
        texts += [[self.vocabulary[word]] for word in words]
        tokens, texts = self.tokenize(texts)
        width = view.slot if rng.random() < view.prompted else 0
        seen = np.argsort(rng.random((view.size, view.patches)), axis=1)[:, : round(view.keep * view.patches)]
        pixels = plain_batch(self.masks[icons], rng, view.printed, view.warp, view.cluttered)
        return {
            "image": pixels.astype(np.float32) / 127.5 - 1,
            "keep": np.sort(seen, axis=1).astype(np.int32),
            "tokens": np.insert(tokens, [1] * width, 0, axis=1),
            "slot": np.zeros((view.size, width), np.int32),
            "positive": self.positives(icons, texts),
            "label": np.zeros(view.size, np.int32),
            "task": np.zeros(view.size, np.int32),
            "weight": np.full(view.size, 1 / view.size, np.float32),
        }

    def icons(self, step: int, size: int, seed: int) -> np.ndarray:
        """Return the icons of a step, int[size]; every epoch is a fresh permutation of `epoch`."""
        position = np.arange(step * size, (step + 1) * size)
        epochs = position // len(self.epoch)
        orders = {e: np.random.default_rng([seed, 1, e]).permutation(self.epoch) for e in np.unique(epochs)}
        return np.array([orders[e][p % len(self.epoch)] for e, p in zip(epochs, position, strict=True)])

    def batches(self, start: int, *, schedule: Callable[[int], View]) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches from step `start` on, indefinitely; `schedule` gives the view of a step."""
        while True:
            yield self.batch(start, schedule(start))
            start += 1

    def evaluation(self, size: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield one picture of every icon that has a concept; the label is the concept's position in `labels`."""
        icons = [i for i, concept in enumerate(self.concepts) if concept]
        for start in range(0, len(icons), size):
            chosen = icons[start : start + size]
            pixels = plain_batch(self.masks[chosen], np.random.default_rng([seed, start]))
            pad = size - len(chosen)
            yield {
                "image": np.pad(pixels.astype(np.float32) / 127.5 - 1, ((0, pad), (0, 0), (0, 0), (0, 0))),
                "label": np.array([self.labels.index(self.concepts[i]) for i in chosen] + [0] * pad, np.int32),
                "task": np.zeros(size, np.int32),
                "weight": np.array([1.0] * len(chosen) + [0.0] * pad, np.float32),
            }


def random_prompts(key: Array, config: ClipConfig, length: int) -> dict[str, dict[int, Array]]:
    """Draw prompts for every layer of both towers, with a random scale from 1e-4 to 1 per tower."""
    prompts: dict[str, dict[int, Array]] = {}
    for number, (tower, (layers, width)) in enumerate(sorted(config.towers.items())):
        normal, uniform = jax.random.split(jax.random.fold_in(key, number))
        tokens = 10 ** jax.random.uniform(uniform, minval=-4, maxval=0) * jax.random.normal(
            normal, (layers, length, width)
        )
        prompts[tower] = dict(enumerate(tokens))
    return prompts


def contrast(images: Array, texts: Array, positive: Array, logit_scale: Array) -> Array:
    """Return the contrastive loss of every image, with several positives.

    The target of an image is uniform over its positive texts, of all M; the target of a caption is uniform over the
    images that it is positive for. With one positive each this is the loss of CLIP.

    Args:
      images: float[B, E].
      texts: float[M, E], the captions of the images first.
      positive: bool[B, M]; every row and each of the first B columns has a true value.
      logit_scale: scalar, log.
    """
    logits = score(images, texts, jnp.minimum(logit_scale, MAX_SCALE))

    def cross_entropy(logits: Array, positive: Array) -> Array:
        target = positive / positive.sum(axis=1, keepdims=True)
        return -(target * jax.nn.log_softmax(logits, axis=1)).sum(axis=1)

    captions = slice(0, images.shape[0])
    image_loss = cross_entropy(logits, positive.astype(jnp.float32))
    text_loss = cross_entropy(logits[:, captions].T, positive[:, captions].T.astype(jnp.float32))
    return (image_loss + text_loss) / 2


def build(config: ClipConfig, params: Any, captions: Captions) -> Problem:
    """Build the pretraining problem: one task, all weights trainable.

    Args:
      config: sizes of the CLIP.
      params: initial weights.
      captions: the corpus; its concept names are the classes of `predict`.
    """
    model = CLIP(config)

    def loss(params: PyTree, frozen: PyTree, batch: Batch, rng: Array) -> tuple[Array, Sums]:
        variables, slot = {"params": params["backbone"]}, batch["slot"].shape[1]
        prompts = random_prompts(rng, config, slot) if slot else {"image": None, "text": None}
        images: Any = model.apply(
            variables, batch["image"], prompts["image"], keep=batch["keep"], method="encode_image"
        )
        texts: Any = model.apply(variables, batch["tokens"], prompts["text"], slot=slot, method="encode_text")
        losses = contrast(images, texts, batch["positive"], params["backbone"]["logit_scale"])
        best = jnp.argmax(normalize(images) @ normalize(texts).T, axis=1)
        correct = jnp.take_along_axis(batch["positive"], best[:, None], axis=1).sum()
        sums = {"loss": losses.sum(), "correct": correct, "count": jnp.float32(losses.size)}
        return (batch["weight"] * losses).sum(), {name: value[None].astype(jnp.float32) for name, value in sums.items()}

    def prepare(params: PyTree, frozen: PyTree) -> dict[str, Any]:
        names = captions.tokenize([label.split() for label in captions.labels])[0]
        texts = model.apply({"params": params["backbone"]}, jnp.asarray(names), method="encode_text")
        return {"classes": texts, "params": params["backbone"]}

    def predict(prepared: dict[str, Any], frozen: PyTree, batch: Batch) -> Array:
        features: Any = model.apply({"params": prepared["params"]}, batch["image"], method="encode_image")
        return score(features, prepared["classes"], prepared["params"]["logit_scale"])

    full = {"backbone": params}
    mask = tree.mask_from_patterns(full, [".*"])
    chosen, frozen = tree.partition(full, mask)
    about = {"backbone": {"name": "random", "sha256": ""}, "classes": list(captions.labels)}
    return Problem(("icons",), chosen, frozen, mask, lambda tree: tree, loss, prepare, predict, about)
