"""What the benchmark measures: model sizes, cells (one method at one size), class names, random weights, inputs."""

import itertools
import json
import math
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jax_promptmtl.core import tree
from jax_promptmtl.core.problem import Problem
from jax_promptmtl.data.source import Suite, Task
from jax_promptmtl.models.clip import convert, tokenizer
from jax_promptmtl.models.clip.model import Backbone, ClipConfig
from jax_promptmtl.problems import clip_mtl

MODELS = {
    "vit_b16": ClipConfig(512, 224, 16, 768, 12, 12, 77, 49408, 512, 12, 8, "quick_gelu"),
    "small": ClipConfig(32, 32, 8, 96, 3, 3, 24, 49408, 64, 3, 2, "quick_gelu"),
}
LENGTHS = {  # default number of prompt tokens per layer and set
    "vit_b16": {"coop": 16, "vpt": 16, "maple": 2, "mmap": 16},
    "small": {"coop": 4, "vpt": 3, "maple": 2, "mmap": 2},
}
TEMPLATES = {"coop": "{}.", "vpt": "a photo of a {}.", "maple": "of a {}.", "mmap": "a photo of a {}."}
MAPLE_DEPTH = 9  # published number of layers with their own prompts
SGD = {"learning_rate": 0.0035, "momentum": 0.9, "weight_decay": 5e-4}  # Dassl's

# The classes of Office-Home, a public benchmark of four tasks, for realistic token lengths.
OFFICE_HOME = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer Couch
Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer Helmet Kettle
Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil Postit_Notes
Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda Speaker Spoon TV Table Telephone
ToothBrush Toys Trash_Can Webcam
"""
ADJECTIVES = "red old small broken blue new large plain green wet heavy clean yellow dry light dusty"


@dataclass(frozen=True)
class Cell:
    """One configuration to measure.

    Attributes:
      method: coop, vpt, maple or mmap.
      batch: images.
      kind: `step`, one training step; or `evaluation`, one pass over the batch, all of one task.
      classes: class texts per task.
      tasks: tasks; the images of a step are spread over them.
      length: prompt tokens per layer and set; 0 takes the model's default.
    """

    method: str
    batch: int
    kind: str = "step"
    classes: int = 65
    tasks: int = 1
    length: int = 0

    @property
    def name(self) -> str:
        """Return the key of the results."""
        length = f"-p{self.length}" if self.length else ""
        return f"{self.method}-{self.kind}-b{self.batch}-c{self.classes}-t{self.tasks}{length}"


def class_names(count: int) -> list[str]:
    """Return `count` distinct class names: Office-Home's, then the same with an adjective.

    >>> class_names(67)[64:]
    ['Webcam', 'red_Alarm_Clock', 'red_Backpack']
    """
    names = OFFICE_HOME.split()
    qualified = (f"{adjective}_{name}" for adjective in ADJECTIVES.split() for name in names)
    return list(itertools.islice(itertools.chain(names, qualified), count))


def recipe(cell: Cell, model: str) -> dict[str, Any]:
    """Return the `clip_mtl.Options` of a cell, plus `slot` and `length`: prompt tokens per text and per set.

    >>> recipe(Cell("mmap", 4, tasks=4), "vit_b16")["slot"]
    32
    """
    sizes, length = MODELS[model], cell.length or LENGTHS[model][cell.method]
    depth = min(MAPLE_DEPTH, sizes.text_layers - 1)
    columns = math.gcd(sizes.text_width, sizes.image_width) // 2
    tokens = {"name": "tokens", "std": 0.02}
    methods: dict[str, dict[str, Any]] = {
        "coop": tokens | {"length": {"text": length}, "depth": {"text": 1}},
        "vpt": tokens | {"length": {"image": length}, "depth": {"image": sizes.image_layers}},
        "maple": {"name": "maple", "length": length, "depth": depth},
        "mmap": {"name": "mmap", "sets": ("group", "task"), "length": length, "rows": length, "columns": columns},
    }
    sharing = {"coop": {"text": "all"}, "vpt": {"image": "all"}, "maple": {"text": "all", "linear": "all"}}
    half = (cell.tasks + 1) // 2  # two groups
    return {
        "method": methods[cell.method],
        "sharing": sharing.get(cell.method, {"group": "group", "task": "task"}),
        "template": TEMPLATES[cell.method],
        "groups": [group for group in (list(range(half)), list(range(half, cell.tasks))) if group],
        "slot": {"coop": length, "vpt": 0, "maple": length, "mmap": 2 * length}[cell.method],
        "length": length,
        "depth": {"coop": 1, "maple": depth}.get(cell.method, sizes.text_layers),
    }


def random_weights(sizes: ClipConfig, seed: int = 0) -> dict[str, Any]:
    """Return random float32 weights with the deviations of CLIP's initialisation, in the layout of `CLIP.init`."""
    rng = np.random.default_rng(seed)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape, np.float32)
        if not shape:
            return np.asarray(np.log(100), np.float32)  # the logit scale
        if path.endswith("scale"):
            return 1 + np.float32(0.1) * noise
        fan_in = math.prod(shape[:-1]) if path.endswith("kernel") else 1
        return noise * np.float32(fan_in**-0.5 if fan_in > 1 else 0.02)

    shapes = tree.flatten(convert.shapes(sizes))
    return tree.unflatten({path: draw(path, leaf.shape) for path, leaf in shapes.items()})


def token_rows(cell: Cell, model: str) -> np.ndarray:
    """Return the class texts, int32[C, context length]: start, `slot` placeholders, template and name, end, zeros."""
    sizes, made = MODELS[model], recipe(cell, model)
    texts = [made["template"].format(name.replace("_", " ")) for name in class_names(cell.classes)]
    rows = tokenizer.load(vocab_size=sizes.vocab_size).tokenize(texts, sizes.context_length - made["slot"])
    return np.insert(rows, [1] * made["slot"], 0, axis=1)


def name_lengths(cell: Cell, model: str) -> np.ndarray:
    """Return int[C], the tokens after the shared prefix: name, full stop, end of text."""
    made, ends = recipe(cell, model), token_rows(cell, model).argmax(axis=1)
    lengths: np.ndarray = ends - made["slot"] - words(cell)
    return lengths


def words(cell: Cell) -> int:
    """Return the number of the template's tokens before the name.

    >>> words(Cell("mmap", 4))
    4
    """
    return len(TEMPLATES[cell.method].split("{}")[0].split())


def inputs(cell: Cell, model: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Return a batch of noise: image float32[B, H, W, 3], label, task, and weights whose sum is a mean."""
    rng, size = np.random.default_rng(seed), MODELS[model].image_size
    task = np.arange(cell.batch) % cell.tasks if cell.kind == "step" else np.zeros(cell.batch, int)
    return {
        "image": rng.standard_normal((cell.batch, size, size, 3), np.float32),
        "label": rng.integers(0, cell.classes, cell.batch).astype(np.int32),
        "task": task.astype(np.int32),
        "weight": np.full(cell.batch, 1 / cell.batch, np.float32),
    }


def backbone(model: str, params: Mapping[str, Any]) -> Backbone:
    """Return this project's backbone of the given weights."""
    sizes = MODELS[model]
    return Backbone(
        "random", sizes, params, tokenizer.load(vocab_size=sizes.vocab_size), {"size": sizes.image_size}, "0" * 64
    )


def problem(cell: Cell, model: str, params: Mapping[str, Any], **memory: int) -> Problem:
    """Return this project's problem of a cell, on the given weights; `memory` as in `clip_mtl.Options`."""
    made, names = recipe(cell, model), tuple(class_names(cell.classes))
    nothing: Any = None  # the suite's examples are never read
    suite = Suite("noise", tuple(Task(f"task{t}", names, nothing, nothing) for t in range(cell.tasks)), "none")
    options = {key: made[key] for key in ("method", "sharing", "template", "groups")}
    options |= {"tune": (), "seed": 0, "task_gradients": False} | memory
    return clip_mtl.build(suite, backbone(model, params), clip_mtl.Options(**options))


def write(cell: Cell, model: str, folder: pathlib.Path, **extra: Any) -> None:
    """Write the inputs of a cell's workers: cell.json and arrays.npz."""
    made, sizes = recipe(cell, model), MODELS[model]
    about = {"cell": asdict(cell), "model": model, "sizes": asdict(sizes), "recipe": made, "optimizer": SGD} | extra
    (folder / "cell.json").write_text(json.dumps(about))
    np.savez(folder / "arrays.npz", tokens=token_rows(cell, model), **inputs(cell, model))  # type: ignore[arg-type]
