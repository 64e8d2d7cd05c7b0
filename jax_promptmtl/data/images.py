"""The one decoder of pictures: by named formats only, within bounds, to upright RGB on a stated ground."""

import contextlib
import io
import os
import pathlib
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.core.outline import outline

FORMATS = {  # of Pillow's decoders those that start no program: its name of the format, and the endings of such files
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),  # has no signature: tried for these endings only
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MOST = 178_000_000  # pixels of a file; Pillow itself stops a little above
DROPPED = "none"  # the ground of those who want transparency dropped, as Dassl does
BYTES = 16  # most bytes of a file per pixel that it may have: 4 channels of 4
ONE = 1e-6  # what a picture of floats may lie outside 0 to 1, by rounding


@dataclass(frozen=True)
class Reading:
    """What decoding has to decide.

    Attributes:
      background: colour on which transparent pictures are laid, in any spelling of Pillow; "none" drops transparency.
      exif: whether pictures are turned as their EXIF orientation says.
      pixels: most pixels that a file may have.
    """

    background: str = "white"
    exif: bool = True
    pixels: int = MOST

    def __post_init__(self) -> None:
        """Refuse what is no colour."""
        try:
            _ = self.ground
        except (ValueError, AttributeError):
            raise UserError(
                f"The background {self.background!r} is no colour; give one such as white, #202020, or none."
            ) from None

    @property
    def options(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as options of `Preprocess`."""
        return {"background": self.background, "exif": self.exif}

    @property
    def ground(self) -> tuple[int, ...] | None:
        """Return the background's RGB, None where transparency is dropped."""
        return None if self.background == DROPPED else ImageColor.getrgb(self.background)[:3]


PLAIN = Reading()
STORED = Reading(DROPPED, exif=False)  # as Dassl reads pictures, and those that are masks


class Budget:
    """Lets threads hold so many pixels together; one that wants more waits until it is alone."""

    def __init__(self, limit: int):
        self.limit, self.held, self.change = limit, 0, threading.Condition()

    @contextlib.contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for room, and keep it while the context lasts."""
        with self.change:
            self.change.wait_for(lambda: not self.held or self.held + pixels <= self.limit)
            self.held += pixels
        try:
            yield
        finally:
            with self.change:
                self.held -= pixels
                self.change.notify_all()


BUDGET = Budget(MOST // 4)  # of all threads: decoding, copying and resizing take about 12 bytes a pixel


def decode(image: str | os.PathLike[str] | bytes, name: str = "", reading: Reading = PLAIN) -> np.ndarray:
    """Decode an image file or its bytes to RGB.

    Args:
      image: path, or the encoded bytes.
      name: what to call bytes in a message.
      reading: ground, orientation and bounds.

    Returns:
      uint8[H, W, 3].

    Raises:
      UserError: missing, no regular file, empty, too large, truncated, or not an image; the message names the file.
    """
    with decoded(image, name, reading) as pixels:
        return pixels


@contextlib.contextmanager
def decoded(image: str | os.PathLike[str] | bytes, name: str = "", reading: Reading = PLAIN) -> Iterator[np.ndarray]:
    """Decode as `decode` does; while the context lasts, the picture counts among those that threads hold together."""
    name = name or ("image bytes" if isinstance(image, bytes) else str(image))
    with contextlib.ExitStack() as stack:
        with guarded(name):
            picture = open_picture(image, name, reading)
            stack.enter_context(BUDGET.hold(picture.width * picture.height))
            pixels = to_rgb(picture, name, reading)
            del picture  # of a large one 4 bytes a pixel
        yield pixels


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one sentence that names the picture."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly everything: SyntaxError, NotImplementedError, struct.error ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Image {name!r} is broken ({reason}); replace it or leave it out.") from None


def open_picture(image: str | os.PathLike[str] | bytes, name: str, reading: Reading = PLAIN) -> Image.Image:
    """Return the picture of a file or its bytes, of which only the header is read yet; within `guarded`."""
    data = image if isinstance(image, bytes) else read_bytes(pathlib.Path(image), name, BYTES * reading.pixels)
    if not data:
        raise UserError(f"Image {name!r} is empty (0 bytes); restore it or leave it out.")
    if Image.MAX_IMAGE_PIXELS is not None and reading.pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = reading.pixels  # at the user's wish; else Pillow's own bound stays
    try:
        picture = Image.open(io.BytesIO(data), formats=decoders(name))
    except UnidentifiedImageError:
        known = Image.registered_extensions().get(pathlib.Path(name).suffix.lower())
        why = f"no decoder for {known} is used here" if known and known not in FORMATS else "or it is damaged"
        raise UserError(
            f"Image {name!r} is not an image that Pillow can read ({why}); replace it or leave it out."
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(too_large(name, str(error))) from None
    if picture.width * picture.height > reading.pixels:
        raise UserError(too_large(name, f"{picture.width} x {picture.height} pixels, more than {reading.pixels:,}"))
    return picture


def too_large(name: str, reason: str) -> str:
    """Return the message about a picture beyond the bound."""
    return f"Image {name!r} is too large ({reason}); shrink it, leave it out, or raise megapixels."


def read_bytes(path: pathlib.Path, name: str, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes; pipes, devices and sockets are not opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"Image {name!r} is no regular file; replace it or leave it out.")
        if status.st_size > most:
            raise UserError(too_large(name, f"{status.st_size:,} bytes"))
        with open(path, "rb", opener=lambda place, flags: os.open(place, flags | os.O_NONBLOCK)) as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read image {name!r}: {reason}; restore it or leave it out.") from None


def decoders(name: str) -> list[str]:
    """Return the formats to try for a file of that name, of those that this Pillow was built with."""
    Image.init()
    unsigned = pathlib.Path(name).suffix.lower() in FORMATS["TGA"]
    return [kind for kind in FORMATS if kind in Image.OPEN and (kind != "TGA" or unsigned)]


def to_rgb(picture: Image.Image, name: str = "a picture", reading: Reading = PLAIN) -> np.ndarray:
    """Return an opened picture's first frame upright, on its ground, in 8 bits: uint8[H, W, 3].

    Numbers of 16 bits are divided by 257, so that 65,535 is white; Pillow keeps those of modes I;16 and I so. Floats
    (mode F) must lie in 0 to 1, and 1 is white. What does not fit is refused.
    """
    picture.load()
    kind = picture.format
    if reading.exif and orientation(picture) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return deep(picture, name, reading, is_16_bit=picture.mode != "I" or kind == "PPM")
    if picture.mode == "LAB":
        profile = ImageCms.createProfile
        picture = ImageCms.profileToProfile(picture, profile("LAB"), profile("sRGB"), outputMode="RGB") or picture
    if reading.ground is None or not picture.has_transparency_data:
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    if picture.mode == "La":
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, (*reading.ground, 255))
    return np.asarray(Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB"))


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1, upright, where it has none or none that can be read."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data do no harm to the pixels
        return 1
    return value if value in range(1, 9) else 1


def deep(picture: Image.Image, name: str, reading: Reading, *, is_16_bit: bool) -> np.ndarray:
    """Return a grey picture of more than 8 bits as uint8[H, W, 3]; see `to_rgb`."""
    values = np.array(picture)
    if not is_16_bit and values.max() <= 255:
        raise UserError(
            f"Image {name!r} has 32-bit numbers (mode I) of at most {values.max()}, where 65,535 would be white; save "
            "it with 8 or 16 bits."
        )
    grey = to_bytes(values if picture.mode == "F" else sixteen(values, name), name)
    clear = picture.info.get("transparency")
    if isinstance(clear, int) and reading.ground is not None:
        return np.where((values == clear)[..., None], np.array(reading.ground, np.uint8), grey[..., None])
    return np.repeat(grey[..., None], 3, axis=2)


def sixteen(values: np.ndarray, name: str) -> np.ndarray:
    """Return whole numbers as uint16, if all of them are such."""
    if values.min() < 0 or values.max() > 65_535:
        raise UserError(
            f"Image {name!r} has numbers from {values.min()} to {values.max()}, more than 16 bits hold; save it with 8 "
            "or 16 bits."
        )
    return values.astype(np.uint16)


def to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Return numbers as uint8: such as they are, 16 bits divided by 257, floats times 255; rounded, half to even.

    >>> to_bytes(np.array([0, 128, 129, 65535], np.uint16), "x").tolist(), to_bytes(np.array([0.0, 1.0]), "x").tolist()
    ([0, 0, 1, 255], [0, 255])
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f":
        raise UserError(f"{name} has numbers of type {values.dtype}; give uint8, uint16, or floats in 0 to 1.")
    if not (values.min() >= -ONE and values.max() <= 1 + ONE):  # also where one is no number
        raise UserError(
            f"Image {name!r} has floating-point numbers from {values.min():g} to {values.max():g}, where 0 is black "
            "and 1 white; scale it, or save it with 8 or 16 bits."
        )
    scaled: np.ndarray = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return scaled


def from_array(array: np.ndarray, reading: Reading = PLAIN) -> np.ndarray:
    """Return a picture that is an array as uint8[H, W, 3].

    Args:
      array: [H, W] or [H, W, 1] grey, [H, W, 3] RGB or [H, W, 4] RGBA, of uint8, uint16, or floats in 0 to 1.
      reading: the ground of transparent pictures.
    """
    kind = f"An image array is {array.dtype}{list(array.shape)}"
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(f"{kind}; give uint8[height, width, 3] in RGB.")
    values = to_bytes(array, kind)
    if values.ndim == 3 and values.shape[2] == 4:
        return to_rgb(Image.fromarray(values), "an array", reading)
    grey = values if values.ndim == 2 else values[..., 0]
    return values if values.ndim == 3 and values.shape[2] == 3 else np.repeat(grey[..., None], 3, axis=2)


@dataclass(frozen=True)
class FileSource:
    """Image files, decoded when asked for: `names` are paths below `root`, or absolute."""

    root: str
    names: Sequence[str]
    labels: Sequence[int]
    reading: Reading = PLAIN
    __repr__ = outline

    def __len__(self) -> int:
        return len(self.names)

    def place(self, index: int) -> pathlib.Path:
        """Return the path of an image."""
        return pathlib.Path(self.root, self.names[index])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": decode(self.place(index), reading=self.reading), "label": int(self.labels[index])}
