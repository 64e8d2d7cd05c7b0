"""Video data sets in their official layouts; each module reads one family's files into a `VideoSet`."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jax_promptmtl.core.errors import UserError, pick, some
from jax_promptmtl.data.videos import (
    action_segmentation,
    ava,
    ava_kinetics,
    hmdb51,
    imagenet_vid,
    own,
    ssv2,
    tfds,
    thumos14,
    ucf101,
    youtube_vis,
)
from jax_promptmtl.data.videos.index import Example, VideoSet

SETS: dict[str, Callable[..., VideoSet]] = {
    "50salads": partial(action_segmentation.read, dataset="50salads"),
    "ava": ava.read,
    "ava_kinetics": ava_kinetics.read,
    "breakfast": partial(action_segmentation.read, dataset="breakfast"),
    "gtea": partial(action_segmentation.read, dataset="gtea"),
    "hmdb51": hmdb51.read,
    "imagenet_vid": imagenet_vid.read,
    "own": own.read,
    "ssv2": ssv2.read,
    "thumos14": thumos14.read,
    "ucf101": ucf101.read,
    "ucf101_tfds": tfds.read_ucf101,
    "youtube_vis": youtube_vis.read,
    "youtube_vis_tfds": tfds.read_youtube_vis,
}


def read(config: Mapping[str, Any]) -> VideoSet:
    """Read the annotations of the data set `config["name"]` with the other entries as its options.

    Raises:
      UserError: an unknown data set or option, no root, or what the module says of its files.
    """
    options = {key: value for key, value in config.items() if key not in ("name", "strict")}
    name = pick(config.get("name", ""), SETS, "video data set")
    legal = set(inspect.signature(SETS[name]).parameters) - {"dataset"}
    for option in options:
        pick(option, legal | {"strict"}, f"option of the video data set {name!r}")
    if not options.get("root"):
        raise UserError(f"Video data set {name!r} needs the option 'root', the folder of its official files.")
    return SETS[name](**options)


def build(config: Mapping[str, Any]) -> VideoSet:
    """Read a data set and look whether it is whole; see `settle`. `config["strict"]` is True unless given."""
    return settle(read(config), strict=config.get("strict", True))


def missing(data: VideoSet) -> dict[str, list[Example]]:
    """Return the examples of each part with a file that is not there; records are all there once they are opened."""
    if data.fill is not None:
        return {part: [] for part in data.parts}
    there: dict[str, bool] = {}

    def exists(name: str) -> bool:
        if name not in there:
            there[name] = os.path.exists(data.path(name))  # False for names that no file can have
        return there[name]

    return {
        part: [example for example in examples if not all(map(exists, example.files or (example.video,)))]
        for part, examples in data.parts.items()
    }


def settle(data: VideoSet, *, strict: bool) -> VideoSet:
    """Refuse a set with files missing or other counts than published; if not strict, leave out what is missing.

    Raises:
      UserError: see above; or nothing is left of a part.
    """
    gone = missing(data)
    if strict and (wrong := data.misfits()):
        raise UserError(
            f"Data set {data.name!r} in {str(data.root)!r} is not the published one ({'; '.join(wrong)}): get it again "
            f"from {data.home}, or set data.strict=False to use it all the same."
        )
    lost = {part: {example.name for example in examples} for part, examples in gone.items()}
    for part, examples in data.parts.items():
        if gone[part] and (strict or len(gone[part]) == len(examples)):
            raise UserError(
                f"Of the {len(examples):,} {part} examples of {data.name!r}, {len(gone[part]):,} have no file in "
                f"{str(data.root)!r}, such as {some([example.video for example in gone[part]][:2])}; get them from "
                f"{data.home}{', or set data.strict=False to leave them out' if strict else ''}."
            )
    parts = {p: tuple(e for e in examples if e.name not in lost[p]) for p, examples in data.parts.items()}
    without = [f"{len(names):,} {part} examples have no file: left out" for part, names in lost.items() if names]
    return dataclasses.replace(data, parts=parts, notes=(*data.notes, *data.misfits(), *without))
