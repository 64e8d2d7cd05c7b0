"""Files that PyAV chokes on, in whatever way, are one sentence with advice that helps."""

import pathlib

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import container, video_file
from tests import clips, odd_clips

av = pytest.importorskip("av")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.avi", "clip.ts", "clip.mpg"])
def test_mutated_files_are_read_or_one_sentence(name, tmp_path):
    codec = {"ts": "libx264", "mpg": "mpeg1video"}.get(name.split(".")[1])
    path = clips.write(tmp_path / name, 10, codec=codec)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(40):
        data = np.frombuffer(whole, np.uint8).copy()
        header = rng.integers(min(800, len(data)), size=6)
        places = [header, len(data) - 1 - header, rng.integers(len(data), size=20)][number % 3]
        data[places] = rng.integers(256, size=len(places))
        path.write_bytes(data.tobytes())
        try:
            for i in range(min(video_file.length(path), 12)):
                video_file.frames(path, [i])
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused


def test_metadata_that_is_no_utf8_does_no_harm(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as new:
        new.metadata["title"] = "Ferien am See"
        stream = new.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = clips.HEIGHT, clips.WIDTH, "yuv420p"
        new.mux(stream.encode(av.VideoFrame.from_ndarray(clips.picture(5), format="rgb24")))
        new.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Ferien am", b"F\xe9ri\xe9n am"[:9]))
    assert clips.number(video_file.frames(path, [0])[0]) == 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AttributeError("'NoneType' object has no attribute 'name'"), r"\(AttributeError: .*get the file again"),
        (UnicodeDecodeError("utf-8", b"\xb3", 0, 1, "invalid"), "UnicodeDecodeError.*get the file again"),
        (OverflowError("too large"), "OverflowError"),
        (PermissionError(13, "Permission denied"), "Permission denied; make it readable or leave it out"),
        (OSError(24, "Too many open files"), "Too many open files; make it readable or leave it out"),
    ],
)
def test_any_exception_within_is_one_sentence(error, message, tmp_path):
    path = clips.write(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=message), container.opened(path):
        raise error


def test_files_without_pictures_or_decoder_are_not_to_be_got_again(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as new:
        stream = new.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        new.mux(stream.encode(silence))
        new.mux(stream.encode())
    with pytest.raises(UserError, match="has no video in it; leave it out"):
        video_file.length(sound)
    path = clips.write(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    with pytest.raises(UserError, match=r"no decoder for the video .*; convert it, or leave it out"):
        video_file.length(path)


def test_faults_met_on_the_way_are_named_with_their_frame(tmp_path):
    path = clips.write(tmp_path / "clip.mp4", 40, bf="0")
    odd_clips.overwrite(path, 0.5, bytes(300))
    with pytest.raises(UserError, match=rf"Frame \d+ of the video {str(pathlib.Path(path))!r} cannot be decoded"):
        video_file.frames(path, range(40))
