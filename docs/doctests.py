"""Examples of docstrings as code on the site: Markdown would take their `>>>` for quotations in quotations."""

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts fences around the paragraphs of a docstring that are examples."""

    def on_instance(self, *, obj: griffe.Object, **options: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        del options
        if obj.docstring:
            obj.docstring.value = "\n\n".join(map(fenced, obj.docstring.value.split("\n\n")))


def fenced(paragraph: str) -> str:
    """Return a paragraph as a block of code, if it is an example."""
    return f"```pycon\n{paragraph.rstrip()}\n```" if paragraph.startswith(">>>") else paragraph
