"""Miniatures of `ucf101` and `youtube_vis` as TFDS prepares them.

TFDS writes the first itself. Its class `Video` needs tensorflow, but is its list of pictures (`Sequence(Image)`) under
another name, and writes the same bytes.
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from tests import clips, video_trees


def pictures(first, count, size=(clips.HEIGHT, clips.WIDTH)):
    return [Image.fromarray(clips.picture(first + i, *size)) for i in range(count)]


class Ucf101(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two classes, two videos of each that train and one that tests."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="ucf101_1"),)

    def _info(self):
        video = tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"))
        label = tfds.features.ClassLabel(names=["ApplyEyeMakeup", "HandstandPushups"])
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"video": video, "label": label})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples((1, 2)), "test": self._generate_examples((3,))}

    def _generate_examples(self, groups):
        for label in (0, 1):
            for group in groups:
                yield f"v_{label}_g{group}", {"video": pictures(32 * (label + 1) + 4 * group, 12), "label": label}


def png(frame):
    """Encode a picture."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="png")
    return buffer.getvalue()


def ragged(key, rows, kind):
    """Return the fields of lists of lists as TFDS stores them: all values, and the length of each list."""
    flat = [value for row in rows for value in row]
    return {f"{key}/ragged_flat_values": (kind, flat), f"{key}/ragged_row_lengths_0": ("int64_list", map(len, rows))}


def record(fields):
    """Return a record: an Example of tensorflow."""
    example = tf_example_pb2.Example()
    for key, (kind, values) in fields.items():
        getattr(example.features.feature[key], kind).value.extend(values)
    return example.SerializeToString()


def tracks(shown, classes, crowds):
    """Return the fields of objects: the frames in which each is there, its class, and whether it is a crowd."""
    masks = [[png(video_trees.square(i).astype(np.uint8)) for i in frames] for frames in shown]
    areas = [[float(video_trees.square(i).sum()) for i in frames] for frames in shown]
    return {
        "tracks/category": ("int64_list", classes),
        "tracks/is_crowd": ("int64_list", map(int, crowds)),
        **ragged("tracks/frames", shown, "int64_list"),
        **ragged("tracks/areas", areas, "float_list"),
        **ragged("tracks/segmentations", masks, "bytes_list"),
    }


def write(builder, root):
    """Prepare a data set below a TFDS folder."""
    builder(data_dir=str(root), file_format="array_record").download_and_prepare()


def ucf101(root):
    """UCF101 as TFDS has it."""
    write(Ucf101, root)
    return {"name": "ucf101_tfds", "root": str(root)}


def youtube_vis(root):
    """YouTube-VIS as TFDS has it: an object hidden in the second of three frames, one only in the last, a crowd.

    Written by hand, for TFDS writes lists of lists with tensorflow only.
    """
    folder = root / "youtube_vis/only_frames_with_labels/1.0.0"
    folder.mkdir(parents=True)
    video_trees.dump(folder / "tracks-category.labels.txt", "person\ngiant_panda\n")
    for shard in range(2):
        place = folder / f"youtube_vis-train.array_record-{shard:05d}-of-00002"
        writer = array_record_module.ArrayRecordWriter(str(place), "group_size:1")
        for number in (2 * shard, 2 * shard + 1):
            fields = tracks([[0, 2], [0, 1, 2], [2]], [0, 1, 1], [False, True, False])
            fields["video"] = ("bytes_list", [png(clips.picture(4 * number + i)) for i in range(3)])
            fields["metadata/video_name"] = ("bytes_list", [f"00{number}a3f".encode()])
            writer.write(record(fields))
        writer.close()
    return {"name": "youtube_vis_tfds", "root": str(root), "held_out": 0.25}
