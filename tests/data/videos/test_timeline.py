"""What is known of a file without decoding all of it: its clock, and whether it ends early."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import video_file
from jax_promptmtl.data.videos.timeline import read_timeline
from tests import clips, odd_clips

av = pytest.importorskip("av")
COUNT = 120
CODECS = {"webm": "libvpx-vp9", "wmv": "wmv2", "flv": "flv"}


def cut(path, share):
    """Keep the first bytes of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi", "fast.mp4", "a.flv", "uneven.mkv", "fragments.mp4"])
def test_files_that_end_early_are_named_and_lead_to_their_end(name, share, tmp_path):
    path = tmp_path / name
    options = {"fast.mp4": {"movflags": "faststart"}, "fragments.mp4": {"movflags": "frag_keyframe"}}.get(name, {})
    if name in ("fast.mp4", "fragments.mp4"):
        odd_clips.copy(clips.write(tmp_path / "whole.mp4", COUNT, bf="0"), path, **options)
    elif name == "a.flv":
        clips.write(path, COUNT, codec="flv")
    elif name == "uneven.mkv":
        clips.write(path, COUNT, stamps=np.cumsum([0, *[30, 90] * COUNT])[:COUNT], bf="0")
    else:
        clips.write(path, COUNT)
    assert video_file.length(path) == COUNT
    cut(path, share)
    with pytest.raises(UserError, match=r"is cut off: .*; get the file again or leave it out"):
        video_file.length(path)
    count = video_file.length(path, whole=False)
    assert 0 < count < COUNT
    shown = [clips.number(frame) for frame in video_file.frames(path, range(count), whole=False)]
    assert shown == list(range(count))
    with pytest.raises(UserError, match=f"has {count} frames"):
        video_file.frames(path, [count], whole=False)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "wmv"])
def test_whole_files_are_not_cut_off(suffix, tmp_path):
    path = clips.write(tmp_path / f"clip.{suffix}", codec=CODECS.get(suffix, "libx264"))
    assert not read_timeline(path).lost
    if suffix in ("mp4", "mkv", "webm"):
        path = clips.write(tmp_path / f"slides.{suffix}", 4, stamps=[0, 3000, 6000, 9000])
        assert not read_timeline(path).lost


def with_sound(path, seconds, sound_seconds, delay=0):
    """Write pictures from a time on, and sound of another length."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream(clips.CODECS[path.suffix], rate=25), None
        video.height, video.width, video.pix_fmt = clips.HEIGHT, clips.WIDTH, "yuv420p"
        audio = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
        for i in range(int(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(clips.picture(i), format="rgb24")
            frame.pts = i + int(delay * 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for i in range(int(sound_seconds * 48000) // 960):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, i * 960
            container.mux(audio.encode(silence))
        container.mux(audio.encode())
    return path


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4"])
def test_sound_that_is_longer_than_the_pictures_is_no_cut(suffix, tmp_path):
    path = with_sound(tmp_path / f"clip.{suffix}", 1, 4)
    assert video_file.length(path) == 25


def test_an_edit_list_that_hides_the_end_is_no_cut(tmp_path):
    path = odd_clips.edit(clips.write(tmp_path / "whole.mp4", COUNT, bf="0"), [(1, 0)])
    assert video_file.length(path) == len(odd_clips.plain(path)) < COUNT


def test_an_avi_whose_frames_were_dropped_is_whole(tmp_path):
    path = clips.write(tmp_path / "clip.avi", 30, bf="0")
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):  # the number of frames in either header
        place = data.index(name) + offset
        data[place : place + 4] = (50).to_bytes(4, "little")
    path.write_bytes(data)
    assert video_file.length(path) == 30
    cut(path, 0.85)
    with pytest.raises(UserError, match=r"is cut off: it holds \d+ of the 50 frames"):
        video_file.length(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_seconds_are_those_of_the_clock(suffix, tmp_path):
    path = with_sound(tmp_path / f"late.{suffix}", 3, 4, delay=0.52)
    assert read_timeline(path).seconds[0] == pytest.approx(0.52, abs=2e-3)
    assert video_file.nearest(path, 2.0) == 37 and clips.number(video_file.frames(path, [37])[0]) == 37
    with pytest.raises(UserError, match=r"begins at second 0\.52 and lasts 3\.52 seconds, but second 0\.1 is labelled"):
        video_file.nearest(path, 0.1)


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_clocks_that_begin_anywhere_begin_with_the_file(suffix, tmp_path):
    path = clips.write(tmp_path / f"clip.{suffix}", COUNT, codec="mpeg2video")
    assert video_file.nearest(path, 2.0) == 50 and read_timeline(path).seconds[0] == 0


def test_a_trimmed_file_begins_at_its_new_start(tmp_path):
    whole = clips.write(tmp_path / "whole.mp4", COUNT, bf="2")
    path = odd_clips.copy(whole, tmp_path / "cut.mp4", 512 * 11, avoid_negative_ts="disabled")
    assert read_timeline(path).seconds[0] == 0
    assert clips.number(video_file.frames(path, [video_file.nearest(path, 1.0)])[0]) == 11 + 25


def test_a_picture_is_shown_until_the_next_one(tmp_path):
    path = clips.write(tmp_path / "slides.mp4", 5, stamps=[0, 40, 80, 1000, 1040])
    found = [video_file.nearest(path, second) for second in (0, 0.05, 0.07, 0.5, 0.97, 0.99, 1.05)]
    assert found == [0, 1, 2, 2, 2, 3, 4]


def test_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover, film = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=25)
        for stream, shape in ((cover, "yuvj420p"), (film, "yuv420p")):
            stream.height, stream.width, stream.pix_fmt = clips.HEIGHT, clips.WIDTH, shape
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(clips.WIDTH, clips.HEIGHT, "yuvj420p")))
        for i in range(9):
            frame = av.VideoFrame.from_ndarray(clips.picture(i), format="rgb24")
            frame.pts = i
            container.mux(film.encode(frame))
        container.mux(film.encode())
    assert [clips.number(frame) for frame in video_file.frames(path, range(9))] == list(range(9))
