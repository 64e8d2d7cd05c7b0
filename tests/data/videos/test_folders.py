"""What folders hold: videos of every ending, frames beside other things, and what is passed over and counted."""

import pathlib
import re

import av
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import folders, video_file
from tests import clips

DOC = pathlib.Path(__file__).parents[3] / "docs" / "video_data.md"
AS = {  # endings that are another's: muxers do not know them
    **{".divx": ".avi", ".qt": ".mov", ".f4v": ".mp4", ".mpe": ".mpg", ".mpv": ".m2v", ".m2t": ".ts", ".rmvb": ".rm"},
    **{".mjpg": ".mjpeg", ".ogm": ".ogv", ".265": ".hevc", ".264": ".h264"},
}
CODECS = {  # mpeg4 elsewhere
    **{".gif": "gif", ".rm": "rv10", ".dv": "dvvideo", ".ivf": "libvpx-vp9", ".webm": "libvpx-vp9", ".ogv": "libvpx"},
    **{".m1v": "mpeg1video", ".mpg": "mpeg1video", ".mpeg": "mpeg1video", ".hevc": "libx265", ".h264": "libx264"},
    **dict.fromkeys((".m2v", ".mxf", ".vob", ".ts", ".mts", ".m2ts"), "mpeg2video"),
    **{".y4m": "wrapped_avframe", ".flv": "flv1", ".wmv": "wmv2", ".asf": "wmv2", ".mjpeg": "mjpeg"},
}
FORMATS = {".rm": "rm", ".dv": "dv", ".y4m": "yuv4mpegpipe"}


def listed(root):
    found = folders.listing(root)
    return [str(pathlib.Path(path).relative_to(root)) for path in found.videos], [
        str(pathlib.Path(path).relative_to(root)) for path in found.passed
    ]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def encode(path, ending):
    """Write twelve frames with the muxer and codec of an ending."""
    codec, size = CODECS.get(ending, "mpeg4"), (576, 720) if ending == ".dv" else (144, 176)
    with av.open(str(path), "w", format=FORMATS.get(ending)) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(clips.picture(number, *size), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())


@pytest.mark.parametrize("ending", folders.VIDEOS)
def test_every_ending_is_one_that_the_decoder_opens(tmp_path, ending):
    written = AS.get(ending, ending)
    encode(tmp_path / f"a{written}", written)
    path = (tmp_path / f"a{written}").rename(tmp_path / f"b{ending.upper()}")
    assert listed(tmp_path) == ([path.name], [])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).width in (176, 720)


def test_the_documentation_names_every_ending():
    (line,) = [line for line in DOC.read_text("utf-8").splitlines() if line.startswith("| files that end in")]
    assert tuple(re.findall(r"\.\w+", line)) == folders.VIDEOS


def test_pictures_beside_videos_are_passed_over(tmp_path):
    touch(tmp_path, "run/a.mp4", "run/b.FLV", "run/cover.jpg", "run/deep/c.wmv", "run/a.jpg", "run/README", "run/x.srt")
    assert listed(tmp_path / "run") == (["a.mp4", "b.FLV", "deep/c.wmv"], ["README", "a.jpg", "cover.jpg", "x.srt"])
    touch(tmp_path, "sit/cover.png", "sit/deep/d.gif")
    assert listed(tmp_path / "sit") == (["deep/d.gif"], ["cover.png"])


def test_a_cover_beside_folders_of_frames_is_no_video(tmp_path):
    for name in "ab":
        clips.write_pictures(tmp_path / name, 3)
    touch(tmp_path, "cover.jpg")
    assert listed(tmp_path) == (["a", "b"], ["cover.jpg"])


def test_frames_with_folders_of_other_pictures_are_the_video(tmp_path):
    clips.write_pictures(tmp_path / "v", 3)
    clips.write_pictures(tmp_path / "v" / "masks", 2)
    assert listed(tmp_path) == (["v"], ["v/masks/img_00001.jpg", "v/masks/img_00002.jpg"])


def test_optical_flow_is_told_from_frames(tmp_path):
    for pattern in ("img_{:05d}.jpg", "flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"):
        clips.write_pictures(tmp_path / "v", 4, pattern=pattern, first=8 * (pattern[0] == "f"))
    touch(tmp_path, "v/cover.jpg", "v/notes.txt")
    assert [clips.number(frame) for frame in video_file.frames(tmp_path / "v", range(4))] == [0, 1, 2, 3]
    found, passed = listed(tmp_path)
    assert found == ["v"] and len(passed) == 10 and "v/flow_x_00001.jpg" in passed and "v/notes.txt" in passed


@pytest.mark.parametrize("pattern", ["x_{}.png", "flow_{}.png", "{}_flow_y.png", "FLOW-U-{}.png", "tvl1_flow_v{}.png"])
def test_flow_has_many_names(tmp_path, pattern):
    touch(tmp_path, *(pattern.format(i) for i in range(3)), *(f"frame{i}.png" for i in range(3)))
    assert [pathlib.Path(path).name for path in folders.picture_files(tmp_path)] == [f"frame{i}.png" for i in range(3)]


def test_pictures_of_several_kinds_are_refused(tmp_path):
    touch(tmp_path, *(f"v/{name}_{i}.jpg" for name in ("img", "depth") for i in range(2)))
    with pytest.raises(UserError, match=r"has pictures of several kinds, '(img|depth)_0.jpg' and '(img|depth)_0.jpg'"):
        folders.picture_files(tmp_path / "v")
    assert listed(tmp_path)[0] == ["v"]


@pytest.mark.parametrize("ending", folders.PICTURES)
def test_frames_of_every_ending(tmp_path, ending):
    clips.write_pictures(tmp_path / "v", 3, pattern="{:03d}" + ending.upper())
    assert video_file.frames(tmp_path / "v", [2, 0]).shape == (2, clips.HEIGHT, clips.WIDTH, 3)


def test_what_systems_leave_behind_is_passed_over_quietly(tmp_path):
    names = ("@eaDir/a.mp4/t.jpg", "__MACOSX/._a.mp4", ".DS_Store", "Thumbs.db", "._a.mp4", "desktop.ini", ".git/x.avi")
    touch(tmp_path, "a.mp4", *names)
    assert listed(tmp_path) == (["a.mp4"], [])


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "a/b/c.mp4")
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/gone.mp4").symlink_to(tmp_path / "nowhere")
    assert listed(tmp_path) == (["a/b/c.mp4", "a/gone.mp4"], [])


def test_videos_come_folder_by_folder_in_the_order_of_names(tmp_path):
    touch(tmp_path, "a/z.mp4", "a-b.mp4", "a.mp4", "b/1.mp4")
    assert listed(tmp_path)[0] == ["a/z.mp4", "a-b.mp4", "a.mp4", "b/1.mp4"]


def test_what_is_not_read_is_counted_by_ending(tmp_path):
    paths = [str(tmp_path / f"{i}.{'txt' if i % 2 else 'JSON'}") for i in range(5)]
    assert folders.spell(paths, tmp_path) == "5 files are no videos and not read (3 .json, 2 .txt), such as '0.JSON'"
    assert folders.spell([], tmp_path) == ""
