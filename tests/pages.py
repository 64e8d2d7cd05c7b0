"""What must be true of every page that we write: well-formed, nothing fetched, every picture decodes."""

import base64
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A parsed page; a tag that is never closed, or closed out of order, is an error.

    Attributes:
      text: all words.
      images: the decoded pictures, (alternative text, Pillow image).
      named, wanted: the ids that there are, and those that links go to.
      tags: the names of all elements.
    """

    def __init__(self, source):
        super().__init__()
        self.stack, self.text, self.images, self.named, self.wanted, self.tags = [], "", [], set(), set(), set()
        self.feed(source)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"
        assert self.wanted <= self.named and not self.tags & {"script", "link", "iframe", "object", "base", "form"}

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert len(dict(attrs)) == len(attrs)
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("srcset", "action")
            assert name != "style" or value.startswith("text-align:")
            if name == "src":
                self.images.append((dict(attrs).get("alt"), decode(value)))
            elif name == "href":
                assert value.startswith("#")
                self.wanted.add(value[1:])
            elif name == "id":
                assert value not in self.named
                self.named.add(value)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data):
        assert self.stack[-1:] != ["style"] or ("url(" not in data and "@import" not in data)
        self.text += data


def decode(source):
    """Return the picture of a data URI."""
    kind, _, data = source.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    assert kind == f"data:image/{image.format.lower()}"
    return image


def picture(path):
    """Return a written picture as uint8 [h, w, 3], and check that it is not blank."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 200 and pixels.shape[1] > 500
    assert 0.01 < np.mean(np.any(pixels < 250, axis=-1)) < 0.95
    return pixels


def colour_share(pixels, colour):
    """Return the share of pixels within 12 levels of a colour such as "#0072B2"."""
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.mean(np.all(np.abs(pixels.astype(int) - target) <= 12, axis=-1))


def balanced(tex):
    """Return whether braces and environments open and close in order, and every row has as many cells as columns."""
    bare = re.sub(r"\\[\\&%$#_{}]", lambda m: m[0] if m[0] == r"\\" else "", tex)
    stack = []
    for found in re.finditer(r"\\(begin|end)\{(\w+)\}", bare):
        if found[1] == "begin":
            stack.append(found[2])
        elif not stack or stack.pop() != found[2]:
            return False
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(c, 0) for c in bare))
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", bare, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        if any(line.count("&") != len(columns) - 1 for line in rows):
            return False
    return not stack and min(depth) >= 0 and depth[-1] == 0 and bare.count("$") % 2 == 0
