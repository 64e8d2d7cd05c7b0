"""Random changes of a training clip, the same for all its frames: RandAugment and random erasing, with Pillow.

RandAugment (Cubuk et al. 2020) as the recipes of VideoMAE spell it, `rand-m7-n4-mstd0.5-inc1`: the operations and their
strengths are those of timm's `data/auto_augment.py`, increasing kind. Erasing (Zhong et al. 2020) is that of timm's
`data/random_erasing.py` in the mode `pixel`.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Array = np.ndarray
Picture = Image.Image
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as VideoMAE sees frames
GREY = (128, 128, 128)  # where an operation looks beyond the frame
HIGHEST = 10.0  # magnitude
CHANCE = 0.5  # that an operation which was drawn is applied
AREA, LONG, TRIES = (0.02, 1 / 3), 0.3, 10  # of an erased rectangle: share of the frame, least ratio of sides, draws


def affine(picture: Picture, *matrix: float) -> Picture:
    """Return a picture whose pixel (x, y) is that at (a x + b y + c, d x + e y + f) of another."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=GREY)


def solarize_add(picture: Picture, share: float) -> Picture:
    """Brighten what is darker than the middle."""
    more = int(abs(share) * 110)
    return picture.point([min(255, i + more) if i < 128 else i for i in range(256)] * 3)


def enhance(kind: Callable) -> Callable[[Picture, float], Picture]:
    """Return an operation that strengthens or weakens something by at most 0.9."""
    return lambda picture, share: kind(picture).enhance(1 + 0.9 * share)


OPERATIONS: Mapping[str, Callable[[Picture, float], Picture]] = {  # of a picture and a strength in [-1, 1]
    "auto_contrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "rotate": lambda picture, share: picture.rotate(30 * share, Image.Resampling.BICUBIC, fillcolor=GREY),
    "posterize": lambda picture, share: ImageOps.posterize(picture, 4 - int(4 * abs(share))),
    "solarize": lambda picture, share: ImageOps.solarize(picture, 256 - int(256 * abs(share))),
    "solarize_add": solarize_add,
    "color": enhance(ImageEnhance.Color),
    "contrast": enhance(ImageEnhance.Contrast),
    "brightness": enhance(ImageEnhance.Brightness),
    "sharpness": enhance(ImageEnhance.Sharpness),
    "shear_x": lambda picture, share: affine(picture, 1, 0.3 * share, 0, 0, 1, 0),
    "shear_y": lambda picture, share: affine(picture, 1, 0, 0, 0.3 * share, 1, 0),
    "translate_x": lambda picture, share: affine(picture, 1, 0, 0.45 * share * picture.width, 0, 1, 0),
    "translate_y": lambda picture, share: affine(picture, 1, 0, 0, 0, 1, 0.45 * share * picture.height),
}


def draw(count: int, magnitude: float, spread: float, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Draw operations with their strengths in [-1, 1]; those that are drawn but not applied are left out.

    Args:
      count: operations to draw, n.
      magnitude: mean magnitude of 10, m.
      spread: its standard deviation, mstd.
      rng: the only source of randomness.

    >>> draw(2, 10, 0, np.random.default_rng(0))
    [('shear_y', 1.0)]
    """
    names = list(OPERATIONS)
    found = []
    for number in rng.integers(len(names), size=count):
        applied, sign = rng.random() < CHANCE, 1 if rng.random() < 0.5 else -1
        strength = float(np.clip(rng.normal(magnitude, spread), 0, HIGHEST)) / HIGHEST
        if applied:
            found.append((names[number], sign * strength))
    return found


def augment(frames: Array, count: int, magnitude: float, spread: float, rng: np.random.Generator) -> Array:
    """Apply RandAugment to frames uint8[L, H, W, 3]; see `draw`."""
    pictures = [Image.fromarray(frame) for frame in frames]
    for name, strength in draw(count, magnitude, spread, rng):
        pictures = [OPERATIONS[name](picture, strength) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in pictures])


def erase(frames: Array, chance: float, rng: np.random.Generator) -> Array:
    """Fill, with a probability, one rectangle of all frames uint8[L, H, W, 3] with noise of ImageNet's mean and spread.

    Upstream draws the noise after frames are normalised; here it is cut to the range of pixels.
    """
    if rng.random() >= chance:
        return frames
    height, width = frames.shape[1:3]
    for _ in range(TRIES):
        area = rng.uniform(*AREA) * height * width
        ratio = math.exp(rng.uniform(math.log(LONG), -math.log(LONG)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.normal(MEAN, STD, (len(frames), h, w, 3))
            changed = frames.copy()
            changed[:, top : top + h, left : left + w] = np.clip(255 * noise, 0, 255).round()
            return changed
    return frames
