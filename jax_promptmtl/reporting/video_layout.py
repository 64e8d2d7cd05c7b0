"""Layout of a video benchmark's tables, from its records; old records have none and use the fallback here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jax_promptmtl.reporting.records import Record
from jax_promptmtl.tasks.metrics import TITLES

TASKS = ("recognition", "spatial_action", "temporal_action", "segmentation", "video_object", "video_instance")
PARTS = ("train", "test", "shifted", "panned")
MAPPED = ("spatial_action", "video_instance")  # tasks whose MVLPT prompts come from a model of another width


@dataclass(frozen=True)
class VideoLayout:
    """Order and names of the columns.

    Attributes:
      tasks: all primaries, in order.
      parts: of the videos, including those of training and test.
      metric_titles: {metric: title in tables}.
    """

    tasks: tuple[str, ...]
    parts: tuple[str, ...]
    metric_titles: Mapping[str, str]

    @property
    def transfer_parts(self) -> list[str]:
        """Return the parts of shifted data, none of which is used in training."""
        return [part for part in self.parts if part not in ("train", "test")]


def layout_of(found: Iterable[Record]) -> VideoLayout:
    """Merge the layouts of records, the newest first; names missing from all of them come last."""
    newest = sorted(found, key=lambda record: (record["written"], record["id"]), reverse=True)
    said = [record["layout"] for record in newest if "layout" in record]
    tasks = [*(task for layout in said for task in layout["tasks"]), *TASKS, *sorted(r["task"] for r in newest)]
    scored = sorted({part for record in newest for kind in record["scores"].values() for part in kind})
    parts = [*(part for layout in said for part in layout["parts"]), *PARTS, *scored]
    titles = {record["metric"]: record["metric"] for record in newest} | TITLES
    for layout in reversed(said):
        titles |= layout["metric_titles"]
    return VideoLayout(tuple(dict.fromkeys(tasks)), tuple(dict.fromkeys(parts)), titles)


def has_mapped_prompts(record: Record) -> bool:
    """Return whether MVLPT's prompts passed a random orthogonal map from a model of another width."""
    return bool(record.get("mapped_prompts", record["task"] in MAPPED))
