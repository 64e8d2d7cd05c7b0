"""The registry of video tasks; see `spec.py`."""

from jax_promptmtl.problems.video_tasks import (
    recognition,
    segmentation,
    spatial_action,
    temporal_action,
    video_instance,
    video_object,
)
from jax_promptmtl.problems.video_tasks.spec import VideoTaskSpec

SPECS: dict[str, VideoTaskSpec] = {  # in the order of the paper's table 1
    module.SPEC.name: module.SPEC
    for module in (recognition, spatial_action, temporal_action, segmentation, video_object, video_instance)
}
SHARING = tuple(name for name, spec in SPECS.items() if spec.own)  # tasks that can share one transformer trunk


def next_task(name: str) -> str:
    """Return the next task of the table, cyclically.

    >>> next_task("video_instance")
    'recognition'
    """
    names = list(SPECS)
    return names[(names.index(name) + 1) % len(names)]
