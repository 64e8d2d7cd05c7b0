"""IconHome: 48 things drawn in four styles, each from its own icon fonts; the embedded benchmark.

Real artwork is read from the installed font packages and rendered once, deterministically, into a TFDS data set in
ArrayRecord format (no tensorflow). Which drawings train, tune and test comes from `assets/icon_split.json`.
"""

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from jax_promptmtl.core.errors import UserError, pick
from jax_promptmtl.data import fewshot, images
from jax_promptmtl.data.icons import glyphs, icon_split, styles
from jax_promptmtl.data.source import ArraySource, Suite, Task

RENDERS = {"train": 24, "tune": 12, "test": 12}  # pictures per style, class and part
RENDERING = 1  # raise when the pictures change, so that they are prepared anew
Parts = dict[str, dict[str, dict[str, list[list[str]]]]]  # style -> class -> part -> groups of `family:name`
Record = dict[str, Any]


class IconHome(tfds.core.GeneratorBasedBuilder):
    """Rendered icons with features image, label, task, name, glyph and group.

    Args:
      parts: which drawings are in which part.
      **kwargs: of the TFDS builder, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, parts: Parts, **kwargs):
        self.parts = parts
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "image": tfds.features.Image(shape=(styles.SIZE, styles.SIZE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=class_names(self.parts)),
            "task": tfds.features.ClassLabel(names=list(self.parts)),
            **{"name": text, "glyph": text, "group": text},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        keys = sorted(glyph_keys(self.parts))
        masks = dict(zip(keys, glyphs.render_keys(keys), strict=True))
        return {part: self._generate_examples(part, masks) for part in RENDERS}

    def _generate_examples(self, part: str, masks: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Record]]:
        plan = list(schedule(self.parts, part))
        with ThreadPoolExecutor(2) as pool:
            pictures = pool.map(lambda row: _picture(row, masks), plan)
            for row, picture in zip(
                plan, tqdm(pictures, f"rendering {part} icons", len(plan), mininterval=1, disable=None), strict=True
            ):
                keys = {"label": "class", "task": "style", "name": "name", "glyph": "glyph", "group": "group"}
                yield row["name"], {"image": picture} | {key: row[column] for key, column in keys.items()}


def _picture(row: Mapping[str, str], masks: Mapping[str, np.ndarray]) -> Image.Image:
    return Image.fromarray(styles.render(masks[row["glyph"]], row["style"], fewshot.generator(row["name"])))


def schedule(parts: Parts, part: str) -> Iterator[dict[str, str]]:
    """List the pictures of a part: groups take turns, and the glyphs within a group, so that every group occurs.

    Args:
      parts: which drawings are in which part.
      part: a key of `RENDERS`.

    Yields:
      {style, class, name, glyph, group} of each picture.

    >>> rows = schedule({"line": {"car": {"test": [["a:car"], ["b:auto", "b:car"]]}}}, "test")
    >>> [row["glyph"] for row in rows][:5]
    ['a:car', 'b:auto', 'a:car', 'b:car', 'a:car']
    """
    for style, classes in parts.items():
        for class_name, groups in classes.items():
            members = groups[part]
            for i in range(RENDERS[part] if members else 0):
                group = members[i % len(members)]
                yield {
                    "style": style,
                    "class": class_name,
                    "name": f"{style}/{class_name}/{part}/{i:02d}",
                    "glyph": group[i // len(members) % len(group)],
                    "group": group[0],
                }


def class_names(parts: Parts) -> list[str]:
    """Return all class names, sorted.

    >>> class_names({"line": {"car": {}, "bell": {}}, "clip": {"car": {}}})
    ['bell', 'car']
    """
    return sorted({class_name for classes in parts.values() for class_name in classes})


def glyph_keys(parts: Parts) -> set[str]:
    """Return the keys of all glyphs.

    >>> sorted(glyph_keys({"line": {"car": {"train": [["a:car", "a:auto"]], "test": [["b:car"]]}}}))
    ['a:auto', 'a:car', 'b:car']
    """
    all_groups = (groups for classes in parts.values() for halves in classes.values() for groups in halves.values())
    return {key for groups in all_groups for group in groups for key in group}


def fingerprint(parts: Parts) -> str:
    """Return 12 hex digits that change with the split, the pictures' code and the installed icon fonts."""
    families = {key.split(":")[0] for key in glyph_keys(parts)}
    wheels = sorted({glyphs.FAMILIES[pick(family, glyphs.FAMILIES, "icon family")].wheel for family in families})
    versions = {wheel: importlib.metadata.version(wheel) for wheel in wheels}
    content = json.dumps([RENDERING, RENDERS, versions, parts], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def default_data_dir() -> str:
    """Return where prepared data goes: `$JAX_PROMPTMTL_DATA`, or a folder of the user's cache."""
    return os.environ.get("JAX_PROMPTMTL_DATA") or str(pathlib.Path.home() / ".cache" / "jax_promptmtl" / "data")


def prepare(parts: Parts, data_dir: str = "") -> IconHome:
    """Render the data set unless it is there; a broken-off preparation leaves nothing behind.

    Args:
      parts: which drawings are in which part.
      data_dir: where to keep it; empty for `default_data_dir`.

    Returns:
      The prepared builder.
    """
    folder = pathlib.Path(data_dir or default_data_dir()).expanduser() / f"icons-{fingerprint(parts)}"
    builder = IconHome(parts=parts, data_dir=folder)
    if builder.data_path.exists():
        return builder
    count = sum(1 for part in RENDERS for _ in schedule(parts, part))
    print(f"Rendering {count:,} icon pictures into {builder.data_path} (once, about half a minute).", flush=True)
    skip = tfds.download.ComputeStatsMode.SKIP
    try:
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats=skip))
    except OSError as error:
        if not builder.data_path.exists():  # else another process was faster
            raise UserError(
                f"Cannot write {str(folder)!r} ({error.strerror}); set JAX_PROMPTMTL_DATA elsewhere."
            ) from None
    finally:
        tfds.enable_progress_bar()
    return IconHome(parts=parts, data_dir=folder)


def read_records(builder: IconHome, parts: Iterable[str]) -> list[Record]:
    """Read the records of some parts, sorted by name, with the images still encoded."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    label, task = builder.info.features["label"], builder.info.features["task"]
    records = []
    for part in parts:
        source = builder.as_data_source(split=part, decoders=decoders)
        for record in source.__getitems__(list(range(len(source)))):
            text = {key: record[key].decode() for key in ("name", "glyph", "group")}
            names = {"class": label.int2str(record["label"]), "style": task.int2str(record["task"])}
            records.append({"image": record["image"]} | text | names)
    return sorted(records, key=lambda record: record["name"])


def build(*, shots: int = 12, seed: int = 0, evaluate_on: str = "test", data_dir: str = "") -> Suite:
    """Build the icon suite, preparing its data the first time.

    Args:
      shots: training pictures per class and style; groups of drawings take turns.
      seed: draws the shots.
      evaluate_on: "test" trains on the train and tune drawings and evaluates on the test drawings; "tune" trains on the
        train drawings alone and evaluates on the tune drawings, for choosing hyper-parameters.
      data_dir: where the pictures are kept; empty for `default_data_dir`.

    Returns:
      A suite of one task per style.
    """
    return suite(icon_split.read(), shots=shots, seed=seed, evaluate_on=evaluate_on, data_dir=data_dir)


def suite(parts: Parts, *, shots: int, seed: int, evaluate_on: str, data_dir: str) -> Suite:
    """Build the suite of a given division of drawings; see `build`."""
    pick(evaluate_on, ("test", "tune"), "evaluate_on")
    builder = prepare(parts, data_dir)
    pool = read_records(builder, ("train", "tune") if evaluate_on == "test" else ("train",))
    held_out = read_records(builder, (evaluate_on,))
    tasks, chosen = [], {}
    for style, classes in parts.items():
        legal = sorted(classes)
        train = _shots([record for record in pool if record["style"] == style], legal, shots, seed)
        test = [record for record in held_out if record["style"] == style]
        names = tuple(name.replace("-", " ") for name in legal)
        tasks.append(Task(style, names, _in_memory(train, legal), _in_memory(test, legal)))
        chosen[style] = {"train": [r["name"] for r in train], "test": [r["name"] for r in test]}
    return Suite("icons", tuple(tasks), fewshot.digest([fingerprint(parts), chosen]))


def _shots(records: list[Record], classes: list[str], shots: int, seed: int) -> list[Record]:
    """Choose the nested shots of each class of one style."""
    chosen = []
    for class_name in classes:
        members = {record["name"]: record for record in records if record["class"] == class_name}
        groups = {name: record["group"] for name, record in members.items()}
        style = records[0]["style"]
        queue = fewshot.order(list(members), seed=seed, task=style, class_name=class_name, groups=groups)
        chosen += [members[name] for name in queue[:shots]]
    return chosen


def _in_memory(records: list[Record], classes: list[str]) -> ArraySource:
    """Decode the records; an example's name also says which glyph it shows."""
    names = tuple(f"{record['name']} ({record['glyph']})" for record in records)
    pictures = [images.decode(record["image"], name) for record, name in zip(records, names, strict=True)]
    labels = np.array([classes.index(record["class"]) for record in records], np.int32)
    return ArraySource(np.array(pictures, np.uint8).reshape(-1, styles.SIZE, styles.SIZE, 3), labels, names)
