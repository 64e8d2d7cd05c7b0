"""Every frame by random access against a plain sequential decode: all containers and codecs, trimmed and odd files."""

import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data.videos import decoding, timeline, video_file
from tests import clips, odd_clips

av = pytest.importorskip("av")
CONTAINERS = [
    "mp4",
    "mov",
    "mkv",
    "webm",
    "avi",
    "ts",
    "m2ts",
    "mpg",
    "vob",
    "flv",
    "wmv",
    "3gp",
    "m4v",
    "nut",
    "mxf",
    "gif",
]
X265 = "log-level=none:keyint=5"
CODECS = {
    "h264": ("libx264", {"bf": "3"}),
    "h264 open": ("libx264", {"x264-params": "open-gop=1:bframes=3"}),
    "h264 refresh": ("libx264", {"x264-params": "intra-refresh=1:bframes=0"}),
    "hevc open": ("libx265", {"x265-params": f"{X265}:bframes=3:open-gop=1"}),
    "hevc refresh": ("libx265", {"x265-params": f"{X265}:intra-refresh=1"}),
    "mpeg4": ("mpeg4", {"bf": "2"}),
    "mpeg2": ("mpeg2video", {"bf": "2"}),
    "mpeg1": ("mpeg1video", {}),
    "vp8": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp9": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "mjpeg": ("mjpeg", {}),
    "prores": ("prores_ks", {}),
    "ffv1": ("ffv1", {}),
    "wmv": ("wmv2", {}),
    "flv": ("flv", {}),
    "gif": ("gif", {}),
    "png": ("png", {}),
    "qtrle": ("qtrle", {}),
}


def differing(path, numbers=None):
    """Return which frames are not those of a plain decode, each read for itself, from the last to the first."""
    wanted = odd_clips.plain(path)
    assert video_file.length(path) == len(wanted)
    together = video_file.frames(path, range(len(wanted)))
    single = {i: video_file.frames(path, [i])[0] for i in (range(len(wanted)) if numbers is None else numbers)[::-1]}
    wrong = [i for i, frame in single.items() if not np.array_equal(frame, wanted[i])]
    return wrong + [i for i, frame in enumerate(together) if not np.array_equal(frame, wanted[i])]


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_random_access_is_a_plain_decode_in_every_container(name, uneven, tmp_path):
    codec, options = CODECS[name]
    held = 0
    for container in CONTAINERS:
        path = tmp_path / f"clip.{container}"
        try:
            odd_clips.encode(path, codec, uneven=uneven, **options)
            odd_clips.plain(path)
        except (av.FFmpegError, LookupError, ValueError):  # the container does not hold it
            continue
        assert not differing(path, [0, 3, 4, 5, 9, 12]), path.name
        held += 1
    assert held or (uneven and name in ("mpeg1", "mpeg2", "mpeg4"))  # which have even rates only


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("start", [11, 16, 21])
def test_files_trimmed_without_encoding_again_are_read_right(suffix, start, tmp_path):
    whole = clips.write(tmp_path / "whole.mp4", 60, bf="2")
    path = odd_clips.copy(whole, tmp_path / f"cut.{suffix}", 512 * start, avoid_negative_ts="disabled")
    assert not differing(path)
    if suffix in ("mp4", "mov"):  # an edit list hides what only leads to the start
        assert [clips.number(frame) for frame in video_file.frames(path, [0, 7, 19])] == [start, start + 7, start + 19]
    path = odd_clips.copy(whole, tmp_path / f"middle.{suffix}", 512 * start, 512 * 40, avoid_negative_ts="disabled")
    assert not differing(path)


@pytest.mark.parametrize(
    ("entries", "starts"),
    [
        ([(1, 512 * 50), (1, 512 * 12)], {0: 50, 25: 12}),
        ([(1, 512 * 12), (1, 512 * 12)], {0: 12, 25: 12}),
        ([(1, -1), (1, 512 * 30)], {0: 30}),
        ([(2, 512 * 20), (3, 0), (1, 512 * 55)], {0: 20, 50: 0, 125: 55}),
        ([(0.5, 512 * 13 + 100)], {0: 14}),
    ],
)
def test_edit_lists_may_cut_turn_around_and_repeat(entries, starts, tmp_path):
    path = odd_clips.edit(clips.write(tmp_path / "clip.mp4", 80, bf="0"), entries)
    assert not differing(path, range(0, len(odd_clips.plain(path)), 3))
    assert {place: clips.number(video_file.frames(path, [place])[0]) for place in starts} == starts


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_stream_that_begins_with_undecodable_pictures_is_counted_from_the_first_that_decodes(suffix, codec, tmp_path):
    parameters = {"libx264": "open-gop=1:bframes=3:keyint=8", "libx265": "log-level=none:open-gop=1:keyint=8:bframes=3"}
    options = {f"{codec[3:]}-params": parameters[codec]}
    whole = odd_clips.encode(tmp_path / "whole.mkv", codec, 40, **options)
    later = [int(stamp) for stamp in timeline.read_timeline(whole).keys[1:3]]
    for start in later:
        path = odd_clips.copy(whole, tmp_path / f"{start}.{suffix}", start, avoid_negative_ts="make_zero")
        assert not differing(path)


def test_a_timeline_that_is_not_what_comes_is_replaced(tmp_path):
    path = clips.write(tmp_path / "clip.mp4")
    index = timeline.read_index(path)
    true = index.timeline
    index.timeline = timeline.Timeline(true.stamps + 100, true.keys + 100, true.unit, true.count)
    assert [clips.number(frame) for frame in video_file.frames(path, [3, 20])] == [3, 20]
    assert not index.timeline.seekable and (index.timeline.stamps == true.stamps).all()
    index.timeline = timeline.Timeline(true.stamps[:9], true.keys, true.unit, 9)
    with pytest.raises(UserError, match=r"Frame 24 of the video .* cannot be decoded"):
        decoding.read(path, index, [24])


def test_a_hole_costs_the_frames_around_it_and_no_others(tmp_path):
    path = clips.write(tmp_path / "hole.mp4", 64, bf="0")
    wanted = odd_clips.plain(path)
    odd_clips.overwrite(path, 0.4, bytes(300))
    refused, other = [], []
    for number in range(64):
        try:
            other += [] if np.array_equal(video_file.frames(path, [number])[0], wanted[number]) else [number]
        except UserError as error:
            assert "cannot be decoded" in str(error)
            refused.append(number)
    assert 0 < len(refused) < 40 and refused == list(range(refused[0], refused[-1] + 1))
    assert set(other) <= {refused[0] - 1, refused[0] - 2}  # the decoder conceals what it half has; see `soundness`
