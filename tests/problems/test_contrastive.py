"""The contrastive loss against closed forms, and the stream of captioned icons against brute force over word sets."""

import itertools

import jax
import numpy as np
import pytest

from jax_promptmtl.models.clip import convert
from jax_promptmtl.models.clip.model import CLIP, ClipConfig
from jax_promptmtl.models.clip.tokenizer import Tokenizer
from jax_promptmtl.problems import contrastive
from jax_promptmtl.problems.contrastive import MAX_SCALE, Captions, View, build, random_prompts

WORDS = [["red", "cat"], ["cat", "outline"], ["dog"], ["hot", "dog"], ["car"], ["car", "wash", "centre"]]
CONCEPTS = ["cat", "cat", "dog", None, "racing car", None]
OPTIONS = dict(size=4, seed=3, printed=0.2, warp=1.0, cluttered=0.3, patches=9, keep=0.5, slot=2, prompted=0.5)


@pytest.fixture(scope="module")
def captions():
    masks = np.random.default_rng(0).integers(0, 256, (len(WORDS), 64, 64)).astype(np.uint8)
    return Captions(masks, WORDS, CONCEPTS, Tokenizer([]), length=13, extra=(2, 3))


contrast = jax.jit(contrastive.contrast)


def features(images, texts, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, 5)).astype(np.float32), rng.normal(size=(texts, 5)).astype(np.float32)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def cosines(images, texts):
    images, texts = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    return images @ texts.T


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_with_one_positive_each_it_is_the_loss_of_clip():
    images, texts = features(4, 4)
    logits = np.exp(1.5) * cosines(images, texts)
    labels = np.arange(4)
    clip = -(log_softmax(logits)[labels, labels] + log_softmax(logits.T)[labels, labels]) / 2
    np.testing.assert_allclose(contrast(images, texts, np.eye(4, dtype=bool), 1.5), clip, rtol=1e-5)


def test_several_positives_and_further_texts_by_brute_force():
    images, texts = features(4, 7, seed=1)
    positive = np.random.default_rng(2).random((4, 7)) < 0.4
    positive[np.arange(4), np.arange(4)] = True
    logits = np.exp(1.5) * cosines(images, texts)
    expected = []
    for b in range(4):
        mine = np.flatnonzero(positive[b])
        to_texts = np.mean([-log_softmax(logits[b])[m] for m in mine])  # of all seven
        holders = np.flatnonzero(positive[:, b])
        to_images = np.mean([-log_softmax(logits[:, b])[i] for i in holders])
        expected.append((to_texts + to_images) / 2)
    assert positive.sum() > 4
    np.testing.assert_allclose(contrast(images, texts, positive, 1.5), expected, rtol=1e-5)


def test_the_temperature_stops_at_100():
    images, texts = features(3, 3)
    at_most = contrast(images, texts, np.eye(3, dtype=bool), np.log(100))
    np.testing.assert_allclose(contrast(images, texts, np.eye(3, dtype=bool), 9.0), at_most, rtol=1e-6)
    assert np.isclose(MAX_SCALE, np.log(100))
    gradient = jax.jit(jax.grad(lambda scale: contrast(images, texts, np.eye(3, dtype=bool), scale).sum()))
    assert gradient(9.0) == 0 and abs(gradient(2.0)) > 1e-3


# --- the stream -------------------------------------------------------------------------------------------------------


def texts_of(captions, batch):
    """Read the texts back from the token rows; every word ends in a symbol of its own."""
    symbols = {i: symbol for symbol, i in captions.tokenizer.vocab.items()}
    drop = {0, captions.tokenizer.start, captions.tokenizer.end}
    rows = [[symbols[i] for i in row if i not in drop] for row in batch["tokens"]]
    return ["".join(row).replace("</w>", " ").split() for row in rows]


def test_positives_are_the_texts_whose_words_all_belong_to_the_icon(captions):
    seen = set()
    for step in range(6):
        batch = captions.batch(step, View(**OPTIONS))
        texts = texts_of(captions, batch)
        assert len(texts) == 4 + 2 + 3  # captions, random concepts, random words
        names, words = [" ".join(text) for text in texts[4:6]], {word for (word,) in texts[6:]}
        assert len(set(names)) == 2 and set(names) <= {"cat", "dog", "racing car"}
        assert len(words) == 3 and words <= {*itertools.chain(*WORDS), "racing"}
        for b, icon in enumerate(captions.icons(step, 4, OPTIONS["seed"])):
            owned = set(WORDS[icon]) | set((CONCEPTS[icon] or "").split())
            assert batch["positive"][b].tolist() == [set(text) <= owned for text in texts]
            assert batch["positive"][b, b]
            seen.add(tuple(texts[b]))
    # Captions are whole names, concepts, single words, and names without the words that did not fit.
    assert {("dog",), ("cat",)} <= seen and any(len(text) == 2 for text in seen)


def test_a_caption_that_does_not_fit_loses_its_last_words(captions):
    rows, kept = captions.tokenize([["car", "wash", "centre"], ["cat"]])
    assert kept == [["car", "wash"], ["cat"]]
    assert rows.shape == (2, 13)
    assert rows[0].tolist() == captions.tokenizer.tokenize(["car wash"], 13)[0].tolist()


def test_captions_are_drawn_at_the_documented_rates(captions):
    rng = np.random.default_rng(0)
    draws = [tuple(captions.caption(0, rng)) for _ in range(4000)]
    share = {text: draws.count(text) / len(draws) for text in set(draws)}
    assert set(share) == {("red", "cat"), ("cat",), ("red",)}
    expected = {("red", "cat"): 0.4, ("cat",): 0.3 + 0.15, ("red",): 0.15}
    assert all(abs(share[text] - rate) < 0.03 for text, rate in expected.items())
    draws = [tuple(captions.caption(3, rng)) for _ in range(4000)]  # without a concept: more single words
    assert abs(draws.count(("hot", "dog")) / 4000 - 0.4) < 0.03
    assert abs(draws.count(("hot",)) / 4000 - 0.3) < 0.03


def test_shapes_and_ranges(captions):
    widths = set()
    for step in range(8):
        batch = captions.batch(step, View(**OPTIONS))
        width = batch["slot"].shape[1]
        widths.add(width)
        assert batch["image"].shape == (4, 48, 48, 3) and batch["image"].dtype == np.float32
        assert -1 <= batch["image"].min() < batch["image"].max() <= 1
        assert batch["tokens"].shape == (9, 13 + width)
        assert np.all(batch["tokens"][:, 0] == captions.tokenizer.start)
        assert not batch["tokens"][:, 1 : 1 + width].any()
        assert batch["keep"].shape == (4, 4)  # round(0.5 * 9)
        assert all(len(set(row)) == 4 and sorted(row) == list(row) for row in batch["keep"])
        assert batch["keep"].min() >= 0 and batch["keep"].max() < 9
        np.testing.assert_allclose(batch["weight"].sum(), 1)
    assert widths == {0, 2}  # with and without prompts
    assert captions.batch(0, View(**OPTIONS | dict(keep=1.0)))["keep"].tolist() == [list(range(9))] * 4
    for prompted, width in ((0.0, 0), (1.0, 2)):
        assert captions.batch(0, View(**OPTIONS | dict(prompted=prompted)))["slot"].shape == (4, width)


def test_printed_icons_have_no_colour(captions):
    printed = captions.batch(0, View(**OPTIONS | dict(printed=1.0)))["image"]
    assert np.all(printed == printed[..., :1]) and printed.max() == 1
    coloured = captions.batch(0, View(**OPTIONS | dict(printed=0.0)))["image"]
    assert not np.all(coloured == coloured[..., :1])


def test_batches_are_a_pure_function_of_seed_and_step(captions):
    stream = captions.batches(0, schedule=lambda step: View(**OPTIONS))
    first = [next(stream) for _ in range(4)]
    resumed = next(captions.batches(3, schedule=lambda step: View(**OPTIONS)))
    for key, value in first[3].items():
        np.testing.assert_array_equal(resumed[key], value)
    other = captions.batch(3, View(**OPTIONS | dict(seed=4)))
    assert not np.array_equal(other["image"], first[3]["image"])
    assert not np.array_equal(first[2]["image"], first[3]["image"])


def test_the_schedule_is_asked_for_every_step(captions):
    stream = captions.batches(5, schedule=lambda step: View(**OPTIONS | dict(size=step)))
    assert [len(next(stream)["label"]) for _ in range(2)] == [5, 6]


def test_an_epoch_has_every_icon_once_and_those_with_a_concept_twice(captions):
    expected = sorted([0, 1, 2, 3, 4, 5, 0, 1, 2, 4])
    order = np.concatenate([captions.icons(step, 4, 0) for step in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == expected
    assert order[:10].tolist() != order[10:].tolist()


def test_evaluation_shows_every_icon_with_a_concept_once(captions):
    batches = list(captions.evaluation(3, seed=0))
    label = np.concatenate([batch["label"] for batch in batches])
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert captions.labels == ("cat", "dog", "racing car")
    assert weight.tolist() == [1, 1, 1, 1, 0, 0] and label[:4].tolist() == [0, 0, 1, 2]
    assert {batch["image"].shape for batch in batches} == {(3, 48, 48, 3)}


def test_held_out_icons_take_over_the_labels(captions):
    rows = captions.masks[:2], [["bus"], ["cat"]], ["bus", "cat"]
    held = Captions(*rows, Tokenizer([]), length=13, extra=(1, 1), labels=captions.labels)
    assert held.labels == captions.labels
    assert [batch["label"].tolist() for batch in held.evaluation(1, seed=0)] == [[0]]


# --- the problem ------------------------------------------------------------------------------------------------------


def test_random_prompts_fill_every_layer_at_a_scale_of_its_own_per_tower():
    config = ClipConfig(4, 48, 16, 12, 2, 1, 15, 514, 8, 3, 1, "gelu")
    stds = {"text": [], "image": []}
    draw = jax.jit(lambda key: random_prompts(key, config, 40))
    for number in range(30):
        prompts = jax.device_get(draw(jax.random.key(number)))
        assert {tower: sorted(layers) for tower, layers in prompts.items()} == {"text": [0, 1, 2], "image": [0, 1]}
        for tower, width in (("text", 8), ("image", 12)):
            assert {layer.shape for layer in prompts[tower].values()} == {(40, width)}
            spread = [float(layer.std()) for layer in prompts[tower].values()]
            assert max(spread) < 1.5 * min(spread)  # one scale for all layers of a tower
            stds[tower].append(np.mean(spread))
    for values in stds.values():
        assert 5e-5 < min(values) < 1e-3 < 0.1 < max(values) < 1.5
    assert np.corrcoef(np.log(stds["text"]), np.log(stds["image"]))[0, 1] < 0.6


@pytest.mark.parametrize("prompted", [0.0, 1.0])
def test_the_problems_loss_is_the_weighted_contrast_of_both_towers(captions, prompted):
    config = ClipConfig(4, 48, 16, 12, 1, 1, 15, captions.tokenizer.vocab_size, 8, 1, 1, "gelu")
    batch, model, key = captions.batch(0, View(**OPTIONS | dict(prompted=prompted))), CLIP(config), jax.random.key(5)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), convert.shapes(config))
    problem, slot = build(config, params, captions), batch["slot"].shape[1]

    @jax.jit
    def run(params):
        variables = {"params": params["backbone"]}
        prompts = random_prompts(key, config, slot) if slot else {"image": None, "text": None}
        images = model.apply(variables, batch["image"], prompts["image"], keep=batch["keep"], method="encode_image")
        texts = model.apply(variables, batch["tokens"], prompts["text"], slot=slot, method="encode_text")
        return problem.loss(params, problem.frozen, batch, key), images, texts

    (loss, sums), images, texts = run(problem.params)
    each = contrast(images, texts, batch["positive"], params["logit_scale"])
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    best = cosines(np.asarray(images), np.asarray(texts)).argmax(axis=1)
    assert sums["correct"] == batch["positive"][np.arange(4), best].sum()
    assert sums["count"] == 4 and np.isclose(sums["loss"][0], np.sum(each))
