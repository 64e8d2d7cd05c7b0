"""CLIP's byte-pair encoding in pure Python: cleaning, splitting, merging, and training of small vocabularies.

Follows openai/CLIP `clip/simple_tokenizer.py`. Ids: 256 byte symbols, the same 256 ending a word, one per merge, and
start and end of text.
"""

import functools
import gzip
import html
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import regex

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.files import ASSETS, read_json

START, END = "<|startoftext|>", "<|endoftext|>"
OPENAI_FILE = "bpe_simple_vocab_16e6.txt.gz"
ENV = "JAX_PROMPTMTL_BPE"
SHIPPED = ASSETS / "clip_bpe.txt.gz"  # of openai/CLIP (MIT), without the unused tail
MAX_MERGES = 48_894  # CLIP uses this many of the 262,144 merges in its file
LEGAL = f"a merges file such as {OPENAI_FILE}, or a folder with tokenizer.json or with vocab.json and merges.txt"
WORDS = regex.compile(
    rf"{regex.escape(START)}|{regex.escape(END)}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)

Merges = list[tuple[str, str]]


@functools.cache
def byte_symbols() -> dict[int, str]:
    """Return the printable character for each byte, in the order of ids (GPT-2's table).

    >>> byte_symbols()[ord("a")], byte_symbols()[ord(" ")], len(byte_symbols())
    ('a', 'Ġ', 256)
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def clean(text: str) -> str:
    """Fix mojibake, unescape HTML twice, collapse white space and lower-case.

    >>> clean("  Caf&amp;eacute;  AU lait ")
    'café au lait'
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def split(text: str) -> list[str]:
    """Return the cleaned text as words: letters, single digits, runs of punctuation.

    >>> split("The dog's 42 bones...")
    ['the', 'dog', "'s", '4', '2', 'bones', '...']
    """
    result: list[str] = WORDS.findall(clean(text))
    return result


def spell(word: str) -> list[str]:
    """Return a word as byte symbols, the last one marked as the end of the word.

    >>> spell("bed")
    ['b', 'e', 'd</w>']
    """
    symbols = [byte_symbols()[byte] for byte in word.encode("utf-8")]
    return [*symbols[:-1], symbols[-1] + "</w>"]


def join(symbols: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Replace each occurrence of the pair, from the left, by its concatenation.

    >>> join(["a", "b", "a", "b"], ("a", "b"))
    ['ab', 'ab']
    """
    out: list[str] = []
    i = 0
    while i < len(symbols):
        whole = tuple(symbols[i : i + 2]) == pair
        out.append(pair[0] + pair[1] if whole else symbols[i])
        i += 2 if whole else 1
    return out


class Tokenizer:
    """Text to ids, by the merges it is given.

    Attributes:
      merges: pairs of symbols, most important first.
      vocab: {symbol: id}; the end of text is the largest id, which is how CLIP's text tower finds it.

    >>> tiny = Tokenizer([("b", "e"), ("be", "d</w>")])
    >>> tiny.vocab_size, tiny.encode("bed") == [tiny.vocab["bed</w>"]]
    (516, True)
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self.merges = list(merges)
        symbols = list(byte_symbols().values())
        symbols += [symbol + "</w>" for symbol in symbols]
        symbols += ["".join(pair) for pair in self.merges] + [START, END]
        self.vocab = {symbol: i for i, symbol in enumerate(symbols)}
        self.vocab_size, self.start, self.end = len(symbols), len(symbols) - 2, len(symbols) - 1
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {START: [self.start], END: [self.end]}

    @classmethod
    def from_path(cls, path: str | Path) -> "Tokenizer":
        """Read a merges file (plain or gzip), or a folder with tokenizer.json or with vocab.json and merges.txt."""
        path = Path(path)
        if path.is_dir() and (path / "tokenizer.json").exists():
            return cls._from_model(read_json(path / "tokenizer.json").get("model", {}), path)
        if path.is_dir() and (path / "merges.txt").exists() and (path / "vocab.json").exists():
            tables = {"vocab": read_json(path / "vocab.json"), "merges": read_merges(path / "merges.txt")}
            return cls._from_model(tables, path)
        if path.is_dir() and (path / OPENAI_FILE).exists():
            path = path / OPENAI_FILE
        if not path.is_file():
            raise UserError(f"No tokenizer at {str(path)!r}; give {LEGAL}.")
        return cls(read_merges(path))

    @classmethod
    def _from_model(cls, model: dict[str, Any], path: Path) -> "Tokenizer":
        """Build from Hugging Face's tables and check that the ids are CLIP's."""
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", [])]
        tokenizer = cls(merges)
        if tokenizer.vocab != model.get("vocab"):
            raise UserError(f"The vocabulary in {str(path)!r} is not CLIP's byte-pair encoding; give {LEGAL}.")
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        return [i for word in split(text) for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        """Merge the best-ranked pair until none is left; remember the result."""
        if word not in self._known:
            symbols = spell(word)
            while len(symbols) > 1:
                best = min(pairwise(symbols), key=lambda p: self._rank.get(p, len(self._rank)))
                if best not in self._rank:
                    break
                symbols = join(symbols, best)
            self._known[word] = [self.vocab[symbol] for symbol in symbols]
        return self._known[word]

    def tokenize(self, texts: Sequence[str], length: int = 77) -> np.ndarray:
        """Return int32[len(texts), length]: start, text, end, then zeros.

        Raises:
          UserError: a text needs more than `length` tokens.
        """
        tokens = np.zeros((len(texts), length), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self.start, *self.encode(text), self.end]
            if len(ids) > length:
                raise UserError(f"The text {text!r} has {len(ids)} tokens; at most {length} fit: shorten it.")
            row[: len(ids)] = ids
        return tokens

    def words(self) -> dict[int, str]:
        """Return the symbols that end a word and are text by themselves, {id: text}.

        >>> tiny = Tokenizer([("b", "e"), ("be", "d</w>")])
        >>> tiny.words()[tiny.vocab["bed</w>"]], tiny.vocab["be"] in tiny.words()
        ('bed', False)
        """
        byte = {symbol: value for value, symbol in byte_symbols().items()}
        found = {}
        for symbol, number in self.vocab.items():
            if symbol.endswith("</w>"):
                text = bytes(byte[letter] for letter in symbol.removesuffix("</w>")).decode("utf-8", "replace")
                if text.isprintable() and "\ufffd" not in text:
                    found[number] = text
        return found

    def save(self, folder: str | Path) -> None:
        """Write vocab.json and merges.txt as `transformers.CLIPTokenizer` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self.vocab, ensure_ascii=False), "utf-8")
        save_merges(folder / "merges.txt", self.merges)


def find(path: str | Path | None = None, weights: str | Path | None = None) -> Path:
    """Locate the tokenizer: the given path, the environment variable, beside the weights, or CLIP's own.

    Args:
      path: what the user asked for, or None.
      weights: the folder or file of the weights, or None.
    """
    if path or os.environ.get(ENV):
        return Path(path or os.environ[ENV])
    if weights:
        folder = Path(weights) if Path(weights).is_dir() else Path(weights).parent
        if (folder / "tokenizer.json").exists() or (folder / "merges.txt").exists():
            return folder
        if (folder / OPENAI_FILE).exists():
            return folder / OPENAI_FILE
    return SHIPPED


def load(path: str | Path | None = None, weights: str | Path | None = None, vocab_size: int | None = None) -> Tokenizer:
    """Find and read the tokenizer, and check that it belongs to weights of that vocabulary size.

    >>> load(vocab_size=49408).encode("a photo of a bed.")
    [320, 1125, 539, 320, 2722, 269]
    """
    place = find(path, weights)
    tokenizer = Tokenizer.from_path(place)
    if vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"The tokenizer {str(place)!r} has {tokenizer.vocab_size} ids but the weights have {vocab_size}; "
            f"set {ENV} to the one they were trained with: {LEGAL}."
        )
    return tokenizer


def read_merges(path: str | Path) -> Merges:
    """Read a merges file: a header line with "#version", then a pair per line, of which CLIP uses the first 48,894."""
    try:
        data = Path(path).read_bytes()
        lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the merges file {str(path)!r} ({error}); give {LEGAL}.") from error
    lines = lines[1:] if "#version" in lines[0] else lines
    pairs = [line.split() for line in lines if line.strip()][:MAX_MERGES]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise UserError(f"{str(path)!r} is not a merges file: {' '.join(bad[0])[:40]!r} is not a pair; give {LEGAL}.")
    return [(first, second) for first, second in pairs]


def save_merges(path: str | Path, merges: Iterable[tuple[str, str]]) -> None:
    """Write a merges file that `read_merges` and Hugging Face read; the same merges give the same bytes."""
    text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    data = text.encode("utf-8")
    Path(path).write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def learn_merges(texts: Iterable[str], num_merges: int) -> Merges:
    """Learn byte-pair merges (Sennrich et al. 2016): join the most frequent pair, again and again.

    Args:
      texts: the corpus; order does not matter.
      num_merges: how many; fewer come back where every word has become one symbol.

    Returns:
      The merges in the order learnt; of equally frequent pairs the first in lexicographic order.

    >>> learn_merges(["low lower lowest"], 2)
    [('l', 'o'), ('lo', 'w')]
    """
    counts = Counter(word for text in texts for word in split(text) if word not in (START, END))
    spelled = {word: spell(word) for word in counts}
    pairs: Counter[tuple[str, str]] = Counter()
    users: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # index: pair -> words that may contain it

    def add(word: str, sign: int) -> None:
        for pair in pairwise(spelled[word]):
            pairs[pair] += sign * counts[word]
            users[pair].add(word)

    for word in counts:
        add(word, 1)
    merges: Merges = []
    while len(merges) < num_merges:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] <= 0:
            break
        merges.append(best)
        for word in users.pop(best):
            add(word, -1)
            spelled[word] = join(spelled[word], best)
            add(word, 1)
        del pairs[best]
    return merges
