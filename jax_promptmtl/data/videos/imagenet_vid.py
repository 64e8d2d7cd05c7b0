"""ImageNet VID (ILSVRC 2015) for object detection in videos: 30 classes, boxes in every frame of short videos.

The files of mmtracking's converter beside the official frames: `annotations/imagenet_vid_{train,val}.json`, COCO with
`videos`, and for images `video_id`, `frame_id` and `is_vid_train_frame`, for annotations `instance_id`; frames
`Data/VID/<file_name>`. `imagenet_vid_train_joint_30.json` of TransVOD adds still images of ImageNet DET; then names
start with VID/ or DET/ below `Data/`, and a still image is a video of one frame. The official validation part tests.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos.index import (
    Example,
    VideoSet,
    fields_of,
    has_area,
    locate,
    numbered,
    read_json,
    require_examples,
    require_inside,
)

NAME, HOME = "imagenet_vid", "image-net.org (login), converted by mmtracking's imagenet2coco_vid.py"
PUBLISHED = {"classes": 30, "train": 3_862, "test": 555}
LAYOUT = "annotations/imagenet_vid_train.json and imagenet_vid_val.json beside Data/VID/"
Record = Mapping[str, Any]


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
    flat = 0
    for part, file in files.items():
        path = locate(root, (f"annotations/{file}.json",), LAYOUT, HOME)
        content = read_json(path, dict, ("categories", "images", "annotations"))
        found = numbered(((int(row["id"]), row["name"]) for row in content["categories"]), 1, path)
        if names and found != names:
            raise UserError(f"The classes of {str(path)!r} are not those of the training file; convert both again.")
        names = found
        parts[part], dropped = read_part(content, path, len(names), sampled and part == "train")
        flat += dropped
    whole = require_examples(parts, NAME, HOME)
    published = PUBLISHED if not joint else {key: n for key, n in PUBLISHED.items() if key != "train"}
    notes = (f"{flat:,} boxes without area left out",) if flat else ()
    home = pathlib.Path(root).expanduser()
    return VideoSet(NAME, "video_object", home, names, whole, published, HOME, notes=notes)


def read_part(content: Record, path: pathlib.Path, classes: int, sampled: bool) -> tuple[list[Example], int]:
    """Return the videos of a file, and the number of boxes without area, which are left out."""
    videos: dict[tuple[bool, int], list[Record]] = {}
    for image in content["images"]:
        fields_of(image, ("id", "file_name", "width", "height"), path)
        video = image.get("video_id", -1)
        if not sampled or image.get("is_vid_train_frame", True):
            videos.setdefault((video >= 0, video if video >= 0 else image["id"]), []).append(image)
    boxes: dict[int, list[Record]] = {image["id"]: [] for image in content["images"]}
    for row in content["annotations"]:
        number, category, _ = fields_of(row, ("image_id", "category_id", "bbox"), path)
        if number not in boxes or not 1 <= category <= classes:
            raise UserError(
                f"An annotation of {str(path)!r} has image {number} and class {category}; legal are the images of the "
                f"file and 1 to {classes}: convert it again."
            )
        boxes[number].append(row)
    pairs = [make_example(sorted(images, key=lambda i: i.get("frame_id", 0)), boxes) for images in videos.values()]
    return [example for example, _ in pairs], sum(flat for _, flat in pairs)


def make_example(images: Sequence[Record], boxes: Mapping[int, Sequence[Record]]) -> tuple[Example, int]:
    """Return a video with its tracks, and the number of boxes without area."""
    rows = [(frame, row) for frame, image in enumerate(images) for row in boxes[image["id"]]]
    video = images[0]["file_name"].rsplit("/", 1)[0] if len(images) > 1 else images[0]["file_name"]
    size = np.array([[images[f]["width"], images[f]["height"]] * 2 for f, _ in rows], np.float64).reshape(-1, 4)
    box = np.array([row["bbox"] for _, row in rows], np.float64).reshape(-1, 4)
    box[:, 2:] += box[:, :2]
    slack = 1 / min([image[side] for image in images for side in ("width", "height")])  # rounding, one pixel
    box = require_inside(box / size, video, slack)
    tracks: dict[Any, int] = {}
    label: list[int] = []
    keep = has_area(box)
    filled = np.zeros((len(images), len({key_of(row) for _, row in rows}), 4), np.float32)
    for (frame, row), corners, real in zip(rows, box, keep, strict=True):
        if not real:
            continue
        slot = tracks.setdefault(key_of(row), len(tracks))
        label += [row["category_id"] - 1] * (slot == len(label))
        if label[slot] != row["category_id"] - 1:
            raise UserError(f"Instance {key_of(row)} of {video!r} has two classes; correct the annotations.")
        filled[frame, slot] = corners
    filled = filled[:, : len(tracks)]
    labels = {"box": filled, "label": np.array(label, np.int32), "valid": has_area(filled)}
    home = "Data" if images[0]["file_name"].startswith(("VID/", "DET/")) else "Data/VID"
    files = tuple(f"{home}/{image['file_name']}" for image in images)
    return Example(video, f"{home}/{video}", labels, files), int((~keep).sum())


def key_of(row: Record) -> Any:
    """Return what tells an object from the others of its video; in still images every annotation is one."""
    number = row.get("instance_id", -1)
    return number if number >= 0 else f"annotation {row.get('id')}"
