"""A look at every frame: whole files have no fault, holes have one, and what was found is not looked for again."""

import json

import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import full_look, soundness, video_file
from jax_promptmtl.experiments import check_data
from tests import clips, odd_clips

pytest.importorskip("av")
KINDS = {
    "a.mp4": {},
    "b.mov": {"codec": "libx264", "bf": "3"},
    "c.mkv": {"bf": "2"},
    "d.webm": {},
    "e.webm": {"codec": "libvpx"},
    "f.avi": {},
    "g.ts": {"codec": "libx264"},
    "h.mpg": {"codec": "mpeg2video"},
    "i.mp4": {"codec": "mpeg4"},
    "j.mkv": {"codec": "mjpeg"},
}


def fault(path):
    with full_look.listening():
        try:
            video_file.length(path)
            return full_look.damage(path)
        except UserError as error:
            return str(error)


@pytest.mark.parametrize("content", [bytes(150), b"\xff" * 300])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "j.mkv"])
def test_holes_in_the_middle_are_found(name, content, tmp_path):
    path = clips.write(tmp_path / name, 100, **KINDS[name])
    assert not fault(path)
    odd_clips.overwrite(path, 0.5, content)
    assert str(path) in fault(path)


def test_files_that_are_odd_but_whole_have_no_fault(tmp_path):
    whole = clips.write(tmp_path / "whole.mp4", 60, bf="2")
    odd = [
        odd_clips.copy(whole, tmp_path / f"cut.{end}", 512 * 11, avoid_negative_ts="disabled") for end in ("mp4", "mkv")
    ]
    odd += [odd_clips.encode(tmp_path / "refresh.mp4", "libx264", **{"x264-params": "intra-refresh=1:bframes=0"})]
    odd += [clips.write(tmp_path / "uneven.webm", 9, stamps=[0, 40, 50, 90, 1000, 1010, 1900, 2000, 2100])]
    assert [fault(path) for path in odd] == [""] * len(odd)


def test_what_was_found_is_kept_and_gone_on_from(tmp_path, monkeypatch):
    for label in ("jump", "run"):
        for i in range(3):
            clips.write(tmp_path / "data" / label / f"{i}.mp4", 40, first=5 * i, bf="0")
    bad = odd_clips.overwrite(tmp_path / "data/run/1.mp4", 0.5, bytes(100))
    options = {"name": "own", "root": str(tmp_path / "data")}
    assert not check_data.check({"data": options}).problems  # its first and last frame are whole
    kept = tmp_path / "kept.jsonl"
    (problem,) = check_data.check({"data": options}, full=str(kept)).problems
    assert str(bad) in problem and "cannot be decoded" in problem
    rows = kept.read_text().splitlines()
    assert len(rows) == 6 and sum(bool(json.loads(row)["fault"]) for row in rows) == 1
    kept.write_text("\n".join(rows[:4]) + '\n{"fi')  # stopped while it wrote
    looked = []
    monkeypatch.setattr(full_look, "damage", lambda path: looked.append(path.name) or "")
    data = videos.read(options)
    groups = [[example] for part in data.parts.values() for example in part]
    soundness.look_at_all(data, groups, lambda steps, count: steps, full_look.FullLook(kept))
    assert len(looked) == 2
    clips.write(bad, 40)  # got again
    soundness.look_at_all(data, groups, lambda steps, count: steps, full_look.FullLook(kept))
    assert looked[2:] == ["1.mp4"]
