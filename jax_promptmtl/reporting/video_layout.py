"""How the tables of a video benchmark are laid out: as its records say; those of old ones, which do not, are here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jax_promptmtl.reporting.records import Record
from jax_promptmtl.tasks.metrics import TITLES

TASKS = ("recognition", "spatial_action", "temporal_action", "segmentation", "video_object", "video_instance")
PARTS = ("train", "test", "shifted", "panned")
MAPPED = ("spatial_action", "video_instance")  # whose MVLPT prompts come from a model of another width


@dataclass(frozen=True)
class VideoLayout:
    """Order and names of the columns.

    Attributes:
      tasks: all primaries, in order.
      parts: of the clips, those of training and the test among them.
      metric_titles: {metric: what tables call it}.
    """

    tasks: tuple[str, ...]
    parts: tuple[str, ...]
    metric_titles: Mapping[str, str]

    @property
    def transfer_parts(self) -> list[str]:
        """Return the parts of other data, of which nothing is used in training."""
        return [part for part in self.parts if part not in ("train", "test")]


def layout_of(found: Iterable[Record]) -> VideoLayout:
    """Return the layout that records carry, the newest first; what none of them names comes last."""
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
    """Say whether MVLPT's prompts came from a model of another width, through a random orthogonal map."""
    return record.get("mapped_prompts", record["task"] in MAPPED)
