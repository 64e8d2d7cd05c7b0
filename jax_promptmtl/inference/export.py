"""Export of a trained run: classifiers that need only jax to run, and the prompts as safetensors."""

import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export as jax_export

import jax_promptmtl
from jax_promptmtl.core import tree
from jax_promptmtl.core.errors import UserError
from jax_promptmtl.engine import checkpoint
from jax_promptmtl.inference import image_predictor
from jax_promptmtl.inference.recipe import recipe

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # of the logits, relative to the largest
CHECKED = (3, 1)  # batch sizes of the comparison


def file_name(task: str) -> str:
    """Return the file name of a task's classifier.

    >>> file_name("Real World/2")
    'Real_World_2.stablehlo'
    """
    return re.sub(r"[^\w.-]", "_", task) + ".stablehlo"


def export_task(model: image_predictor.Predictor, task: str, platforms: Sequence[str]) -> jax_export.Exported:
    """Export float32[b, size, size, 3] -> {"logits", "probabilities"}: float32[b, C], with symbolic b >= 1."""
    head = model.head(task)
    frozen = {key: head.problem.frozen[key] for key in ("backbone", "method")}

    def classify(image: jax.Array) -> dict[str, jax.Array]:
        batch = {"image": image, "task": jnp.zeros(image.shape[0], jnp.int32)}
        logits = head.problem.predict(head.prepared, frozen, batch)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits)}

    size = model.preprocess.size
    shape = jax_export.symbolic_shape(f"b, {size}, {size}, 3")
    return jax_export.export(jax.jit(classify), platforms=platforms)(jax.ShapeDtypeStruct(shape, jnp.float32))


def check_task(model: image_predictor.Predictor, task: str, path: pathlib.Path) -> float:
    """Compare an exported file with the original model.

    Returns:
      The largest difference of the logits, relative to the largest logit.

    Raises:
      UserError: they differ.
    """
    exported = jax_export.deserialize(bytearray(path.read_bytes()))
    worst, size = 0.0, model.preprocess.size
    for count in CHECKED:
        pixels = np.random.default_rng(count).normal(size=(count, size, size, 3)).astype(np.float32)
        expected, found = model.logits(pixels, task), exported.call(pixels)
        worst = max(worst, float(np.abs(found["logits"] - expected).max() / max(1, np.abs(expected).max())))
    allowed = TOLERANCE[model.meta["about"]["backbone"].get("dtype", "float32")]
    if not worst <= allowed:
        raise UserError(
            f"{str(path)!r} differs from the trained model by {worst:.1e} of its logits, and {allowed:.0e} is allowed; "
            "do not use it, and report this with the versions of jax and of the compiler."
        )
    return worst


def save_prompts(model: image_predictor.Predictor, folder: pathlib.Path, files: Mapping[str, str]) -> None:
    """Write prompts.safetensors and config.json, which `load` reads, and verify them."""
    trained = {path: np.asarray(leaf, order="C") for path, leaf in model.trained.items()}
    about = model.meta["about"] | {"class_names": {task: list(found) for task, found in model.classes.items()}}
    meta = {
        "schema": image_predictor.SCHEMA,
        "step": model.meta["step"],
        "config": model.meta["config"],
        "about": about,
    }
    meta |= {"files": dict(files), "crc32": checkpoint.checksums(params=tree.unflatten(trained))}
    (folder / image_predictor.PROMPTS).write_bytes(
        safetensors.numpy.save(trained)
    )  # save_file makes the file readable by its owner only
    (folder / image_predictor.CONFIG).write_text(json.dumps(meta, indent=1) + "\n", "utf-8")
    found, _ = image_predictor.read_export(folder)
    if found.keys() != trained.keys():
        raise UserError(f"{str(folder)!r} cannot be read back; look at the disk and export again.")


def export(
    model: image_predictor.Predictor, folder: pathlib.Path, tasks: Sequence[str], platforms: Sequence[str]
) -> Iterator[str]:
    """Write all files of an export; yields a line on each once it is written and verified."""
    files = {task: file_name(task) for task in tasks}
    if len(set(files.values())) < len(files):
        raise UserError(f"Some tasks give files of one name ({', '.join(files.values())}); use --task.")
    folder.mkdir(parents=True, exist_ok=True)
    for task, name in files.items():
        (folder / name).write_bytes(export_task(model, task, platforms).serialize())
        worst = check_task(model, task, folder / name)
        size = (folder / name).stat().st_size / 2**20
        yield f"{folder / name}: {len(model.classes[task])} classes, {size:.1f} MiB, logits equal to {worst:.0e}"
    save_prompts(model, folder, files)
    size = sum(leaf.size for leaf in model.trained.values())
    yield f"{folder / image_predictor.PROMPTS}: {size:,} trained parameters"
    (folder / "README.md").write_text(read_me(model, files, platforms), "utf-8")
    yield f"{folder / 'README.md'} shows how to use them"


README = """# {title}

Image classifiers made with jax_promptmtl {version}: the CLIP {backbone}, tuned on {tasks}.

| file | what |
|:--|:--|
{rows}
| prompts.safetensors, config.json | the trained parameters, and all that is needed to use them with the backbone |

## With jax alone

The files hold the whole classifier, weights included, for {platforms}. `pip install jax flatbuffers pillow`, then:

```python
import json

import numpy as np
from jax import export
from PIL import Image, ImageOps

classes = json.load(open("config.json"))["about"]["class_names"]["{task}"]
model = export.deserialize(bytearray(open("{file}", "rb").read()))


{prepare}

answer = model.call(np.stack([prepare(path) for path in ["picture.png"]]))  # any number of images
print(classes[int(answer["probabilities"][0].argmax())])
```

## With jax_promptmtl

```python
import jax_promptmtl

model = jax_promptmtl.load(".")  # needs the backbone {backbone}; classes=["cat", "dog"] for other classes
print(model.predict(["picture.png"], task="{task}").labels)
```
"""


def read_me(model: image_predictor.Predictor, files: Mapping[str, str], platforms: Sequence[str]) -> str:
    """Return the README.md of an exported folder."""
    task, file = next(iter(files.items()))
    rows = [f"| {name} | task {of}: {len(model.classes[of])} classes |" for of, name in files.items()]
    return README.format(
        title=f"Classifiers for {', '.join(files)}",
        version=jax_promptmtl.__version__,
        backbone=f"`{model.backbone.name}`",
        tasks=", ".join(model.tasks),
        rows="\n".join(rows),
        platforms=", ".join(platforms),
        task=task,
        file=file,
        prepare=recipe(model.preprocess),
    )
