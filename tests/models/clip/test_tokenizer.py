"""The tokenizer against OpenAI's ids, against Hugging Face's independent implementation, and against brute force."""

import gzip
import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from transformers import CLIPTokenizerFast

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.clip import tokenizer
from jax_promptmtl.models.clip.tokenizer import Tokenizer, learn_merges, read_merges, save_merges

# What clip/simple_tokenizer.py of openai/CLIP returns for these, without start and end.
OPENAI_IDS = {
    "a photo of a bed.": [320, 1125, 539, 320, 2722, 269],
    "postit notes": [3489, 585, 5795],
    "The Great Wall of China": [518, 830, 2569, 539, 2817],
    "The_Eiffel_Tower": [518, 318, 29720, 318, 4730],
    "Fish &amp; chips &amp;lt;3": [2759, 261, 8855, 283, 274],
    "It's 2024: they're 'here'!!!": [585, 568, 273, 271, 273, 275, 281, 889, 982, 262, 763, 6, 995],
    "café naïve 你好 😀\u200d": [15304, 1097, 35689, 563, 47466, 254, 29290, 377, 12832, 728, 491],
    "  many\tspaces\n ": [1346, 9006],
    "": [],
    "schÃ¶n": [844, 7255, 333],
    "<|endoftext|> x": [49407, 343],
    "supercalifragilisticexpialidocious": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466],
    "don'T": [847, 713],
}
CORPUS = [
    "the cat sat on the mat",
    "a cat and a hat",
    "that rat ate the oats",
    "low lower lowest newer newest",
    "aaaaaa aa",
]


@pytest.fixture(scope="module")
def clip_tokenizer():
    return tokenizer.load()


@pytest.mark.parametrize("text", OPENAI_IDS)
def test_encode_equals_openai(clip_tokenizer, text):
    assert clip_tokenizer.encode(text) == OPENAI_IDS[text]


def test_shipped_vocabulary_is_clips(clip_tokenizer):
    assert (clip_tokenizer.vocab_size, clip_tokenizer.start, clip_tokenizer.end) == (49408, 49406, 49407)
    assert sorted(clip_tokenizer.vocab.values()) == list(range(49408))


def test_encode_equals_hugging_face_on_random_text(clip_tokenizer, tmp_path):
    clip_tokenizer.save(tmp_path)
    reference = CLIPTokenizerFast.from_pretrained(tmp_path)
    rng = random.Random(0)
    words = [symbol.removesuffix("</w>") for symbol in clip_tokenizer.vocab if symbol.isascii() and symbol.isalpha()]
    for _ in range(300):
        joined = [
            rng.choice(words) + rng.choice(["", "", "s", "ing", str(rng.randrange(100)), ".", "'s", "-"])
            for _ in range(6)
        ]
        text = rng.choice([" ", "_", ""]).join(joined).title()
        assert clip_tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"], text


def test_hugging_face_reads_a_learnt_vocabulary(tmp_path):
    ours = Tokenizer(learn_merges(CORPUS, 30))
    ours.save(tmp_path)
    reference = CLIPTokenizerFast.from_pretrained(tmp_path)
    for text in [*CORPUS, "an unseen word, 42!"]:
        assert [ours.start, *ours.encode(text), ours.end] == reference(text)["input_ids"]
    assert Tokenizer.from_path(tmp_path).merges == ours.merges
    reference.save_pretrained(tmp_path / "fast")
    assert (tmp_path / "fast" / "tokenizer.json").exists()
    assert Tokenizer.from_path(tmp_path / "fast").encode(CORPUS[0]) == ours.encode(CORPUS[0])


def test_tokenize_pads_with_zeros_and_refuses_long_text(clip_tokenizer):
    tokens = clip_tokenizer.tokenize(["a photo of a bed.", "bed"], 9)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [
        [49406, 320, 1125, 539, 320, 2722, 269, 49407, 0],
        [49406, 2722, 49407, 0, 0, 0, 0, 0, 0],
    ]
    assert clip_tokenizer.tokenize(["a photo of a bed."], 8)[0, -1] == 49407
    with pytest.raises(UserError, match=r"'a photo of a bed\.' has 8 tokens; at most 7"):
        clip_tokenizer.tokenize(["a photo of a bed."], 7)


def slow_merges(texts, num_merges):
    """Recount every pair in the whole corpus before each merge."""
    words = [(tokenizer.spell(word), n) for word, n in Counter(w for t in texts for w in t.split()).items()]
    merges = []
    for _ in range(num_merges):
        pairs = Counter()
        for symbols, n in words:
            for pair in pairwise(symbols):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pair for pair in pairs if pairs[pair] == max(pairs.values()))
        merges.append(best)
        for symbols, _ in words:
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = ["".join(best)]
                i += 1
    return merges


@pytest.mark.parametrize("num_merges", [1, 12, 1000])
def test_learn_merges_equals_recounting(num_merges):
    rng = random.Random(1)
    texts = CORPUS + [" ".join("".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(20)) for _ in range(10)]
    expected = slow_merges(texts, num_merges)
    assert learn_merges(texts, num_merges) == expected
    assert learn_merges(texts[::-1], num_merges) == expected
    assert len(expected) == num_merges or num_merges == 1000


@pytest.mark.parametrize("name", ["m.txt", "m.txt.gz"])
def test_merges_survive_a_file_and_the_bytes_repeat(tmp_path, name):
    merges = learn_merges(CORPUS, 20)
    save_merges(tmp_path / name, merges)
    first = (tmp_path / name).read_bytes()
    save_merges(tmp_path / name, merges)
    assert (tmp_path / name).read_bytes() == first
    assert read_merges(tmp_path / name) == merges
    assert (first[:2] == b"\x1f\x8b") == name.endswith("gz")


def test_only_clips_share_of_the_openai_file_is_read(tmp_path):
    pairs = [f"{a} {b}" for a in map(chr, range(200, 500)) for b in map(chr, range(200, 500))]
    (tmp_path / tokenizer.OPENAI_FILE).write_bytes(gzip.compress("\n".join(['"x#version: 0.2', *pairs]).encode()))
    assert Tokenizer.from_path(tmp_path / tokenizer.OPENAI_FILE).vocab_size == 49408
    assert Tokenizer.from_path(tmp_path).vocab_size == 49408


def test_find_order(tmp_path, monkeypatch):
    monkeypatch.delenv(tokenizer.ENV, raising=False)
    weights = tmp_path / "model.safetensors"
    weights.touch()
    assert tokenizer.find(weights=weights) == tokenizer.SHIPPED
    (tmp_path / tokenizer.OPENAI_FILE).touch()
    assert tokenizer.find(weights=weights) == tmp_path / tokenizer.OPENAI_FILE
    Tokenizer([]).save(tmp_path)
    assert tokenizer.find(weights=weights) == tokenizer.find(weights=tmp_path) == tmp_path
    monkeypatch.setenv(tokenizer.ENV, "/from/env")
    assert str(tokenizer.find(weights=weights)) == "/from/env"
    assert str(tokenizer.find("/explicit", weights=weights)) == "/explicit"


def test_bad_tokenizers_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="No tokenizer at"):
        Tokenizer.from_path(tmp_path / "missing.txt")
    (tmp_path / "words.txt").write_text("three words here\n")
    with pytest.raises(UserError, match="is not a pair"):
        Tokenizer.from_path(tmp_path / "words.txt")
    (tmp_path / "cut.txt.gz").write_bytes(tokenizer.SHIPPED.read_bytes()[:1000])
    with pytest.raises(UserError, match="Cannot read the merges file"):
        Tokenizer.from_path(tmp_path / "cut.txt.gz")
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    save_merges(tmp_path / "merges.txt", [("a", "b")])
    with pytest.raises(UserError, match="not CLIP's byte-pair encoding"):
        Tokenizer.from_path(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        Tokenizer.from_path(tmp_path)
    with pytest.raises(UserError, match="49408 ids but the weights have 1024"):
        tokenizer.load(vocab_size=1024)
