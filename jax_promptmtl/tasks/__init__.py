"""The video tasks: targets, losses, decoding and measures, as pure functions; see `task.py`."""

from functools import partial

from jax_promptmtl.tasks import instance, recognition, segmentation, spatial, temporal, video_object
from jax_promptmtl.tasks.task import VideoTask

TASKS: dict[str, VideoTask] = {
    task.name: task
    for task in (
        VideoTask("recognition", ("label",), recognition.loss, recognition.decode, recognition.measure, "top1"),
        VideoTask("spatial_action", ("box", "label", "valid"), spatial.loss, spatial.decode, spatial.measure, "map"),
        VideoTask(
            "temporal_action", ("segment", "label", "valid"), temporal.loss, temporal.decode, temporal.measure, "map"
        ),
        VideoTask("segmentation", ("label",), segmentation.loss, segmentation.decode, segmentation.measure, "f1@50"),
        VideoTask(
            "video_object",
            ("box", "label", "valid"),
            video_object.loss,
            video_object.decode,
            video_object.measure,
            "ap50",
        ),
        VideoTask(
            "video_instance",
            ("mask", "label", "valid"),
            instance.joint_loss,
            partial(instance.decode, stride=2),  # of the moving icons' model
            instance.measure,
            "map",
        ),
    )
}
