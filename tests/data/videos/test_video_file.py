"""Frames by number, against clips whose pixels spell the numbers: even and uneven rates, several containers."""

import builtins

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import video_file
from tests import clips

pytest.importorskip("av")
COUNT = 40
UNEVEN = np.cumsum([0] + [(33, 33, 100, 10)[i % 4] for i in range(COUNT - 1)])
FILES = {
    "even.mp4": {"bf": "3"},
    "uneven.mp4": {"stamps": UNEVEN, "bf": "3"},
    "even.webm": {"rate": 30},
    "uneven.webm": {"stamps": UNEVEN},
    "even.avi": {},
    "even.mkv": {"bf": "2"},
    "hidden.webm": {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "12"},
    "stampless.avi": {"codec": "libx264", "bf": "3"},  # packets of AVI have no time of showing
    "xvid.avi": {"codec": "mpeg4", "bf": "2"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("video")
    return {name: clips.write(root / name, COUNT, **options) for name, options in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_the_one_of_its_number(files, name):
    assert video_file.length(files[name]) == COUNT
    wanted = [39, 0, 7, 8, 9, 8, 23, 31, 16]
    read = video_file.frames(files[name], wanted)
    assert read.shape == (len(wanted), clips.HEIGHT, clips.WIDTH, 3) and read.dtype == np.uint8
    assert [clips.number(frame) for frame in read] == wanted
    assert [clips.number(frame) for frame in video_file.frames(files[name], range(COUNT))] == list(range(COUNT))
    for one in (0, 3, 15, 38):  # a seek for each
        assert clips.number(video_file.frames(files[name], [one])[0]) == one


def test_an_uneven_rate_is_known_and_times_find_frames(files):
    rates = {name: video_file.read_timeline(files[name]).rate for name in ("even.mp4", "even.webm", "uneven.webm")}
    assert rates["uneven.webm"] is None and video_file.read_timeline(files["uneven.mp4"]).rate is None
    assert rates["even.mp4"] == pytest.approx(25) and rates["even.webm"] == pytest.approx(30, rel=1e-2)
    for number in (0, 4, 21, 39):
        assert video_file.nearest(files["uneven.mp4"], UNEVEN[number] / 1000 + 0.002) == number
        assert video_file.nearest(files["even.mp4"], number / 25) == number
    with pytest.raises(UserError, match=r"lasts 1\.60 seconds, but second 2 is labelled"):
        video_file.nearest(files["even.mp4"], 2.0)


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = clips.write_pictures(tmp_path / "a", 12, start=0, step=5, pattern="{}.jpg")
    assert [clips.number(frame) for frame in video_file.frames(folder, [11, 0, 2])] == [11, 0, 2]
    assert video_file.length(folder) == 12 and video_file.nearest(folder, 1.9, folder_rate=4) == 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "img_00004.jpg").unlink(), "'img_00003.jpg' and 'img_00005.jpg' side by side"),
        (lambda folder: (folder / "img_00004.jpg").write_bytes(b"no"), "img_00004.jpg' is not an image"),
        (lambda folder: clips.write_pictures(folder, 1, start=4, size=(16, 16)), "several sizes, 16 x 16 and 48 x 32"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "has no frames"),
    ],
)
def test_spoiled_folders_are_one_sentence(tmp_path, spoil, message):
    folder = clips.write_pictures(tmp_path / "b")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        video_file.frames(folder, range(8))


def cut(path, share):
    """Keep the first bytes of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize(
    ("suffix", "spoil", "message"),
    [
        (".mp4", lambda path: cut(path, 0.5), "cannot be read .*; get the file again"),
        (".avi", lambda path: cut(path, 0.85), r"is cut off: it holds \d+ of the 24 frames"),
        (".webm", lambda path: path.write_bytes(b"no video at all" * 99), "cannot be read"),
        (".mp4", lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (".mp4", lambda path: path.unlink(), "No such file"),
        (".mp4", lambda path: None, "has 24 frames, 0 to 23, but frames 20 to 29 were asked for"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, suffix, spoil, message):
    path = clips.write(tmp_path / f"clip{suffix}")
    spoil(path)
    with pytest.raises(UserError, match=message):
        video_file.frames(path, range(20, 30))


def test_a_frame_that_does_not_decode_is_named(tmp_path):
    path = clips.write(tmp_path / "clip.mkv")
    content = bytearray(path.read_bytes())
    start, end = len(content) // 2, len(content) * 3 // 4
    content[start:end] = b"\xff" * (end - start)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.mkv"):
        video_file.frames(path, range(24))


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = clips.write(tmp_path / "clip.mp4")
    real = builtins.__import__

    def without(name, *arguments):
        if name == "av":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"jax_promptmtl\[video\]"):
        video_file.frames(path, [0])
