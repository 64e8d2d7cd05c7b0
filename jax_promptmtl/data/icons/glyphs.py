"""Real icon artwork: glyphs of the icon fonts in the installed wheels, drawn with Pillow alone.

A key is `family:name`, such as `lucide:cloud-rain`. Nothing rendered is ever stored in the repository.
"""

import importlib.util
import json
import pathlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFont

from jax_promptmtl.core.errors import UserError, pick

SIDE = 64  # pixels of a mask
LONG_SIDE = 56  # pixels of the longer side of the drawing in it
_DRAWN = 160  # font size before the reduction to LONG_SIDE: large enough that hinting does not show


@dataclass(frozen=True)
class Family:
    """One icon font.

    Attributes:
      wheel: distribution on the package index.
      package: its import name; it is located, never imported (qtawesome would need a Qt binding).
      font: font file inside the package.
      names: file with the glyph names and code points: JSON, CSS or `.codepoints`.
      licence: licence of the artwork as the wheel states it.
      skip: names that match this pattern are left out: logos, and line weights too thin to see.
      extra: the extra of this project that installs the wheel, or nothing.
    """

    wheel: str
    package: str
    font: str
    names: str
    licence: str
    skip: str = r"(?!)"
    extra: str = ""


def _qtawesome(font: str, version: str, licence: str, skip: str = r"(?!)", webfont: str = "-webfont") -> Family:
    files = f"fonts/{font}{webfont}-{version}.ttf", f"fonts/{font}{webfont}-charmap-{version}.json"
    return Family("qtawesome", "qtawesome", *files, licence, skip)


def _iconipy(font: str, names: str, licence: str, skip: str = r"(?!)") -> Family:
    return Family("iconipy", "iconipy", f"assets/{font}", f"assets/{names}", licence, skip)


def _material(style: str, suffix: str) -> Family:
    stem = f"material_icons_{style}regular/MaterialIcons{style.strip('_').capitalize()}-Regular"
    return _iconipy(f"{stem}.{suffix}", f"{stem}.codepoints", "Apache-2.0")


def _fluent(style: str) -> Family:
    files = f"fonts/FluentSystemIcons-{style.capitalize()}.ttf", f"glyphmap-{style}.json"
    return Family("tkinter-icons-fluent", "tkinter_icons_fluent", *files, "MIT", extra="pretrain")


_TOO_THIN = r".*-(thin|light)$|.*-logo(-.*)?$"

FAMILIES: dict[str, Family] = {
    "fa6s": _qtawesome("fontawesome6-solid", "6.7.2", "OFL-1.1"),
    "fa5s": _qtawesome("fontawesome5-solid", "5.15.4", "OFL-1.1"),
    "elusive": _qtawesome("elusiveicons", "2.0", "OFL-1.1"),
    "mdi6": _qtawesome("materialdesignicons6", "6.9.96", "Apache-2.0"),
    "phosphor": _qtawesome("phosphor", "1.3.0", "MIT", _TOO_THIN, webfont=""),
    "remix": _qtawesome("remixicon", "2.5.0", "Apache-2.0", webfont=""),
    "codicon": _qtawesome("codicon", "0.0.36", "CC-BY-4.0", webfont=""),
    "mi": _material("", "ttf"),
    "mi_out": _material("outlined_", "otf"),
    "mi_sharp": _material("sharp_", "otf"),
    "lucide": _iconipy("lucide/lucide.ttf", "lucide/info.json", "ISC"),
    "boxicons": _iconipy("boxicons/boxicons.ttf", "boxicons/boxicons.css", "MIT", r"bxl-.*"),
    "lineicons": _iconipy("lineicons/lineicons.ttf", "lineicons/unicodesMap.json", "MIT"),
    "typicons": _iconipy("typicons/typicons.ttf", "typicons/typicons.css", "CC-BY-SA-3.0 (font: OFL-1.1)"),
    "fluent_reg": _fluent("regular"),
    "fluent_fil": _fluent("filled"),
    "bootstrap": Family(
        "tkinter-icons-bs", "tkinter_icons_bs", "assets/bootstrap.ttf", "assets/glyphmap.json", licence="MIT"
    ),
    "ion": Family(
        "tkinter-icons-ion",
        "tkinter_icons_ion",
        "fonts/ionicons.ttf",
        "glyphmap.json",
        licence="MIT",
        skip=r"(ion-)?(social|logo)-.*",
    ),
    "eva": Family("tkinter-icons-eva", "tkinter_icons_eva", "fonts/eva-icons.ttf", "glyphmap.json", licence="MIT"),
}


def locate(family: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Find the font file and the name file of a family without importing its package.

    Args:
      family: a key of `FAMILIES`.

    Returns:
      Paths of the font and of the names.

    Raises:
      UserError: the family is unknown, or its wheel is missing or incomplete.
    """
    entry = FAMILIES[pick(family, FAMILIES, "icon family")]
    spec = importlib.util.find_spec(entry.package)
    root = (
        pathlib.Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    )
    if root is None or not (root / entry.font).is_file() or not (root / entry.names).is_file():
        install = f"jax_promptmtl[{entry.extra}]" if entry.extra else entry.wheel
        raise UserError(
            f"Icon family {family!r} needs {entry.font} of the package {entry.wheel!r}, which is not installed or is "
            f"another version; run: pip install '{install}'."
        )
    return root / entry.font, root / entry.names


def read_names(path: pathlib.Path) -> dict[str, int]:
    """Read glyph names and code points from a JSON map, a style sheet or a `.codepoints` list.

    Args:
      path: the file.

    Returns:
      {name: code point} in file order.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        found = re.findall(r"\.([\w-]+):before\s*\{\s*content:\s*[\"']\\([0-9a-fA-F]+)[\"']", text)
        return {name: int(code, 16) for name, code in found}
    if path.suffix == ".codepoints":
        return {name: int(code, 16) for name, code in (line.split() for line in text.splitlines() if line)}
    return {name: _code_point(value) for name, value in json.loads(text).items()}


def _code_point(value: int | str | dict[str, str]) -> int:
    """Read 59905, '0xf102', 'f102' or {'encodedCode': '\\\\e589'}."""
    if isinstance(value, dict):
        value = value["encodedCode"]
    return value if isinstance(value, int) else int(str(value).lstrip("\\"), 16)


def list_names(family: str) -> dict[str, int]:
    """List what `render_masks` draws: {name: code point}, sorted by name.

    Args:
      family: a key of `FAMILIES`.

    Raises:
      UserError: see `locate`.
    """
    return select(read_names(locate(family)[1]), FAMILIES[family].skip)


def select(names: dict[str, int], skip: str = r"(?!)") -> dict[str, int]:
    """Keep one name per code point and one optical size per drawing.

    Args:
      names: {name: code point}.
      skip: pattern of names to leave out.

    Returns:
      The names kept, sorted. Among aliases the shortest wins; among sizes the one nearest to 24.

    >>> select({"eva-bell": 7, "bell": 7, "ic-fluent-add-16-filled": 8, "ic-fluent-add-28-filled": 9})
    {'bell': 7, 'ic-fluent-add-28-filled': 9}
    """
    names = {name: code for name, code in names.items() if not re.fullmatch(skip, name)}
    alias: dict[int, str] = {}
    for name in sorted(names, key=lambda n: (len(n), n)):
        alias.setdefault(names[name], name)
    sized: dict[str, tuple[int, str]] = {}
    for name in sorted(alias.values()):
        size = re.fullmatch(r"(ic-fluent-.*)-(\d+)-(regular|filled)", name)
        drawing = f"{size[1]}-{size[3]}" if size else name
        distance = abs(int(size[2]) - 24) if size else 0
        sized[drawing] = min(sized.get(drawing, (1000, "")), (distance, name))
    return {name: names[name] for name in sorted(name for _, name in sized.values())}


def render_masks(family: str, only: Collection[str] | None = None) -> tuple[list[str], np.ndarray]:
    """Draw every glyph of a family, centred, antialiased, the longer side 56 of 64 pixels.

    Args:
      family: a key of `FAMILIES`.
      only: names to draw instead of all.

    Returns:
      (names, masks uint8[N, 64, 64], 255 = ink); glyphs that the font lacks or leaves empty are skipped.

    Raises:
      UserError: see `locate`.
    """
    font = ImageFont.truetype(str(locate(family)[0]), _DRAWN, layout_engine=ImageFont.Layout.BASIC)
    absent = _ink(font, 0x10FFFD)
    names, masks = [], []
    for name, code in list_names(family).items():
        ink = _ink(font, code) if only is None or name in only else None
        if ink is None or (absent is not None and ink.tobytes() == absent.tobytes()):
            continue
        names.append(name)
        masks.append(_centre(ink))
    return names, np.stack(masks) if masks else np.zeros((0, SIDE, SIDE), np.uint8)


def render_keys(keys: Sequence[str]) -> np.ndarray:
    """Draw the glyphs with these keys, in this order.

    Args:
      keys: N strings `family:name`.

    Returns:
      masks uint8[N, 64, 64].

    Raises:
      UserError: a font lacks one of them, so its wheel is another version than the split was made with.
    """
    wanted: dict[str, set[str]] = {}
    for key in keys:
        family, name = key.split(":", 1)
        wanted.setdefault(family, set()).add(name)
    drawn = {}
    for family, only in wanted.items():
        names, masks = render_masks(family, only)
        drawn.update({f"{family}:{name}": mask for name, mask in zip(names, masks, strict=True)})
    absent = [key for key in keys if key not in drawn]
    if absent:
        wheel = FAMILIES[absent[0].split(":", 1)[0]].wheel
        raise UserError(
            f"The installed package {wheel!r} has no glyph {absent[0]!r}; reinstall the version in pyproject."
        )
    return np.stack([drawn[key] for key in keys])


def _ink(font: ImageFont.FreeTypeFont, code: int) -> Image.Image | None:
    """Draw one code point and crop it to its ink."""
    core = font.getmask(chr(code), mode="L")
    if not core.size[0] or not core.size[1]:
        return None
    image = Image.frombytes("L", core.size, bytes(core))
    box = image.getbbox()
    return image.crop(box) if box else None


def _centre(ink: Image.Image) -> np.ndarray:
    """Scale cropped ink to the long side and put it in the middle of a mask uint8[64, 64]."""
    scale = LONG_SIDE / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(ink.resize((width, height), Image.Resampling.BOX), ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(mask)
