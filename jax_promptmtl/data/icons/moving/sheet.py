"""Contact sheets of moving icons, for looking at the data: boxes drawn over, masks tinted, labels written."""

import numpy as np
from PIL import Image, ImageDraw

from jax_promptmtl.data.icons import moving_icons
from jax_promptmtl.data.icons.moving_icons import KEY_FRAME

Array = np.ndarray
COLOURS = ((255, 60, 60), (60, 230, 60), (80, 140, 255))  # of the three slots
_ZOOM = 3
_LINE = 14  # pixels of a line of text


def sheet(
    task: str, indices: list[int], *, part: str = "train", variant: str = "base", seed: int = 0, columns: int = 16
) -> Array:
    """Show clips in rows, with what is told about them.

    Args:
      task, part, variant, seed: see `moving_icons.clips`.
      indices: B clips.
      columns: frames shown of each, equally spaced.

    Returns:
      Picture uint8[height, width, 3].
    """
    rows = []
    for index in indices:
        clip = moving_icons.example(task, index, part=part, variant=variant, seed=seed)
        shown = np.unique(np.linspace(0, len(clip["frames"]) - 1, columns).astype(int))
        strip = Image.fromarray(np.concatenate([_frame(task, clip, int(t)) for t in shown], axis=1))
        row = Image.new("RGB", (strip.width, strip.height + _LINE))
        row.paste(strip, (0, _LINE))
        ImageDraw.Draw(row).text((2, 1), f"{index}: {_caption(task, clip)}", fill=(255, 255, 255))
        rows.append(np.asarray(row))
    return np.concatenate(rows)


def _frame(task: str, clip: dict[str, Array], t: int) -> Array:
    """Enlarge one frame and draw over it what is told about it."""
    picture = clip["frames"][t].repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    if task == "video_instance":
        for mask, colour in zip(clip["mask"][t], COLOURS, strict=True):
            inside = mask.repeat(_ZOOM, 0).repeat(_ZOOM, 1)
            picture[inside] = (picture[inside] * 0.5 + np.array(colour) * 0.5).astype(np.uint8)
    image = Image.fromarray(picture)
    if task == "video_object":
        _draw_boxes(image, clip["box"][t], clip["valid"][t])
    if task == "spatial_action" and t == KEY_FRAME:
        _draw_boxes(image, clip["box"], clip["valid"])
    for slot in _slots_now(task, clip, t):
        ImageDraw.Draw(image).rectangle((0, image.height - 4, image.width, image.height), fill=COLOURS[slot % 3])
    return np.pad(np.asarray(image), ((0, 2), (0, 2), (0, 0)))


def _draw_boxes(image: Image.Image, boxes: Array, valid: Array) -> None:
    for box, there, colour in zip(boxes, valid, COLOURS, strict=True):
        if there:
            ImageDraw.Draw(image).rectangle([*(box * image.width - (0, 0, 1, 1))], outline=colour)


def _slots_now(task: str, clip: dict[str, Array], t: int) -> list[int]:
    """Return the colours of the bar under a frame: which segment runs, or how many changes there were before it."""
    if task == "temporal_action":
        return [s for s, (a, b) in enumerate(clip["segment"]) if clip["valid"][s] and a <= t < b]
    if task == "segmentation":
        return [int((np.diff(clip["label"][: t + 1]) != 0).sum())]
    return []


def _caption(task: str, clip: dict[str, Array]) -> str:
    names = moving_icons.classes(task)
    if task == "recognition":
        return names[int(clip["label"])]
    if task == "segmentation":
        starts = np.flatnonzero(np.diff(clip["label"], prepend=-1))
        return "  ".join(f"{names[clip['label'][t]]}@{t}" for t in starts)
    filled = clip["valid"].any(0) if task == "video_object" else clip["valid"]
    words = [names[number] for number in clip["label"][filled]]
    if task == "temporal_action":
        words = [f"{w} {a:.0f}-{b:.0f}" for w, (a, b) in zip(words, clip["segment"][filled], strict=True)]
    return "  ".join(f"{'RGB'[slot]}={word}" for slot, word in zip(np.flatnonzero(filled), words, strict=True))
