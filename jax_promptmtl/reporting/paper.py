"""Published numbers of the two papers and their mapping to our rows, from assets/paper_*.json."""

import functools
import json
from typing import Any

from jax_promptmtl.core.files import ASSETS


@functools.cache
def mmap_paper() -> dict[str, Any]:
    """Return the tables and claims of the paper on images, and which of our presets are its rows."""
    return _read("paper_mmap.json")


@functools.cache
def dlm_paper() -> dict[str, Any]:
    """Return the shares and rows of the paper on videos, in the order of its tables."""
    return _read("paper_dlm.json")


def order_methods(methods: set[str], paper: dict[str, Any]) -> list[str]:
    """Return methods in the order of a paper's tables; others follow by name."""
    places = {method: number for number, method in enumerate(paper["order"])}
    return sorted(methods, key=lambda method: (places.get(method, len(places)), method))


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ASSETS / name).read_text("utf-8"))
    return content
