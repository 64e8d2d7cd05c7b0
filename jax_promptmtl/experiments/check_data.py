"""What is wrong with the data of a config: missing and broken files, pictures that train and test, counts."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jax_promptmtl.core.errors import UserError, some
from jax_promptmtl.data import videos
from jax_promptmtl.data.videos import feature_time, soundness
from jax_promptmtl.data.videos.full_look import FullLook
from jax_promptmtl.data.videos.index import Example, VideoSet, spell
from jax_promptmtl.experiments.check_images import check_suite, look_at_headers, rehearse
from jax_promptmtl.experiments.findings import Findings, most, watch


def check(config: Mapping[str, Any], *, fast: bool = False, full: str = "") -> Findings:
    """Look at the data that a config names: image suites in `suite` or `suites`, or a video data set in `data`.

    Args:
      config: of a run.
      fast: do not open the files.
      full: where to keep what a look at every frame of video files finds, and to go on from; "" for no such look.

    Raises:
      UserError: it names none.
    """
    found = Findings()
    if "data" in config:
        check_videos(dict(config["data"]), found, fast=fast, full=full, feature=config.get("feature"))
        return found
    named = [config["suite"]] if "suite" in config else list(config.get("suites", {}).values())
    if not named:
        raise UserError(
            "The config has neither `suite` (images) nor `data` (videos) to look at; made-up data needs no check."
        )
    for options in named:
        suite = check_suite(dict(options), found, fast=fast)
        if suite is not None:
            size = rehearse(config, suite, found) if config.get("job") == "tune" else 0
            found.remarks += [] if fast else look_at_headers(suite, size)
    return found


def check_videos(
    options: Mapping[str, Any],
    found: Findings,
    *,
    fast: bool,
    full: str = "",
    feature: Mapping[str, float] | None = None,
) -> None:
    """Look at a video data set; `feature` is the config's, for features that are longer or shorter than their video."""
    try:
        data = videos.read(options)
    except UserError as error:
        found.problems.append(str(error))
        return
    found.text += count_lines(data)
    found.remarks += data.notes
    wrong = [f"{data.name} has {misfit} as published" for misfit in data.misfits()]
    (found.problems if options.get("strict", True) else found.remarks).extend(wrong)
    gone = videos.missing(data)
    for part, examples in gone.items():
        if examples:
            names = sorted({example.video for example in examples})
            found.problems.append(
                f"{len(names):,} of the {part} videos are not whole in {str(data.root)!r}: {some(names)}; get "
                f"them from {data.home}"
            )
    found.remarks += feature_time.misfits(data, feature) if feature else []
    if not fast:
        gone_names = {example.video for examples in gone.values() for example in examples}
        open_videos(data, gone_names, found, FullLook(pathlib.Path(full)) if full else None)


def count_lines(data: VideoSet) -> list[str]:
    """Return the counts of a set beside the published ones."""
    counts = data.counts()
    lines = [f"{data.name} in {str(data.root)!r}, for {data.task}", f"{'':<10}{'found':>10}{'published':>16}"]
    for what, count in counts.items():
        published = spell(data.published[what]) if what in data.published else "-"
        lines.append(f"{what:<10}{count:>10,}{published:>16}")
    return [*lines, *(f"{part}: {len(examples):,} examples" for part, examples in data.parts.items())]


def open_videos(data: VideoSet, gone: set[str], found: Findings, full: FullLook | None = None) -> None:
    """Open the files that are there, and note which are broken or in both parts."""
    groups: dict[str, list[Example]] = {}
    for example in (example for examples in data.parts.values() for example in examples):
        if example.video not in gone:
            groups.setdefault(example.video, []).append(example)
    looks = dict(zip(groups, soundness.look_at_all(data, list(groups.values()), watch, full), strict=True))
    found.problems += most([look.fault for look in looks.values() if look.fault])
    if uneven := [video for video, look in looks.items() if look.uneven]:
        found.remarks.append(
            f"{len(uneven):,} videos have a variable frame rate, such as {uneven[0]}; frames are read by their "
            "numbers: uniform ones are evenly spread over the numbers, not over the seconds"
        )
    if lengths := {video: look.length for video, look in looks.items() if not look.fault}:
        video = min(lengths, key=lengths.__getitem__)
        unit = "features" if data.channels else "frames"
        found.remarks.append(f"the shortest has {lengths[video]:,} {unit}: {video}")
    found.remarks += most([f"{a} trains and {b} tests, but the files are equal" for a, b in soundness.twins(data)])
