"""Decoding and preprocessing on the host with Pillow's own bicubic filter, exactly as CLIP's training recipes have it.

Facts: `torchvision.transforms` as used by Dassl `dassl/data/transforms/transforms.py` and openai/CLIP `clip/clip.py`.
"""

import io
import math
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TRIES = 10  # of torchvision's RandomResizedCrop before it falls back to a centre crop


def decode(image: str | os.PathLike[str] | bytes, name: str = "") -> np.ndarray:
    """Decode an image file or its bytes to RGB.

    Args:
      image: path, or the encoded bytes.
      name: what to call bytes in a message.

    Returns:
      uint8[H, W, 3].

    Raises:
      UserError: missing, empty, truncated, or not an image; the message names the file.
    """
    name = name or ("image bytes" if isinstance(image, bytes) else str(image))
    try:
        data = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read image {name!r}: {error.strerror or error}; restore it or leave it out.") from None
    if not data:
        raise UserError(f"Image {name!r} is empty (0 bytes); restore it or leave it out.")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGB"))
    except UnidentifiedImageError:
        reason = "is not an image that Pillow can read"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = f"is broken ({error})"
    raise UserError(f"Image {name!r} {reason}; replace it or leave it out.")


def listing(place: str) -> dict[str, int]:
    """Return {path below a folder: bytes} of its images, sorted; a broken link has 0 bytes."""
    sizes: dict[str, int] = {}
    for entry in os.scandir(place):
        if entry.is_dir() and not entry.name.startswith("."):
            sizes |= {f"{entry.name}/{name}": size for name, size in listing(entry.path).items()}
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
            sizes[entry.name] = entry.stat().st_size if entry.is_file() else 0
    return dict(sorted(sizes.items()))


@dataclass(frozen=True)
class FileSource:
    """Image files, decoded when asked for: `names` are paths below `root`, or absolute."""

    root: str
    names: Sequence[str]
    labels: Sequence[int]
    __repr__ = outline

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": decode(pathlib.Path(self.root, self.names[index])), "label": int(self.labels[index])}


@dataclass(frozen=True)
class Preprocess:
    """Turn an RGB image of any size into the square that a backbone was trained on.

    Attributes:
      size: side of the square, pixels.
      mean, std: per channel, of images in [0, 1].
      scale: range of the cropped share of the area in training; (1, 1) with ratio (1, 1) and no flip is evaluation's.
      ratio: range of width / height of the crop in training.
      flip: probability of a mirror image in training.
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    @property
    def random(self) -> bool:
        """Return whether training images differ from one time to the next."""
        return (*self.scale, *self.ratio, self.flip) != (1, 1, 1, 1, 0)

    def evaluate(self, image: np.ndarray) -> np.ndarray:
        """Resize the short side, crop the centre, normalise.

        Args:
          image: uint8[H, W, 3].

        Returns:
          float32[size, size, 3].
        """
        picture = Image.fromarray(image)
        width, height = resized(*picture.size, self.size)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        # torchvision rounds the offset half to even; HF floors it
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return self.normalise(picture.crop((left, top, left + self.size, top + self.size)))

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
            picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if rng.random() < self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.normalise(picture)

    def normalise(self, picture: Image.Image) -> np.ndarray:
        """Return (pixels / 255 - mean) / std, float32[H, W, 3]."""
        pixels = np.asarray(picture, np.float32) / np.float32(255)
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


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
