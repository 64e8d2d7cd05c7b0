"""Clips of a video set as batches of arrays of one size: frames sampled, cut and resized, labels padded.

A clip is a pure function of (seed, example, view), so that an order of clips can be resumed, and what models see of
them kept. A test part shows the middle of everything, or several clips of a video in several places; the views of a
training part are drawn at random.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data import fewshot, images, preprocess
from jax_promptmtl.data.videos import augment, rle, video_file
from jax_promptmtl.data.videos.feature_files import FeatureFiles
from jax_promptmtl.data.videos.index import Example, VideoSet
from jax_promptmtl.data.videos.key_frames import with_others
from jax_promptmtl.data.videos.left_out import LeftOut
from jax_promptmtl.data.videos.slots import most_objects, pad

Array = np.ndarray
Batch = dict[str, Array]
SHORT = ("refuse", "repeat", "pad")
THREADS = 8
RATIO = (3 / 4, 4 / 3)
PADDED = ("video_object", "video_instance")  # tasks whose frames may have padding
Sources = dict[str, "list[ClipFiles] | list[FeatureFiles]"]


@dataclass(frozen=True)
class Sampling:
    """How frames are taken out of a video.

    Attributes:
      frames: L of a clip.
      stride: frames from one to the next; 0 spreads them evenly over the whole video, as TSN does.
      size: side of the square that they become, pixels; on a canvas their short side.
      whole: squeeze the whole frame into the square, as boxes and masks need; else cut a square out.
      canvas: rows and columns of the frames, padding at the bottom and at the right included: whole frames keep their
        shape, and are smaller than `size` says where they would not fit. () for squares.
      short: what to do with a video that is too short: `refuse` it, `repeat` its frames as upstreams do, or `pad` the
        clip, where the batch says which frames are `present`.
      scale: least and largest share of a frame that a training view shows; not read where the frame is whole.
      flip: whether training views may be mirrored; not where left and right are labels.
      operations: of RandAugment on training views, n; 0 for none.
      magnitude: of the operations, of 10, m.
      spread: standard deviation of the magnitude.
      backwards: whether training clips may run backwards.
      erase: probability that a rectangle of a training view is noise.
      tested: frames of a test clip; as many as of a training clip if 0.
      clips: of a test video, spread over its time; the scores of all its views are averaged.
      crops: of a test clip, squares from one end of the longer side to the other.
    """

    frames: int = 16
    stride: int = 0
    size: int = 224
    whole: bool = False
    canvas: tuple[int, ...] = ()
    short: str = "refuse"
    scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = False
    backwards: bool = False
    operations: int = 0
    magnitude: float = 7.0
    spread: float = 0.5
    erase: float = 0.0
    tested: int = 0
    clips: int = 1
    crops: int = 1

    def __post_init__(self):
        pick(self.short, SHORT, "way with short videos")
        if self.clips < 1 or self.crops < 1 or (self.whole and self.crops > 1):
            raise UserError(
                f"Tests have {self.clips} clips of {self.crops} crops; give at least 1 of each, and 1 crop where "
                "sampling.whole shows the whole frame."
            )
        if self.canvas and (len(self.canvas) != 2 or not self.whole):
            raise UserError(
                f"sampling.canvas is {self.canvas}; give rows and columns, with sampling.whole, or () for squares."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns of the frames."""
        return (self.canvas[0], self.canvas[1]) if self.canvas else (self.size, self.size)

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of a whole frame on the canvas.

        >>> Sampling(size=600, whole=True, canvas=(600, 1000)).fitted(720, 1280)
        (563, 1000)
        """
        if not self.canvas:
            return self.shape
        rows, columns = self.canvas
        scale = min(self.size / min(height, width), rows / height, columns / width)
        return max(int(scale * height + 0.5), 1), max(int(scale * width + 0.5), 1)


def numbers(
    count: int,
    sampling: Sampling,
    centre: int | None = None,
    rng: np.random.Generator | None = None,
    clip: int = 0,
) -> Array:
    """Return the frames of a clip, int[L].

    Args:
      count: frames of the video.
      sampling: see there.
      centre: key frame, in the middle of the clip; beyond the ends the video's first and last frames repeat.
      rng: draws the place of a training view; None takes the middle, or one of `sampling.clips`.
      clip: which of them. As upstreams do, they begin evenly spread: over the space between two frames, or from the
        first to the last of the frames in steps.

    >>> numbers(32, Sampling(frames=4)).tolist(), numbers(32, Sampling(frames=4, stride=2)).tolist()
    ([4, 12, 20, 28], [12, 14, 16, 18])
    >>> [numbers(32, Sampling(frames=4, stride=2, clips=3), clip=clip).tolist()[0] for clip in range(3)]
    [0, 12, 24]
    >>> numbers(32, Sampling(frames=4, stride=2), centre=1).tolist()
    [0, 0, 1, 3]
    """
    steps = np.arange(sampling.frames)
    if centre is not None:
        return np.clip(centre + (steps - sampling.frames // 2) * max(sampling.stride, 1), 0, count - 1)
    several = rng is None and sampling.clips > 1
    if not sampling.stride:
        middle = clip / sampling.clips if several else 0.5
        shift = np.full(len(steps), middle) if rng is None else rng.random(len(steps))
        return ((steps + shift) * count / len(steps)).astype(int)
    if several:
        kept = -(-count // sampling.stride)  # frames of the video in steps
        first = int(clip * max(kept - len(steps), 0) / (sampling.clips - 1))
        return np.minimum(first + steps, kept - 1) * sampling.stride
    free = max(count - 1 - steps[-1] * sampling.stride, 0)
    start = free // 2 if rng is None else int(rng.integers(free + 1))
    return np.minimum(start + steps * sampling.stride, count - 1)


def require_length(count: int, sampling: Sampling, name: str) -> None:
    """Refuse a video that is shorter than a clip, unless its frames may repeat."""
    least = (sampling.frames - 1) * max(sampling.stride, 1) + 1
    if count < least and sampling.short == "refuse":
        raise UserError(
            f"Video {name!r} has {count} frames, but a clip of {sampling.frames} in steps of {max(sampling.stride, 1)} "
            f"needs {least}; leave it out, sample fewer, or set sampling.short='repeat'."
        )


class ClipFiles:
    """The clips of a part of a video set, read when asked for; see `clip_batches.ClipSource`.

    Args:
      data: the set.
      part: "train" or "test".
      sampling: see there.
      views: random views per training video, the whole part once in each view after the other; 0 for a test's views.
      seed: draws them.
      left_out: takes what cannot be read at any time, and files that end early are used up to there; None refuses both.
    """

    def __init__(
        self,
        data: VideoSet,
        part: str,
        sampling: Sampling,
        *,
        views: int = 0,
        seed: int = 0,
        left_out: LeftOut | None = None,
    ):
        self.data, self.sampling, self.views, self.seed, self.left_out = data, sampling, views, seed, left_out
        self.examples = data.parts[pick(part, data.parts, "part")]
        self.slots = most_objects(data)
        self.unreadable: set[int] = set()  # numbers of test examples
        if sampling.short == "pad" and (data.task != "video_instance" or not sampling.stride):
            raise UserError(
                f"sampling.short is 'pad', but clips of {data.name!r} have no padding, or sampling.stride is 0; give "
                "'repeat' or 'refuse', or a stride of 1 or more for video_instance."
            )
        self.tested = 0 if views else sampling.clips * sampling.crops
        if self.tested > 1 and data.task != "recognition":
            raise UserError(f"Several views of a test video have one label, but {data.name!r} has more; test with one.")

    def __len__(self) -> int:
        return len(self.examples) * (self.views or self.tested)

    def take(self, indices: Array) -> Batch:
        """Return the clips at the indices: `frames` uint8[B, L, S, S, 3] and the labels of the task.

        Of video_object and video_instance frames are uint8[B, L, H, W, 3], with `shown` bool[B, H, W], false in the
        padding of frames, and `present` bool[B, L], false where a frame itself is padding. Where examples may be left
        out `kept` float32[B] is 0 for one of a test; in training the next one that can be read takes its place.
        """
        read = self.read if self.left_out is None else self.read_next
        with ThreadPoolExecutor(min(THREADS, len(indices))) as pool:  # decoders let other threads run
            rows = list(pool.map(lambda index: read(int(index)), indices))
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def read_next(self, index: int) -> Batch:
        """Return one clip, or the next one that can be read, and whether it is `kept`.

        A training clip depends on no other, so that a resumed run sees the same; a test video is left out in all views.
        """
        assert self.left_out is not None
        view, first = divmod(index, len(self.examples))
        for step in range(len(self.examples)):
            number = (first + step) % len(self.examples)
            if number in self.unreadable:
                continue
            try:
                if not self.views and not view:
                    for clip in range(1, self.sampling.clips):
                        self.read(clip * self.sampling.crops * len(self.examples) + number)
                kept = np.array(self.views > 0 or not step, np.float32)
                return self.read(view * len(self.examples) + number) | {"kept": kept}
            except UserError as error:
                self.left_out.add(self.examples[number].name, str(error))
                if not self.views:
                    self.unreadable.add(number)
        raise UserError(f"No example of {self.data.name!r} can be read; look at the data with check_data.")

    def read(self, index: int) -> Batch:
        """Return one clip."""
        view, number = divmod(index, len(self.examples))
        example = self.data.filled(self.examples[number])
        rng = fewshot.generator(self.seed, example.name, view) if self.views else None
        clip, crop = (0, 0) if self.views else divmod(view, self.sampling.crops)
        chosen, path = self.choose(example, rng, clip)
        if example.pictures:
            decoded = [images.decode(example.pictures[i], example.name) for i in chosen]
            frames = video_file.same_size(decoded, self.data.path(example.video))
        elif example.files:
            frames = video_file.pictures([self.data.path(example.files[i]) for i in chosen])
        else:
            frames = video_file.frames(path, chosen, whole=self.left_out is None)
        mirrored = rng is not None and self.sampling.flip and rng.random() < 0.5
        labels = self.label(example, chosen, mirrored)
        if self.data.task in PADDED:
            labels |= self.padding(example, chosen, *frames.shape[1:3])
        return {"frames": self.show(frames, rng, mirrored, crop)} | labels

    def padding(self, example: Example, chosen: Array, height: int, width: int) -> Batch:
        """Return `shown` bool[H, W] and `present` bool[L] of frames of a size."""
        shown = spread(np.ones(self.sampling.fitted(height, width), bool), self.sampling)
        return {"shown": shown, "present": np.arange(len(chosen)) < self.real(example, len(chosen))}

    def real(self, example: Example, frames: int) -> int:
        """Return how many frames of a clip are no padding."""
        steps = -(-len(example.files or example.pictures) // max(self.sampling.stride, 1))
        return min(steps, frames) if self.sampling.short == "pad" else frames

    def show(self, frames: Array, rng: np.random.Generator | None, mirrored: bool, crop: int) -> Array:
        """Return frames as a view shows them."""
        s = self.sampling
        if rng is not None and s.operations:
            frames = augment.augment(frames, s.operations, s.magnitude, s.spread, rng)
        frames = resize(frames, s, rng, mirrored, crop / (s.crops - 1) if s.crops > 1 else 0.5)
        return augment.erase(frames, s.erase, rng) if rng is not None and s.erase else frames

    def choose(self, example: Example, rng: np.random.Generator | None, clip: int) -> tuple[Array, Any]:
        """Return the numbers of a clip's frames, and where they are."""
        path = self.data.path(example.video)
        whole = self.left_out is None
        count = len(example.files or example.pictures) or video_file.length(path, whole=whole)
        if self.left_out is not None and (fault := video_file.shortage(path)):
            self.left_out.add(example.video, fault, short=True)
        if example.key is not None:
            return with_others(example.key, count, self.sampling.frames, rng), path
        second = example.second
        centre = None if second is None else video_file.nearest(path, second, self.data.rate, whole=whole)
        if centre is None and self.data.task == "recognition":
            require_length(count, self.sampling, example.name)
        chosen = numbers(count, self.sampling, centre, rng, clip)
        turned = self.sampling.backwards and rng is not None and len(chosen) <= count and rng.random() < 0.5
        return chosen[::-1] if turned else chosen, path

    def label(self, example: Example, chosen: Array, mirrored: bool) -> Batch:
        """Return the labels of a clip, padded to the largest number of objects."""
        label = example.labels["label"]
        if self.data.task == "recognition":
            return {"label": label}
        padded = {"label": pad(label, self.slots)}
        real = np.arange(self.slots) < len(label)
        if self.data.task == "video_instance":
            return padded | {"mask": self.masks(example, chosen, mirrored), "valid": real}
        box = example.labels["box"]
        if mirrored:
            box = np.stack([1 - box[..., 2], box[..., 1], 1 - box[..., 0], box[..., 3]], axis=-1)
        if self.data.task == "spatial_action":
            return padded | {"box": pad(box, self.slots), "valid": real}
        chosen = chosen if example.key is None else chosen[:1]  # others are looked at, but nothing is wanted of them
        valid = example.labels["valid"][chosen]
        box = np.where(valid[..., None], box[chosen], 0).astype(np.float32)
        return padded | {"box": pad(box, self.slots, axis=1), "valid": pad(valid, self.slots, axis=1)}

    def masks(self, example: Example, chosen: Array, mirrored: bool) -> Array:
        """Return masks bool[L, M, H, W]; all false where an object is hidden, and in padding."""
        found = np.zeros((len(chosen), self.slots, *self.sampling.shape), bool)
        real = chosen[: self.real(example, len(chosen))]
        for (frame, i), (slot, codes) in product(enumerate(real), enumerate(example.masks)):
            if codes[i]:
                picture = Image.fromarray(rle.mask_of(codes[i], example.name).astype(np.uint8))
                rows, columns = self.sampling.fitted(picture.height, picture.width)
                mask = np.asarray(picture.resize((columns, rows), Image.Resampling.NEAREST)).astype(bool)
                found[frame, slot, :rows, :columns] = mask[:, ::-1] if mirrored else mask
        return found


def resize(
    frames: Array, sampling: Sampling, rng: np.random.Generator | None, mirrored: bool, place: float = 0.5
) -> Array:
    """Return frames uint8[L, H, W, 3]: the same part of each, one at random or the square at a place of [0, 1]."""
    height, width = frames.shape[1:3]
    top, left, h, w = 0, 0, height, width
    if not sampling.whole and rng is not None:
        top, left, h, w = preprocess.random_crop(height, width, sampling.scale, RATIO, rng)
    elif not sampling.whole:
        h = w = min(height, width)
        top, left = int(place * (height - h)), int(place * (width - w))
    side, box = sampling.fitted(height, width)[::-1], (left, top, left + w, top + h)
    small = np.stack([np.asarray(Image.fromarray(f).resize(side, Image.Resampling.BILINEAR, box)) for f in frames])
    return spread(small[:, :, ::-1] if mirrored else small, sampling, axis=1)


def spread(array: Array, sampling: Sampling, axis: int = 0) -> Array:
    """Fill rows and columns of a frame, or of several, up to the canvas with zeros."""
    rows, columns = sampling.shape
    return np.ascontiguousarray(pad(pad(array, rows, axis), columns, axis + 1))


def sources(
    data: VideoSet, sampling: Sampling, *, views: int, seed: int, left_out: LeftOut | None = None, **options: Any
) -> Sources:
    """Return part -> its one source: of files of features with their `options`, or of clips.

    Only training clips have random views; test clips have `sampling.tested` frames if that is not 0.
    """
    if data.channels:
        return {part: [FeatureFiles(data, part, left_out=left_out, **options)] for part in data.parts}
    whole = replace(sampling, frames=sampling.tested or sampling.frames)
    return {
        part: [ClipFiles(data, part, sampling, views=views, seed=seed, left_out=left_out)]
        if part == "train"
        else [ClipFiles(data, part, whole, seed=seed, left_out=left_out)]
        for part in data.parts
    }
