"""ImageNet VID (ILSVRC 2015) for object detection in videos: 30 classes, boxes in every frame of short videos.

The files of mmtracking's converter beside the official frames: `annotations/imagenet_vid_{train,val}.json`, COCO with
`videos`, and for images `video_id`, `frame_id` and `is_vid_train_frame`, for annotations `instance_id`; frames
`Data/VID/<file_name>`. `imagenet_vid_train_joint_30.json` of TransVOD adds still images of ImageNet DET; then names
start with VID/ or DET/ below `Data/`, and a still image is a video of one frame. The official validation part tests.
"""

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
import numpy as np

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data.videos.annotations import Record, locate, numbered, read_json
from jax_promptmtl.data.videos.index import Example, VideoSet, has_area, require_examples, require_inside

NAME, HOME = "imagenet_vid", "image-net.org (login), converted by mmtracking's imagenet2coco_vid.py"
PUBLISHED = {"classes": 30, "train": 3_862, "test": 555}
LAYOUT = "annotations/imagenet_vid_train.json and imagenet_vid_val.json beside Data/VID/"
Side = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Pixel = Annotated[float, msgspec.Meta(ge=-(10**6), le=10**6)]


class Category(Record):
    """A class."""

    id: int
    name: str


class Picture(Record):
    """A frame of a video, or a still image, which has no or a negative `video_id`."""

    id: int
    file_name: Annotated[str, msgspec.Meta(min_length=1)]
    width: Side
    height: Side
    video_id: int = -1
    frame_id: int | None = None
    is_vid_train_frame: bool = True


class Box(Record):
    """An object in a picture: x, y, width and height in pixels."""

    image_id: int
    category_id: int
    bbox: tuple[Pixel, Pixel, Pixel, Pixel]
    id: int
    instance_id: int = -1
    iscrowd: bool | int = False


class Content(Record):
    """What a reader needs of a file."""

    categories: list[Category]
    images: list[Picture]
    annotations: list[Box]


def read(*, root: str, joint: bool = False, sampled: bool = True) -> VideoSet:
    """Read the annotations.

    Args:
      root: the folder of the official files.
      joint: train on VID and DET together.
      sampled: train on the frames that the converter marks, some 15 evenly spaced ones per video, as upstreams do.

    Returns:
      The set, an example per video; frames are not looked at.

    Raises:
      UserError: a file is missing or not the converter's; an annotation of an unknown image or class; a box outside its
        frame; an instance of two classes.
    """
    files = {"train": "imagenet_vid_train_joint_30" if joint else "imagenet_vid_train", "test": "imagenet_vid_val"}
    parts: dict[str, list[Example]] = {}
    names: tuple[str, ...] = ()
    out: Counter[str] = Counter()
    for part, file in files.items():
        path = locate(root, (f"annotations/{file}.json",), LAYOUT, HOME)
        content = read_json(path, Content)
        found = numbered(((row.id, row.name) for row in content.categories), 1, path)
        if names and found != names:
            raise UserError(f"The classes of {str(path)!r} are not those of the training file; convert both again.")
        names = found
        parts[part] = read_part(content, path, sampled and part == "train", out)
    whole = require_examples(parts, NAME, HOME)
    published = PUBLISHED if not joint else {key: n for key, n in PUBLISHED.items() if key != "train"}
    notes = tuple(f"{count:,} {what} left out" for what, count in out.items() if count)
    home = pathlib.Path(root).expanduser()
    return VideoSet(NAME, "video_object", home, names, whole, published, HOME, notes=notes)


def read_part(content: Content, path: pathlib.Path, sampled: bool, out: Counter[str]) -> list[Example]:
    """Return the videos of a file; `out` counts the boxes that are left out."""
    boxes = boxes_of(content, path, out)
    videos: dict[tuple[bool, int], list[Picture]] = {}
    for image in content.images:
        video = image.video_id
        if not sampled or image.is_vid_train_frame:
            videos.setdefault((video >= 0, video if video >= 0 else image.id), []).append(image)
    return [make_example(sorted(images, key=lambda i: i.frame_id or 0), boxes, path, out) for images in videos.values()]


def boxes_of(content: Content, path: pathlib.Path, out: Counter[str]) -> dict[int, list[Box]]:
    """Return the boxes of each image but crowds, which `out` counts."""
    boxes: dict[int, list[Box]] = {image.id: [] for image in content.images}
    if len(boxes) < len(content.images):
        raise UserError(f"File {str(path)!r} has several images of one id; convert it again.")
    classes = len(content.categories)
    for row in content.annotations:
        if row.image_id not in boxes or not 1 <= row.category_id <= classes:
            raise UserError(
                f"An annotation of {str(path)!r} has image {row.image_id} and class {row.category_id}; legal are the "
                f"images of the file and 1 to {classes}: convert it again."
            )
        if row.iscrowd:
            out["crowds"] += 1
        else:
            boxes[row.image_id].append(row)
    return boxes


def require_frames(images: Sequence[Picture], path: pathlib.Path) -> None:
    """Refuse a video with a number twice, with numbers on some frames only, or with frames of several sizes."""
    first, told = images[0], [image.frame_id for image in images if image.frame_id is not None]
    if len(told) not in (0, len(images)) or len(set(told)) < len(told):
        raise UserError(
            f"Video {first.video_id} of {str(path)!r} ({first.file_name!r}, ...) has a frame_id twice, or none on some "
            "of its frames; convert it again."
        )
    if odd := [image for image in images if (image.width, image.height) != (first.width, first.height)]:
        raise UserError(
            f"File {str(path)!r} has {some([first.file_name, odd[0].file_name])} in several sizes; convert it again."
        )


def make_example(
    images: Sequence[Picture], boxes: Mapping[int, Sequence[Box]], path: pathlib.Path, out: Counter[str]
) -> Example:
    """Return a video with its tracks; `out` counts boxes without area, which are left out."""
    require_frames(images, path)
    rows = [(frame, row) for frame, image in enumerate(images) for row in boxes[image.id]]
    video = images[0].file_name.rpartition("/")[0] if len(images) > 1 else images[0].file_name
    width, height = images[0].width, images[0].height
    box = np.array([row.bbox for _, row in rows], np.float64).reshape(-1, 4)
    box[:, 2:] += box[:, :2]
    box = require_inside(box / [width, height, width, height], video, 1 / min(width, height))  # rounding, one pixel
    tracks: dict[str, int] = {}
    label: list[int] = []
    keep = has_area(box)
    out["boxes without area"] += int((~keep).sum())
    filled = np.zeros((len(images), len({key_of(row) for _, row in rows}), 4), np.float32)
    for (frame, row), corners in ((rows[i], box[i]) for i in np.flatnonzero(keep)):
        slot = tracks.setdefault(key_of(row), len(tracks))
        label += [row.category_id - 1] * (slot == len(label))
        if label[slot] != row.category_id - 1:
            raise UserError(f"Instance {key_of(row)} of {video!r} has two classes; correct the annotations.")
        if has_area(filled[frame, slot]):
            raise UserError(f"Instance {key_of(row)} of {video!r} is twice in one frame; correct the annotations.")
        filled[frame, slot] = corners
    filled = filled[:, : len(tracks)]
    labels = {"box": filled, "label": np.array(label, np.int32), "valid": has_area(filled)}
    home = "Data" if images[0].file_name.startswith(("VID/", "DET/")) else "Data/VID"
    files = tuple(f"{home}/{image.file_name}" for image in images)
    return Example(video, f"{home}/{video}", labels, files, size=(height, width))


def key_of(row: Box) -> str:
    """Return what tells an object from the others of its video; in still images every annotation is one."""
    return str(row.instance_id) if row.instance_id >= 0 else f"annotation {row.id}"
