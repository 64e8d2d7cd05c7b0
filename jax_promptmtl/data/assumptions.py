"""What decoding a picture loses or assumes, told from its header."""

import os

from PIL import Image

from jax_promptmtl.data.images import DROPPED, PLAIN, Reading, guarded, open_picture, orientation

SMALL, LARGE, LONG = 4, 16, 2  # how far a short side may be from the model's, and a long side from the short one
PLAIN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX", "La", "RGBa", "YCbCr")


def assumptions(path: str | os.PathLike[str], reading: Reading = PLAIN, size: int = 0) -> list[str]:
    """Return, in words that follow "3 images ", what decoding a file loses or assumes.

    Args:
      path: the file.
      reading: how it is decoded.
      size: side of the pictures that the model takes; 0 if that is unknown.

    Raises:
      UserError: the file cannot be opened.
    """
    with guarded(str(path)), open_picture(path, str(path), reading) as picture:
        found = [
            (picture.has_transparency_data, transparent(reading)),
            (getattr(picture, "is_animated", False), "have several frames or pages: the first is used"),
            (picture.mode.startswith("I"), "have 16 bits: 65,535 is white, 8 bits are kept"),
            (picture.mode == "F", "have floating-point numbers: 1 is white, 8 bits are kept"),
            (is_deep_colour(picture), "have colours of 16 bits: 8 bits are kept"),
            (picture.mode in ("CMYK", "LAB", "HSV"), "have other colours than RGB: they are converted"),
            (has_profile(picture), "have a colour profile other than sRGB: it is not applied"),
            (orientation(picture) != 1, turned(reading)),
            *sides(*picture.size, size),
        ]
    return [words for applies, words in found if applies]


def transparent(reading: Reading) -> str:
    """Return what happens to transparency."""
    if reading.background == DROPPED:
        return "are transparent: that is dropped, whatever is below comes forth"
    return f"are transparent: they are laid on {reading.background}"


def turned(reading: Reading) -> str:
    """Return what happens to an orientation."""
    return (
        "are turned as their EXIF says" if reading.exif else "are left as stored, though their EXIF says to turn them"
    )


def is_deep_colour(picture: Image.Image) -> bool:
    """Return whether a colour picture has more than 8 bits, of which its decoder leaves 8."""
    raw = [
        part
        for tile in getattr(picture, "tile", ())
        for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    ]
    return picture.mode in ("RGB", "RGBA", "LA") and any(isinstance(part, str) and ";16" in part for part in raw)


def has_profile(picture: Image.Image) -> bool:
    """Return whether a picture has a colour profile that is not sRGB's."""
    profile = picture.info.get("icc_profile") or b""
    return bool(profile) and b"sRGB" not in profile and b"s\0R\0G\0B" not in profile


def sides(width: int, height: int, size: int) -> list[tuple[bool, str]]:
    """Return what there is to say of the sides of a picture."""
    short, long = sorted((width, height))
    return [
        (bool(size) and short * SMALL < size, f"are tiny: enlarged more than {SMALL} times, to {size} pixels"),
        (bool(size) and short > LARGE * size, f"are more than {LARGE} times larger than the model's {size} pixels"),
        (long > LONG * short, f"are more than {LONG} times longer than wide or wider than long"),
    ]
