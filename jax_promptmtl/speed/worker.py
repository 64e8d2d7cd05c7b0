"""A worker process of the benchmark: builds one side of one cell, then runs it on command.

    python -m jax_promptmtl.bench.worker <side> <folder>

Commands come line by line on the standard input: build, run, quit. Every answer is one line that starts with "@".
"""

import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

MARK = "@"
CHUNKS = {"images": "image_chunk", "texts": "class_chunk"}  # side -> option of `config.memory`


class Ours:
    """One cell of this project.

    Args:
      folder: has cell.json and arrays.npz; gets params.npz, the initial prompts for all sides.
      cached: whether to encode the images once, before all steps.
      memory: `image_chunk` and `class_chunk`, as in `config.memory`.
    """

    def __init__(self, folder: pathlib.Path, cached: bool = False, memory: Mapping[str, int] | None = None):
        import jax
        from safetensors.numpy import load_file

        from jax_promptmtl.core import tree
        from jax_promptmtl.engine import optim, parallel, step
        from jax_promptmtl.models.clip import convert
        from jax_promptmtl.problems import image_features
        from jax_promptmtl.speed import cells

        about = json.loads((folder / "cell.json").read_text())
        self.cell = cells.Cell(**about["cell"])
        params = convert.to_tree(load_file(folder.parent / "weights.safetensors"))
        self.problem = cells.problem(self.cell, about["model"], params, **(memory or {}))
        leaves = {path: np.asarray(leaf) for path, leaf in tree.flatten(self.problem.params["method"]).items()}
        np.savez(folder / "params.npz", **leaves)  # type: ignore[arg-type]
        arrays = np.load(folder / "arrays.npz")
        self.batch = {key: arrays[key] for key in ("image", "label", "task", "weight")}
        if cached:
            backbone = cells.backbone(about["model"], params)
            (self.batch,) = image_features.encode_images(backbone, [self.batch])
        settings = about["optimizer"] | {"name": "sgd", "schedule": "constant", "clip": None}
        self.tx = optim.make(settings, mask=self.problem.mask, steps_per_epoch=1, total_steps=1)
        self.frozen = parallel.replicate(self.problem.frozen)
        self.seconds = 0.0
        self.runner = self.stepper(jax, step) if self.cell.kind == "step" else self.evaluator(step)

    def stepper(self, jax: Any, step: Any) -> Callable[[], dict[str, Any]]:
        """Compile the training step; return one step as a function."""
        self.restart = partial(step.initial, self.problem, self.tx)
        self.state = self.restart()
        body = partial(step.train_step, problem=self.problem, tx=self.tx, key=jax.random.key(0))
        self.batch = jax.device_put(self.batch)
        start = time.perf_counter()
        compiled = jax.jit(body, donate_argnums=0).lower(self.state, self.frozen, self.batch).compile()
        self.seconds = time.perf_counter() - start

        def run() -> dict[str, Any]:
            self.state, metrics = compiled(self.state, self.frozen, self.batch)
            return {"loss": float(metrics["loss"])}

        return run

    def evaluator(self, step: Any) -> Callable[[], dict[str, Any]]:
        """Return one evaluation pass as a function."""
        evaluate = step.evaluator(self.problem)

        def run() -> dict[str, Any]:
            result = evaluate(self.problem.params, self.frozen, [self.batch])
            return {"prediction": np.asarray(result["prediction"]).tolist()}

        return run

    def run(self) -> dict[str, Any]:
        """Do what the cell measures, once."""
        return self.runner()

    def rehearse(self) -> None:
        """Run once, untimed; an evaluation compiles here."""
        start = time.perf_counter()
        self.run()
        if self.cell.kind == "step":
            self.state = self.restart()
        else:
            self.seconds = time.perf_counter() - start

    def finish(self) -> dict[str, Any]:
        """Return seconds of compilation (of an evaluation, with its first pass)."""
        return {"compile": self.seconds}


class Product:
    """An n x n matrix product in JAX, for the machine's peak."""

    def __init__(self, size: int):
        import jax

        self.a, self.b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
        self.product = jax.jit(lambda a, b: a @ b)

    def run(self) -> dict[str, Any]:
        """Multiply."""
        self.product(self.a, self.b).block_until_ready()
        return {}

    def rehearse(self) -> None:
        """Compile."""
        self.run()

    def finish(self) -> dict[str, Any]:
        """Return no further results."""
        return {}


def make(side: str, folder: pathlib.Path) -> Any:
    """Build one side of the cell in a folder.

    Args:
      side: ours, cached, images:SIZE or texts:SIZE (so many at a time); peer, fast:MODE or cut:MODE of `peers`;
        block:MODE; or product:LIBRARY:N.
      folder: see `cells.write`.
    """
    kind, *rest = side.split(":")
    if kind in ("ours", "cached"):
        return Ours(folder, cached=kind == "cached")
    if kind in CHUNKS:
        return Ours(folder, memory={CHUNKS[kind]: int(rest[0])})
    if kind == "product" and rest[0] == "jax":
        return Product(int(rest[1]))
    from jax_promptmtl.speed import peers

    if kind == "product":
        return peers.Product(int(rest[1]), rest[0] == "onednn")
    if kind == "block":
        return peers.Blocks(folder, rest[0])
    return peers.Peer(folder, rest[0] if rest else "stock", cut=kind == "cut")


def preload(side: str) -> None:
    """Import the side's libraries ahead, which takes seconds."""
    if side.startswith(("ours", "cached", *CHUNKS, "product:jax")):
        from jax_promptmtl.speed import cells  # noqa: F401
    else:
        from jax_promptmtl.speed import peers  # noqa: F401


def peak_bytes() -> int:
    """Return the largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """Return the current resident memory in bytes, or the peak where the system does not report it."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes()


def say(answer: dict[str, Any]) -> None:
    """Answer the driver."""
    print(MARK + json.dumps(answer), flush=True)


def main(side: str, folder: str) -> None:
    """Serve commands until `quit`."""
    preload(side)
    say({})
    runner: Any = None
    for line in sys.stdin:
        command = line.strip()
        if command == "build":
            start = time.perf_counter()
            runner = make(side, pathlib.Path(folder))
            built = resident_bytes()
            runner.rehearse()
            say({"seconds": time.perf_counter() - start, "resident": built})
        elif command == "run":
            wall, cpu = time.perf_counter(), time.process_time()
            result = runner.run()
            say({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **result})
        else:
            say({"peak": peak_bytes(), **runner.finish()})
            return


if __name__ == "__main__":
    main(*sys.argv[1:3])
