"""One decoder for all pictures: against Pillow's and numpy's arithmetic, and against pictures that want to do harm."""

import io
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

import jax_promptmtl
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import images
from jax_promptmtl.data.images import Reading

RNG = np.random.default_rng(0)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def encoded(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


def test_decode_gives_rgb_of_files_and_bytes(tmp_path):
    image = picture(9, 7)
    (tmp_path / "a.png").write_bytes(encoded(image, format="PNG"))
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png"), image)
    grey = Image.fromarray(image[..., 0])
    grey.save(tmp_path / "g.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "g.png"), np.repeat(image[..., :1], 3, -1))


def resized_header(png, side):
    """Return a PNG that claims to be a square of another size."""
    header = png[12:16] + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    "content,reason",
    [
        (None, "Cannot read image"),
        (b"", "is empty"),
        (b"not an image", "not an image that Pillow can read"),
        (encoded(picture(64, 64), format="JPEG")[:1500], "is broken"),
        (encoded(picture(64, 64), format="PNG")[:3000], "is broken"),
        (resized_header(encoded(picture(8, 8), format="PNG"), 20_000), "is too large .*decompression bomb"),
    ],
    ids=["missing", "empty", "text", "truncated jpeg", "truncated png", "bomb"],
)
def test_bad_images_are_one_sentence_that_names_the_file(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        images.decode(path)
    assert "bad.jpg" in str(error.value) and "\n" not in str(error.value)


# --- deep, transparent and turned pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif", "a.pgm"])
def test_16_bits_are_divided_by_257(tmp_path, name):
    values = RNG.integers(0, 65536, (5, 7), np.uint16)
    if name == "big.tif":
        Image.frombytes("I;16B", (7, 5), values.astype(">u2").tobytes()).save(tmp_path / name)
    elif name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 7 5 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    expected = np.rint(values / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(images.decode(tmp_path / name), np.repeat(expected[..., None], 3, 2))


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n\x00\x10\x00\xff")
    np.testing.assert_array_equal(images.decode(tmp_path / "dark.pgm")[0, :, 0], [0, 1])


def test_floats_from_0_to_1(tmp_path):
    values = RNG.random((5, 7), np.float32)
    for name in ("a.tif", "a.pfm"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(images.decode(tmp_path / name)[..., 1], np.rint(255 * values))


@pytest.mark.parametrize(
    "values, message",
    [
        (np.array([[0, 255]], np.float32), "floating-point numbers from 0 to 255"),
        (np.array([[-0.5, 1]], np.float32), "floating-point numbers from -0.5"),
        (np.array([[np.nan, 1]], np.float32), "floating-point numbers from nan"),
        (np.array([[0, 70_000]], np.int32), "numbers from 0 to 70000, more than 16 bits"),
        (np.array([[-1, 300]], np.int32), "numbers from -1 to 300"),
        (np.array([[0, 255]], np.int32), "32-bit numbers .* of at most 255"),
    ],
)
def test_what_no_rule_fits_is_refused_by_name(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=message):
        images.decode(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=message):
        images.to_rgb(Image.fromarray(values))


def transparent(mode):
    """Return a picture with black ink on nothing, in any mode that can be transparent, and where the ink is."""
    ink = RNG.random((6, 8)) < 0.4
    alpha = np.where(ink, 255, 0).astype(np.uint8)
    if mode in ("LA", "La"):
        return Image.merge("LA", [Image.new("L", (8, 6)), Image.fromarray(alpha)]).convert(mode), ink
    if mode in ("RGBA", "RGBa", "PA"):
        return Image.fromarray(np.stack([0 * alpha] * 3 + [alpha], 2)).convert(mode), ink
    grey = Image.fromarray(np.where(ink, 0, 200).astype(np.uint8))
    image = grey.quantize(4) if mode == "P" else grey.convert(mode)
    image.info["transparency"] = {"P": image.getpixel(tuple(np.argwhere(~ink)[0][::-1].tolist()))}.get(
        mode, {"L": 200, "RGB": (200,) * 3, "I;16": 200}.get(mode)
    )
    return image, ink


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB", "RGBa", "La", "I;16"])
@pytest.mark.parametrize("background", ["white", "#0a141e"])
def test_transparent_pictures_lie_on_the_ground(mode, background):
    image, ink = transparent(mode)
    ground = {"white": (255,) * 3}.get(background, (10, 20, 30))
    expected = np.where(ink[..., None], 0, np.array(ground))
    np.testing.assert_array_equal(images.to_rgb(image, reading=Reading(background)), expected)
    file = io.BytesIO()
    try:
        image.save(file, "png")
    except (OSError, ValueError, KeyError):
        return  # Pillow writes no such PNG
    np.testing.assert_array_equal(images.decode(file.getvalue(), reading=Reading(background)), expected)


def test_half_transparent_pixels_are_mixed():
    rgba = RNG.integers(0, 256, (40, 40, 4), np.uint8)
    share = rgba[..., 3:] / 255
    expected = rgba[..., :3] * share + np.array([10, 20, 30]) * (1 - share)
    assert np.abs(images.from_array(rgba, Reading("#0a141e")).astype(float) - expected).max() <= 1
    np.testing.assert_array_equal(images.from_array(rgba, images.STORED), rgba[..., :3])


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_pictures_stand_upright(turn, kind):
    image, exif = Image.fromarray(np.kron(picture(3, 5), np.ones((8, 8, 1), np.uint8))), Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(file.getvalue()), upright)
    assert (upright.shape[0] > upright.shape[1]) == (turn > 4)
    if kind != "tiff":  # whose decoder turns pictures itself
        stored = np.asarray(Image.open(file).convert("RGB"))
        np.testing.assert_array_equal(images.decode(file.getvalue(), reading=Reading(exif=False)), stored)


def test_damaged_exif_data_do_no_harm():
    file = io.BytesIO()
    Image.fromarray(picture(8, 8)).save(file, "jpeg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert images.decode(file.getvalue()).shape == (8, 8, 3)


def test_the_callers_picture_is_left_alone():
    image, _ = transparent("P")
    before = image.copy()
    images.to_rgb(image)
    assert image == before and image.mode == "P"


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_models(tmp_path, mode):
    flat = np.kron(picture(2, 2), np.ones((8, 8, 1), np.uint8))
    image = Image.fromarray(flat)
    if mode == "LAB":
        profile = ImageCms.createProfile
        image = ImageCms.profileToProfile(image, profile("sRGB"), profile("LAB"), outputMode="LAB")
    else:
        image = image.convert(mode)
    expected = flat if mode != "1" else np.asarray(image.convert("RGB"))
    assert np.abs(images.to_rgb(image).astype(int) - expected).max() <= (12 if mode == "LAB" else 4)


def test_the_first_frame_of_many_is_read(tmp_path):
    frames = [Image.fromarray(picture(6, 6)) for _ in range(3)]
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        first = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        np.testing.assert_array_equal(images.decode(tmp_path / name), first)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_arrays_are_read_by_the_same_rules(shape, kind):
    small = RNG.integers(0, 256, shape, np.uint8)
    if len(shape) == 3 and shape[2] == 4:
        small[..., 3] = 255
    array = {np.uint8: small, np.uint16: small.astype(np.uint16) * 257, np.float32: (small / 255).astype(np.float32)}
    grey = small if small.ndim == 3 else small[..., None]
    expected = np.repeat(grey, 3, 2) if grey.shape[2] == 1 else grey[..., :3]
    np.testing.assert_array_equal(images.from_array(array[kind]), expected)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 2), np.uint8), np.zeros((2, 2), np.int64), np.zeros(3), np.zeros((0, 2))]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(UserError, match="array"):
        images.from_array(array)


def test_a_background_that_is_no_colour_is_refused():
    with pytest.raises(UserError, match="'shiny' is no colour"):
        Reading("shiny")


# --- harm -------------------------------------------------------------------------------------------------------------


def test_no_program_is_started(tmp_path, monkeypatch):
    """A text that begins like PostScript would have Ghostscript look at it."""
    for start in ("Popen", "check_call", "run", "call"):
        monkeypatch.setattr(subprocess, start, pytest.fail)
    monkeypatch.setattr(os, "system", pytest.fail)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for name in ("a.png", "a.eps", "a.jpg"):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(UserError, match=f"{name}' is not an image that Pillow can read"):
            images.decode(tmp_path / name)


def test_every_opening_of_a_picture_names_its_decoders():
    for file in pathlib.Path(jax_promptmtl.__file__).parent.rglob("*.py"):
        for call in re.findall(r"Image\.open\([^\n]*", file.read_text()):
            assert "formats=" in call, (file, call)


def test_the_formats_are_pillows():
    Image.init()
    known = {suffix: kind for suffix, kind in Image.registered_extensions().items() if kind in images.FORMATS}
    ours = {suffix: kind for kind, suffixes in images.FORMATS.items() for suffix in suffixes}
    assert known.items() <= {suffix: kind for suffix, kind in ours.items()}.items()
    assert not {"EPS", "WMF", "PSD", "FITS", "PDF"} & set(images.FORMATS)


@pytest.mark.parametrize("suffix", [s for s in images.SUFFIXES if s not in (".icns", ".dds", ".avifs")])
def test_every_format_is_read(tmp_path, suffix):
    image = Image.fromarray(np.full((16, 16, 3), 128, np.uint8))
    if suffix in (".pbm", ".pgm", ".pfm", ".bw"):
        image = image.convert({".pbm": "1", ".pfm": "F"}.get(suffix, "L"))
        image = image.point(lambda value: value / 255) if suffix == ".pfm" else image
    path = tmp_path / f"a{suffix}"
    if suffix == ".ras":  # which Pillow reads and does not write
        path.write_bytes(struct.pack(">8I", 0x59A66A95, 16, 16, 24, 768, 1, 0, 0) + b"\x80" * 768)
    else:
        image.save(path)
    assert images.decode(path).shape == (16, 16, 3)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # names of sockets are short
        server.bind("socket.png")
        os.chdir(here)
        for name in ("pipe", "loop", "zero", "folder", "socket"):
            with pytest.raises(UserError, match=f"{name}.png'"):
                images.decode(tmp_path / f"{name}.png")


def test_whatever_a_decoder_raises_is_one_sentence(monkeypatch):
    class Nasty(Image.Image):
        format, size, error = "PNG", (2, 2), Exception()

        def load(self):
            raise self.error

    for Nasty.error in (
        RuntimeError("a\nb"),
        AttributeError(),
        RecursionError("deep"),
        MemoryError(),
        struct.error("short"),
    ):
        monkeypatch.setattr(images.Image, "open", lambda *_, **__: Nasty())
        with pytest.raises(UserError, match=r"Image 'x.png' is broken") as caught:
            images.decode(b"bytes", "x.png")
        assert "\n" not in str(caught.value)


def test_a_picture_beyond_the_bound_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"300 x 200 pixels, more than 59,999.*megapixels"):
        images.decode(tmp_path / "a.png", reading=Reading(pixels=59_999))
    assert images.decode(tmp_path / "a.png", reading=Reading(pixels=60_000)).shape == (200, 300, 3)
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="too large"):
        images.decode(tmp_path / "sparse.png")


def test_a_larger_bound_is_the_users_wish(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow refuses twice that
    data = encoded(picture(11, 10), format="PNG")
    with pytest.raises(UserError, match="is too large"):
        images.decode(data, reading=Reading(pixels=100))
    assert images.decode(data, reading=Reading(pixels=110)).shape == (11, 10, 3)


def test_threads_hold_no_more_than_the_budget():
    budget, held, most = images.Budget(10), [], []

    def hold(pixels):
        with budget.hold(pixels):
            held.append(pixels)
            most.append(sum(held))
            time.sleep(0.002)
            held.remove(pixels)

    threads = [threading.Thread(target=hold, args=(pixels,)) for pixels in (4, 4, 4, 25, 4, 7, 3) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 21 and budget.held == 0 and {total for total in most if total > 10} == {25}
