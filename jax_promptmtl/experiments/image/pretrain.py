"""The pretraining job: learn a byte-pair vocabulary and a small CLIP from named icons, and save them as a HF folder."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.icons import icon_corpus
from jax_promptmtl.engine import loop
from jax_promptmtl.models.clip import convert, pixels
from jax_promptmtl.models.clip.model import CLIP, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer, learn_merges
from jax_promptmtl.problems import contrastive

PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3}  # the towers see [-1, 1]


def read_corpus(config: Any, seed: int) -> tuple[contrastive.Captions, contrastive.Captions]:
    """Return the captions to train on and those of the held-out icons, which share tokenizer and concepts."""
    masks, words, concepts, _ = icon_corpus.corpus()
    tokenizer = Tokenizer(learn_merges([" ".join(row) for row in words], config.merges))
    words = [[word for word in row if len(tokenizer.encode(word)) <= config.length - 2] for row in words]
    named = np.array([bool(row) for row in words])  # a few brands are too long to spell
    held = np.random.default_rng(seed).random(len(masks)) < config.held_out

    def part(chosen: np.ndarray, labels: tuple[str, ...] | None = None) -> contrastive.Captions:
        rows = masks[chosen], [words[i] for i in chosen], [concepts[i] for i in chosen]
        return contrastive.Captions(*rows, tokenizer, config.length, config.extra, labels)

    train = part(np.flatnonzero(named & ~held))
    return train, part(np.flatnonzero(named & held), train.labels)


def view(config: Any, patches: int, step: int) -> contrastive.View:
    """Return how to draw the batch of a step: easy pictures first, then distorted and coloured; all patches last."""
    done = step / config.train.steps
    return contrastive.View(
        size=config.batch_size,
        seed=config.seed,
        printed=float(np.interp(done, config.colour_ramp, (1, 1 - config.colour))),
        warp=float(np.interp(done, config.warp_ramp, (0, config.warp))),
        cluttered=config.cluttered,
        patches=patches,
        keep=1.0 if done >= 1 - config.whole_share else config.keep,
        slot=config.slot,
        prompted=config.prompted,
    )


def run(config: Any, workdir: pathlib.Path, *, dry_run: bool) -> None:
    """Pretrain and write `<workdir>/clip`: model.safetensors (float16), config.json, vocabulary, preprocessing.

    With `dry_run`, only say what would be trained.
    """
    train, held = read_corpus(config.corpus, config.seed)
    sizes = ClipConfig(vocab_size=train.tokenizer.vocab_size, **config.clip)
    params = initial(sizes, config.start, config.seed)
    print(
        f"{len(train.masks):,} icons, {len(held.masks):,} held out, {len(train.vocabulary):,} words, "
        f"{len(train.labels)} concepts, {tree.count(params):,} parameters"
    )
    if dry_run:
        return
    patches = (sizes.image_size // sizes.patch_size) ** 2
    result = loop.train(
        contrastive.build(sizes, params, train),
        lambda start: train.batches(start, schedule=lambda step: view(config, patches, step)),
        config.train.to_dict() | {"seed": config.seed},
        workdir,
        name="pretrain",
        hooks=loop.Hooks(evaluation=lambda: held.evaluation(config.batch_size, config.seed)),
    )
    save(workdir / "clip", sizes, result.params["backbone"], train.tokenizer)
    print(f"Saved {workdir / 'clip'} after {result.seconds / 60:.0f} minutes.")


def initial(sizes: ClipConfig, start: str, seed: int) -> Any:
    """Return the weights to start from: those of a folder of the same sizes, or random ones."""
    if not start:
        shapes = (1, sizes.image_size, sizes.image_size, 3), (1, sizes.context_length)
        inputs = jnp.zeros(shapes[0]), jnp.zeros(shapes[1], jnp.int32)
        return jax.jit(CLIP(sizes).init)(jax.random.key(seed), *inputs)["params"]
    found, params, _ = convert.load(pathlib.Path(start), None)
    if found != sizes:
        raise UserError(f"The weights of config.start {start!r} have the sizes {found}, not {sizes} of config.clip.")
    return jax.tree.map(jnp.asarray, params)


def save(folder: pathlib.Path, sizes: ClipConfig, params: Any, tokenizer: Tokenizer) -> None:
    """Write the weights in float16 and the tokenizer as transformers reads them, and the pixels as open_clip does."""
    convert.save(folder, sizes, jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params))
    tokenizer.save(folder)
    content = {"preprocess_cfg": {"size": sizes.image_size} | PIXELS}
    (folder / pixels.OPEN_CLIP_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
