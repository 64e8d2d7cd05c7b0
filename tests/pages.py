"""What must be true of every page that we write: well-formed, nothing fetched, every picture decodes."""

import base64
import io
from html.parser import HTMLParser

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
