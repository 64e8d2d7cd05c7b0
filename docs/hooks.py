"""The site's pages from files outside docs/, and links between all of them: one text, on the code host and here."""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {  # page: the file that it is
    "index.md": "README.md",
    "launch.md": "launch/README.md",
    "icon_clip.md": "jax_promptmtl/assets/icon_clip/README.md",
    "changelog.md": "CHANGELOG.md",
}
PAGE_OF = {source: page for page, source in PAGES.items()}
LINK = re.compile(r"\]\(<?(?!https?:|#)([^)>#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside."""
    root = pathlib.Path(config.config_file_path).parent
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def turn(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        place = PAGE_OF.get(target, target.removeprefix("docs/"))
        return match[0].removesuffix(match[1]) + posixpath.relpath(place, posixpath.dirname(here) or ".")

    return LINK.sub(turn, markdown)
