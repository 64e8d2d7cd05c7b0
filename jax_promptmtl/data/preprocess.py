"""From an RGB picture of any size to the square that a backbone expects, with Pillow's own filters on the host.

Facts: `torchvision.transforms` as used by Dassl `dassl/data/transforms/transforms.py` and openai/CLIP `clip/clip.py`;
`open_clip/transform.py`; `CLIPImageProcessor` of transformers.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data.images import STORED, Reading

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TRIES = 10  # of torchvision's RandomResizedCrop before it falls back to a centre crop
FILTERS = {kind.name.lower(): kind for kind in Image.Resampling}
RESIZES = ("shortest", "longest", "squash", "none")
OFFSETS = ("round", "floor")


@dataclass(frozen=True)
class Preprocess:
    """Turn an RGB image of any size into the square that a backbone was trained on.

    Attributes:
      size: side of the square, pixels.
      mean, std: per channel, of images in [0, 1].
      scale: range of the cropped share of the area in training; (1, 1) with ratio (1, 1) and no flip is evaluation's.
      ratio: range of width / height of the crop in training.
      flip: probability of a mirror image in training.
      resize: "shortest" or "longest" side to `edge`, "squash" to a square, or "none".
      edge: sides after resizing, pixels; `size` where it is 0.
      interpolation: name of Pillow's filter.
      offset: of the centre crop: "round" half to even as torchvision, or "floor" as transformers.
      fill: grey, 0 to 255, around pictures that are smaller than the square.
      rescale: what a grey level is multiplied with before mean and std.
      background, exif: what decoding has to decide, see `Reading`; what checkpoints without these keys were made with.
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    resize: str = "shortest"
    edge: int = 0
    interpolation: str = "bicubic"
    offset: str = "round"
    fill: int = 0
    rescale: float = 1 / 255
    background: str = STORED.background
    exif: bool = STORED.exif

    def __post_init__(self) -> None:
        """Refuse what is unknown."""
        pick(self.resize, RESIZES, "way to resize pictures")
        pick(self.interpolation, FILTERS, "interpolation of pictures")
        pick(self.offset, OFFSETS, "offset of the centre crop")
        if self.size < 1 or self.edge < 0:
            raise UserError(f"Pictures of {self.size} pixels, resized to {self.edge}, are none; correct the sizes.")

    @property
    def reading(self) -> Reading:
        """Return what decoding has to decide."""
        return Reading(self.background, self.exif)

    @property
    def random(self) -> bool:
        """Return whether training images differ from one time to the next."""
        return (*self.scale, *self.ratio, self.flip) != (1, 1, 1, 1, 0)

    def evaluate(self, image: np.ndarray) -> np.ndarray:
        """Resize, crop or pad around the centre, normalise.

        Args:
          image: uint8[H, W, 3].

        Returns:
          float32[size, size, 3].
        """
        picture = Image.fromarray(image)
        sides = self.sides(*picture.size)
        if sides != picture.size:
            picture = picture.resize(sides, FILTERS[self.interpolation])
        left, top = (self.start(side) for side in sides)
        if self.fill and min(sides) < self.size:
            square = Image.new("RGB", (self.size, self.size), (self.fill,) * 3)
            square.paste(picture, (-left, -top))
            return self.normalise(square)
        return self.normalise(picture.crop((left, top, left + self.size, top + self.size)))

    def sides(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after resizing."""
        edge = self.edge or self.size
        if self.resize == "none":
            return width, height
        if self.resize == "squash":
            return edge, edge
        if self.resize == "shortest":
            return resized(width, height, edge)
        ratio = max(width, height) / edge
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def start(self, side: int) -> int:
        """Return where the square starts on a side; below zero where the side is shorter.

        >>> [Preprocess(224).start(side) for side in (225, 227, 221)], Preprocess(224, offset="floor").start(227)
        ([0, 2, -1], 1)
        """
        if self.offset == "floor":
            return (side - self.size) // 2
        return round((side - self.size) / 2) if side >= self.size else -((self.size - side) // 2)

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Crop at random, resize, mirror at random, normalise.

        Args:
          image: uint8[H, W, 3].
          rng: the only source of randomness.

        Returns:
          float32[size, size, 3].
        """
        if not self.random:
            return self.evaluate(image)
        height, width = image.shape[:2]
        top, left, h, w = random_crop(height, width, self.scale, self.ratio, rng)
        picture = Image.fromarray(image[top : top + h, left : left + w])
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), FILTERS[self.interpolation])
        if rng.random() < self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.normalise(picture)

    def normalise(self, picture: Image.Image) -> np.ndarray:
        """Return (pixels * rescale - mean) / std, float32[H, W, 3]."""
        grey = np.asarray(picture, np.float32)
        pixels = grey / np.float32(255) if self.rescale == 1 / 255 else grey * np.float32(self.rescale)
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """Return normalised pixels as floats in 0 to 1."""
        grey = (pixels * np.array(self.std) + np.array(self.mean)) / (255 * self.rescale)
        clipped: np.ndarray = np.clip(grey, 0, 1)
        return clipped


def resized(width: int, height: int, size: int) -> tuple[int, int]:
    """Return (width, height) with the short side `size`; the long side is truncated, not rounded.

    >>> resized(500, 333, 224)
    (336, 224)
    """
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def random_crop(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a crop (top, left, height, width) as torchvision's `RandomResizedCrop.get_params` does.

    The area is uniform in `scale` times the image's, the ratio log-uniform; after ten misfits the largest centred crop
    whose ratio is legal.

    >>> random_crop(10, 100, (1, 1), (1, 1), np.random.default_rng(0))
    (0, 45, 10, 10)
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w
