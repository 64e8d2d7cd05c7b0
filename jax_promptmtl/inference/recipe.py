"""The way from a picture's file to what a tower takes, as a few lines of Python for those who have Pillow alone."""

from jax_promptmtl.data.preprocess import Preprocess

HEAD = """def prepare(path):
    image, size = Image.open(path, formats=("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")), {size}
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits, or floats from 0 to 1
        grey = np.asarray(image, np.float64) / (1 if image.mode == "F" else 65535)
        image = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
"""
TURN = """    image = ImageOps.exif_transpose(image)
"""
GROUND = """    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, {background!r})
        image = Image.alpha_composite(ground, image.convert("RGBA"))
"""
RGB = """    image = image.convert("RGB")
"""
RESIZE = {
    "shortest": """    short = min(image.size)
    image = image.resize([{edge} * side // short for side in image.size], Image.Resampling.{filter})
""",
    "longest": """    ratio = max(image.size) / {edge}
    image = image.resize([max(1, round(side / ratio)) for side in image.size], Image.Resampling.{filter})
""",
    "squash": """    image = image.resize(({edge}, {edge}), Image.Resampling.{filter})
""",
    "none": "",
}
CROP = {
    "round": """    beyond = [side - size for side in image.size]
    left, top = [round(more / 2) if more > 0 else -(-more // 2) for more in beyond]
""",
    "floor": """    left, top = [(side - size) // 2 for side in image.size]
""",
}
TAIL = """    square = Image.new("RGB", (size, size), ({fill}, {fill}, {fill}))
    square.paste(image, (-left, -top))
    pixels = np.asarray(square, np.float32){scaled}
    return ((pixels - {mean}) / {std}).astype(np.float32)
"""


def recipe(preprocess: Preprocess) -> str:
    """Return the code of a function `prepare(path)` that does what `Preprocess.evaluate` does.

    >>> "exif" in recipe(Preprocess(224)), "squash" in recipe(Preprocess(224)), "BICUBIC" in recipe(Preprocess(224))
    (False, False, True)
    """
    ground = "" if preprocess.reading.ground is None else GROUND
    turn, resize, crop = TURN if preprocess.exif else "", RESIZE[preprocess.resize], CROP[preprocess.offset]
    return "".join([HEAD, turn, ground, RGB, resize, crop, TAIL]).format(
        size=preprocess.size,
        background=preprocess.background,
        edge=preprocess.edge or preprocess.size,
        filter=preprocess.interpolation.upper(),
        fill=preprocess.fill,
        scaled=" / 255" if preprocess.rescale == 1 / 255 else f" * {preprocess.rescale!r}",
        mean=list(preprocess.mean),
        std=list(preprocess.std),
    )
