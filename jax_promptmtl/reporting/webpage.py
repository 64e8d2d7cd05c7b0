"""A report as one self-contained HTML file: its Markdown rendered, with embedded figures.

The page has no scripts, links or requests, which its content security policy enforces. Names chosen by users (classes,
tasks, paths) are Markdown text, in which raw HTML is escaped, or pass through `html.escape`.
"""

import base64
import html
import itertools
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from jax_promptmtl.core.files import write_whole

UNDERLINED = re.compile("&lt;u&gt;([^<]*?)&lt;/u&gt;")  # the only tag in our tables
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
STYLE = """
:root { --ink: #1c1c1e; --faint: #666; --page: #fff; --card: #f4f4f6; --line: #d9d9de; --good: #00704e; --bad: #b04300 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #a3a3a8; --page: #141414; --card: #202024; --line: #3a3a40; --good: #4cc79a;
    --bad: #f0955c }
  .wide img { filter: invert(.92) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.5rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem } h3 { font-size: 1rem }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; font-size: .9rem } a { color: inherit }
.wide { overflow-x: auto; max-width: 100%; margin: 0 0 1rem }
.wide img { display: block; height: auto; max-width: max(100%, 44rem) }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: normal }
td[style*=right] { white-space: nowrap } td:first-child { position: sticky; left: 0; background: var(--page) }
pre, code { background: var(--card); border-radius: 4px; font-size: .85rem } code { padding: .1rem .25rem }
pre { padding: .7rem; overflow-x: auto } pre code { padding: 0 }
figure { margin: 1rem 0 } figcaption { color: var(--faint); font-size: .85rem; margin-top: .4rem }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; padding: 0;
  margin: .4rem 0 1.2rem; list-style: none; font-size: .8rem; line-height: 1.35 }
.thumbnails li { background: var(--card); border-radius: 6px; padding: .5rem }
.thumbnails img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; margin-bottom: .3rem }
.strips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)) }
.strips img { aspect-ratio: auto }
@media (max-width: 30rem) { body { padding: .7rem } table { font-size: .8rem } th, td { padding: .2rem .35rem } }
.thumbnails b, .thumbnails span { display: block } .good { color: var(--good) } .bad { color: var(--bad) }
"""


def write_html(path: pathlib.Path, panels: Mapping[str, str] | None = None) -> pathlib.Path:
    """Write the HTML of a report beside its Markdown.

    Args:
      path: of the Markdown, such as runs/mmap/report.md; its pictures are named relative to it.
      panels: {picture: HTML that replaces it}, such as `examples.gallery`.

    Returns:
      The path of the HTML.
    """
    target = path.with_suffix(".html")
    write_whole(target, render(path.read_text("utf-8"), path.parent, panels or {}))
    return target


def render(text: str, folder: pathlib.Path, panels: Mapping[str, str]) -> str:
    """Render Markdown as a self-contained page; see `write_html`.

    >>> page = render("# On <cats>\\n\\n![no](<http://example.org/x.png>)", pathlib.Path(), {})
    >>> "<title>On &lt;cats&gt;</title>" in page, "<img" in page
    (True, False)
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("image", lambda self, tokens, index, options, env: html.escape(_plain(tokens[index])))
    for rule, words in {"link_open": "", "link_close": "", "table_open": OPEN, "table_close": CLOSE}.items():
        reader.add_render_rule(rule, lambda *_, words=words: words)
    tokens = list(_with_figures(reader.parse(text), folder, panels))
    titles = {level: _headings(tokens, level) for level in ("h1", "h2")}
    title = next(iter(titles["h1"].values()), "")
    body = reader.renderer.render(tokens, reader.options, {})
    body = UNDERLINED.sub(r"<u>\1</u>", body)
    entries = "".join(f'<a href="#{name}">{words}</a>' for name, words in titles["h2"].items())
    parts = [HEAD, f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"]
    nav = f"<nav>{entries}</nav>\n" if entries else ""
    first, close, rest = body.partition("</h1>\n")
    return "".join([*parts, first, close, nav, rest, "</body>\n</html>\n"])


OPEN, CLOSE = '<div class="wide"><table>\n', "</table></div>\n"


def _headings(tokens: Sequence[Token], level: str) -> dict[str, str]:
    """Name the headings of a level, in the page too; returns {name: escaped text}."""
    found: dict[str, str] = {}
    for token, words in itertools.pairwise(tokens):
        if token.type == "heading_open" and token.tag == level:
            name = f"{level}-{len(found)}"
            token.attrSet("id", name)
            found[name] = html.escape(_plain(words))
    return found


def _with_figures(tokens: Sequence[Token], folder: pathlib.Path, panels: Mapping[str, str]) -> Iterator[Token]:
    """Yield the tokens; a paragraph of one picture, and the caption after it, become a figure."""
    position = 0
    while position < len(tokens):
        image = _lonely_image(tokens, position)
        content = image and _figure(image, folder, panels)
        if not content:
            yield tokens[position]
            position += 1
            continue
        block = Token("html_block", "", 0)
        block.content = content
        yield block
        position += 3
        after = tokens[position + 1] if position + 1 < len(tokens) else None
        if image and after and after.type == "inline" and _plain(after) == _plain(image) and "*" in after.content:
            position += 3


def _lonely_image(tokens: Sequence[Token], position: int) -> Token | None:
    """Return the image of a paragraph that consists of one image, else None."""
    if tokens[position].type != "paragraph_open":
        return None
    children = tokens[position + 1].children or []
    return children[0] if len(children) == 1 and children[0].type == "image" else None


def _plain(token: Token) -> str:
    """Return the text of an inline token or image, without markup."""
    return "".join(child.content for child in token.children or [])


def _figure(image: Token, folder: pathlib.Path, panels: Mapping[str, str]) -> str:
    """Return the figure of an image token; "" where the folder has no such file."""
    name, words = urllib.parse.unquote(str(image.attrs["src"])), _plain(image)
    content = panels.get(name)
    if content is None:
        path = folder / name
        if "://" in name or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return ""
        content = f'<div class="wide">{_picture(path, words)}</div>'
    return f"<figure>{content}<figcaption>{html.escape(words)}</figcaption></figure>\n"


def _picture(path: pathlib.Path, words: str) -> str:
    """Return the element of an image file."""
    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        width, height = (round(0.6 * side) for side in image.size)  # drawn at 160 dots per inch, shown at 96
        data = data_uri(path.read_bytes(), str(image.format).lower())
    return f'<img src="{data}" width="{width}" height="{height}" alt="{html.escape(words)}">'


def data_uri(content: bytes, kind: str) -> str:
    """Encode bytes as a data URI.

    >>> data_uri(b"a", "png")
    'data:image/png;base64,YQ=='
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
