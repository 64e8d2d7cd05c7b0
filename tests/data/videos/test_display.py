"""Frames as they are shown: turned, mirrored, square pixels, colours by closed form."""

import fractions

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import display, video_file
from tests import clips, odd_clips

av = pytest.importorskip("av")
ONE = 1 << 16
TURNS = {  # a, b, c, d of the matrix -> what is done to rows and columns, and where the bright corner goes
    (1, 0, 0, 1): (lambda x: x, "top left"),
    (0, 1, -1, 0): (lambda x: np.rot90(x, -1), "top right"),
    (-1, 0, 0, -1): (lambda x: np.rot90(x, 2), "bottom right"),
    (0, -1, 1, 0): (np.rot90, "bottom left"),
    (-1, 0, 0, 1): (np.fliplr, "top right"),
    (1, 0, 0, -1): (np.flipud, "bottom left"),
    (0, 1, 1, 0): (lambda x: x.swapaxes(0, 1), "top left"),
    (0, -1, -1, 0): (lambda x: np.rot90(x, 2).swapaxes(0, 1), "bottom right"),
}


def bright(picture):
    """Return in words which corner is bright."""
    rows, columns = np.indices(picture.shape[:2])[:, picture[..., 1] > 127].mean(1) * 2 > np.array(picture.shape[:2])
    return f"{'bottom' if rows else 'top'} {'right' if columns else 'left'}"


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_all_turns_and_mirrors_are_those_of_the_matrix(turn, suffix, tmp_path):
    a, b, c, d = (value * ONE for value in turn)
    path = odd_clips.shown(tmp_path / f"clip.{suffix}", [a, b, 0, c, d, 0, 0, 0, 1 << 30])
    stored, (done, corner) = odd_clips.plain(path)[1], TURNS[turn]
    frame = video_file.frames(path, [1])[0]
    np.testing.assert_array_equal(frame, done(stored))
    assert bright(frame) == corner


def test_the_angle_of_a_phone_is_clockwise(tmp_path):
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        stream.set_display_rotation(-90)  # counted counter-clockwise
        frame = av.VideoFrame.from_ndarray(clips.picture(1, 32, 64), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_array_equal(video_file.frames(path, [0])[0], np.rot90(odd_clips.plain(path)[0], -1))


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0.2, -0.2, 1)])
def test_other_angles_are_refused_by_name(matrix, tmp_path):
    a, b, c, d = (int(ONE * value) for value in matrix)
    path = odd_clips.shown(tmp_path / "clip.mp4", [a, b, 0, c, d, 0, 0, 0, 1 << 30])
    with pytest.raises(UserError, match="turned by no multiple of 90 degrees; convert it"):
        video_file.frames(path, [0])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize(("aspect", "width"), [((2, 1), 128), ((1, 2), 32), ((16, 15), 68), ((1281, 1280), 64)])
def test_pixels_become_square_by_the_width(aspect, width, suffix, tmp_path):
    path = odd_clips.shown(tmp_path / f"clip.{suffix}", aspect=fractions.Fraction(*aspect))
    frame = video_file.frames(path, [0])[0]
    assert frame.shape == (32, width, 3) and bright(frame) == "top left"
    assert abs((frame[4, :, 1] > 127).mean() - 0.25) < 0.03  # a quarter of the width, as before


def test_absurd_pixels_are_refused(tmp_path):
    path = odd_clips.shown(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    with pytest.raises(UserError, match="are 200 times as wide as high; convert the video"):
        display.shown(frame, 200.0, path)


def test_the_shape_of_pixels_is_that_before_turning(tmp_path):
    quarter = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30]
    path = odd_clips.shown(tmp_path / "clip.mp4", quarter, fractions.Fraction(2))
    assert video_file.frames(path, [0]).shape == (1, 128, 32, 3)


WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
COLOURS = [(16, 128, 128), (235, 128, 128), (100, 90, 180), (150, 180, 100), (60, 150, 120)]


def closed_form(colour, matrix, full):
    """Return RGB of Y, Cb, Cr by ITU-T H.273."""
    y, cb, cr = colour
    red, blue = WEIGHTS[matrix]
    light = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (cb, cr))
    r, b = light + 2 * (1 - red) * cr, light + 2 * (1 - blue) * cb
    return np.clip(255 * np.array([r, (light - red * r - blue * b) / (1 - red - blue), b]), 0, 255)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_colours_follow_the_matrix_and_the_range_of_the_stream(suffix, matrix, full, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for number, colour in enumerate(COLOURS):
            frame = av.VideoFrame(32, 32, "yuv420p")
            for plane, value in zip(frame.planes, colour, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full else 1, number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = video_file.frames(path, range(len(COLOURS)))[:, 16, 16]
    wanted = [closed_form(colour, matrix, full) for colour in COLOURS]
    np.testing.assert_allclose(shown, wanted, atol=2.5)


def test_a_matrix_that_is_not_converted_is_refused(tmp_path):
    path = odd_clips.shown(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    unnamed = display.shown(frame, 1.0, path)
    frame.colorspace = 3  # reserved: nobody knows which
    np.testing.assert_array_equal(display.shown(frame, 1.0, path), unnamed)
    frame.colorspace = 8
    with pytest.raises(UserError, match=r"matrix 8 of ITU-T H\.273, which is not converted"):
        display.shown(frame, 1.0, path)
