"""The exported lines of Python do what training did: on pictures of every kind, for every way to prepare them."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from jax_promptmtl.data import images
from jax_promptmtl.data.preprocess import Preprocess
from jax_promptmtl.inference.recipe import recipe

RNG = np.random.default_rng(0)
WAYS = [
    {},
    {"background": "white", "exif": True},
    {"background": "#0a141e", "exif": True, "resize": "squash", "interpolation": "bilinear"},
    {"background": "white", "exif": True, "resize": "longest", "fill": 77},
    {"background": "white", "exif": True, "edge": 30, "offset": "floor", "rescale": 1 / 127.5},
    {"background": "white", "exif": True, "edge": 20, "offset": "floor", "resize": "shortest"},
    {"background": "white", "exif": True, "resize": "none", "interpolation": "nearest"},
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, (h, w) in enumerate([(24, 24), (37, 25), (20, 91), (9, 12), (90, 33)]):
        rgb = Image.fromarray(RNG.integers(0, 256, (h, w, 3), np.uint8))
        rgb.save(place / f"{number}.png")
        rgb.save(place / f"{number}.jpg", exif=exif)
        Image.fromarray(RNG.integers(0, 256, (h, w, 4), np.uint8)).save(place / f"{number}_clear.png")
        Image.fromarray(RNG.integers(0, 65536, (h, w), np.uint16)).save(place / f"{number}_deep.png")
        Image.fromarray(RNG.random((h, w), np.float32)).save(place / f"{number}_float.tif")
        rgb.convert("CMYK").save(place / f"{number}_cmyk.jpg")
        rgb.quantize(8).save(place / f"{number}_palette.gif")
        rgb.convert("1").save(place / f"{number}_bits.png")
    return sorted(place.iterdir())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_recipe_is_the_preprocessing(way, pictures):
    preprocess = Preprocess(24, **way)
    names = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(recipe(preprocess), names)
    for path in pictures:
        expected = preprocess.evaluate(images.decode(path, reading=preprocess.reading))
        np.testing.assert_allclose(names["prepare"](path), expected, atol=2e-6, err_msg=path.name)


def test_every_way_there_is_has_its_lines():
    for resize, offset in itertools.product(("shortest", "longest", "squash", "none"), ("round", "floor")):
        compile(recipe(Preprocess(8, resize=resize, offset=offset)), "recipe", "exec")
