"""Measure training steps, memory and evaluation against PyTorch, and write the page of results."""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Any

from safetensors.numpy import save_file

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.models.clip import convert
from jax_promptmtl.speed import TASKS, cells, flops, page
from jax_promptmtl.speed.cells import MODELS, Cell
from jax_promptmtl.speed.turns import measure

CHUNK = 4  # images at a time, as `config.memory.image_chunk`
TEXTS = 32  # class texts at a time, as `config.memory.class_chunk`
LIBRARIES = ("jax", "mkl", "onednn")
KERNELS = ("stock", "onednn", "compile", "compile+onednn")  # of peers
EXTRA = ("torch", "transformers")
AGREE = 2e-3  # relative difference of first losses above which two sides are not equivalent
BUSY = 0.7  # load average above which the machine counts as busy


class Bench:
    """A benchmark run: its options, and results so far.

    Args:
      options: of the command line.
      scratch: a folder for weights and inputs.
    """

    def __init__(self, options: argparse.Namespace, scratch: pathlib.Path):
        self.options, self.scratch = options, scratch
        self.path = pathlib.Path(options.out) / "performance.json"
        known = json.loads(self.path.read_text()) if self.path.is_file() and not options.fresh else {}
        if known.get("model") != options.model:
            known = {"cells": {}}
        self.results = known | {"model": options.model, "machine": machine()}

    def say(self, text: str) -> None:
        """Report progress."""
        print(text, flush=True)

    def watch(self, section: str) -> None:
        """Record the load average before a section, including the benchmark's own recent load."""
        load = os.getloadavg()[0]
        self.results.setdefault("loads", {})[section] = load
        if load > BUSY and section == self.options.sections[0]:
            self.say(f"warning: the load average is {load:.1f}; on a busy machine the times and ratios mean little")

    def save(self) -> None:
        """Save the results so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.results, indent=1) + "\n")

    def folder(self, cell: Cell) -> pathlib.Path:
        """Write the inputs of a cell; return where."""
        folder = self.scratch / cell.name
        folder.mkdir(exist_ok=True)
        cells.write(cell, self.options.model, folder)
        return folder

    def products(self) -> None:
        """Measure matrix products: the machine's peak, to which rates are compared."""
        sizes = (256,) if self.options.model == "small" else (2048, 4096)
        sides = [f"product:{library}:{size}" for library in LIBRARIES for size in sizes]
        found = measure(sides, self.scratch, least=5, most=5, seconds=0)
        best = dict.fromkeys(LIBRARIES, 0.0)
        for side, result in found.items():
            _, library, size = side.split(":")
            rate = 2 * int(size) ** 3 / min(result.get("wall") or [math.inf])
            best[library] = max(best[library], rate)
        self.results["products"] = best
        self.say("  " + ", ".join(f"{library} {rate / 1e9:.0f} GFLOP/s" for library, rate in best.items()))

    def kernels(self) -> None:
        """Find torch's fastest kernels on one block of each tower."""
        cell = Cell("coop", self.options.batches[0], classes=self.options.classes)
        found = measure([f"block:{mode}" for mode in KERNELS], self.folder(cell), least=3, most=5, seconds=20)
        times = {side.split(":")[1]: statistics.median(r["wall"]) for side, r in found.items() if r.get("wall")}
        failed = {side.split(":")[1]: r["failed"] for side, r in found.items() if "failed" in r}
        self.results["kernels"] = {"seconds": times, "failed": failed}
        self.results["kernels"]["chosen"] = self.fastest()
        self.say("  " + ", ".join(f"{mode} {1e3 * seconds:.0f} ms" for mode, seconds in times.items()))

    def fastest(self) -> str:
        """Return torch's fastest kernels; compiled ones only if faster by 5 %, as every cell recompiles."""
        times = self.results.get("kernels", {}).get("seconds", {})
        return min(times, key=lambda mode: times[mode] * (1.05 if "compile" in mode else 1)) if times else "onednn"

    def steps(self) -> None:
        """Measure one training step of every method at every batch size."""
        for method in self.options.methods:
            for batch in self.options.batches:
                cell = Cell(method, batch, classes=self.options.classes, tasks=TASKS[method])
                self.cell(cell, [*self.all_sides(), *variant(cell)], least=1 if self.options.quick else 2)

    def evaluation(self) -> None:
        """Measure one evaluation pass of every method."""
        for method in self.options.methods:
            cell = Cell(method, self.options.test_batch, "evaluation", self.options.classes, TASKS[method])
            self.cell(cell, self.all_sides(), least=1)

    def all_sides(self) -> list[str]:
        """Return the sides: this project, stock torch and torch with its fastest kernels."""
        return ["ours", "peer", f"fast:{self.fastest()}"]

    def growth(self) -> None:
        """Measure how a step grows with classes, tasks, batch and prompt length."""
        fast = self.all_sides()[-1]
        for cell in growth_cells(self.options):
            self.cell(cell, ["ours", fast] if self.affordable(cell) else ["ours"], least=1)

    def memory(self) -> None:
        """Measure the memory cost of classes: a step with almost none, and one with many."""
        many = 2 * self.options.classes if self.options.quick else 126
        for classes in (2, many):
            cell = Cell("mmap", self.options.batches[0], classes=classes, tasks=TASKS["mmap"])
            self.cell(cell, ["ours", f"texts:{TEXTS}", "peer"], least=1)

    def affordable(self, cell: Cell) -> bool:
        """Return whether a torch step fits into `limit` seconds and half of the memory."""
        rate = max(self.results.get("products", {}).values(), default=1e11)
        work, need = flops.plain(cell, self.options.model), flops.plain_bytes(cell, self.options.model)
        fits = work / rate < self.options.limit and need < 0.5 * self.results["machine"]["memory"]
        if not fits:
            self.say(f"{cell.name}: torch left out, {work / rate:.0f} s or {need / 2**30:.0f} GiB a step")
        return bool(fits)

    def cell(self, cell: Cell, sides: Sequence[str], *, least: int) -> None:
        """Measure a cell, unless results of all sides exist, and save it."""
        known = self.results["cells"].get(cell.name, {}).get("sides", {})
        if not {side.split(":")[0] for side in sides} - known.keys():
            self.say(f"{cell.name}: known")
            return
        self.say(f"{cell.name} ...")
        seconds = 0 if self.options.quick else self.options.seconds
        found = measure(sides, self.folder(cell), least=least, most=7, seconds=seconds)
        entry: dict[str, Any] = {
            "cell": vars(cell),
            "sides": {side.split(":")[0]: result for side, result in found.items()},
            "plain": flops.plain(cell, self.options.model),
            "necessary": flops.necessary(cell, self.options.model),
            "necessary_cached": flops.necessary(cell, self.options.model, cached_images=True),
        }
        entry["disagree"] = disagreement(entry["sides"])
        self.results["cells"][cell.name] = entry
        self.say("  " + summary(entry))
        self.save()


def variant(cell: Cell) -> list[str]:
    """Return this project's alternatives for a step: cached image features, or microbatches.

    >>> variant(Cell("coop", 4)), variant(Cell("mmap", 4)), variant(Cell("mmap", 16))
    (['cached'], [], ['images:4'])
    """
    if cell.method == "coop":
        return ["cached"]
    return [f"images:{CHUNK}"] if cell.batch > CHUNK and cell.batch % CHUNK == 0 else []


def disagreement(sides: dict[str, Any]) -> list[str]:
    """Return the sides whose first loss, or more than 2 % of whose predictions, differ from ours."""
    ours, found = sides.get("ours", {}), []
    for side, other in sides.items():
        if "loss" in ours and "loss" in other and abs(other["loss"] / ours["loss"] - 1) > AGREE:
            found.append(side)
        if "prediction" in ours and "prediction" in other:
            pairs = list(zip(ours["prediction"], other["prediction"], strict=True))
            if sum(a != b for a, b in pairs) > 0.02 * len(pairs):
                found.append(side)
    return found


def summary(entry: dict[str, Any]) -> str:
    """Summarise a cell in one line."""
    parts = [f"{side} {statistics.median(r['wall']):.2f} s" for side, r in entry["sides"].items() if r.get("wall")]
    if entry["disagree"]:
        parts.append(f"NOT THE SAME RESULT: {', '.join(entry['disagree'])}")
    return ", ".join(parts)


def growth_cells(options: argparse.Namespace) -> Iterable[Cell]:
    """Yield the cells of the growth section."""
    many = (1, 4) if options.quick else (1, 4, 16)
    classes = (options.classes, 2 * options.classes) if options.quick else (65, 126, 345, 1000)
    first, last = options.batches[0], options.batches[-1]
    yield from (Cell("coop", first, classes=count) for count in classes)
    yield from (Cell("mmap", last, classes=options.classes, tasks=count) for count in many)
    yield from (Cell("mmap", count, classes=options.classes, tasks=4) for count in (first, last, 2 * last))
    lengths = (1, 2) if options.model == "small" else (4, 8, 16)
    yield from (Cell("mmap", first, classes=options.classes, tasks=4, length=length) for length in lengths)


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, memory and versions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("jax", "jaxlib", "flax", "torch", "transformers", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "processor": model,
        "cores": cores,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "versions": {"python": platform.python_version()} | versions,
    }


def run(options: argparse.Namespace) -> None:
    """Run the benchmark with the options of `python -m jax_promptmtl.bench`."""
    for name in EXTRA:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"The benchmark compares with PyTorch, but {name} is missing; pip install -e '.[bench]'.")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, pathlib.Path(scratch))
        weights = convert.to_hf(cells.random_weights(MODELS[options.model]))
        save_file(weights, pathlib.Path(scratch) / "weights.safetensors")
        for section in options.sections:
            begin = time.perf_counter()
            print(f"== {section}", flush=True)
            bench.watch(section)
            getattr(bench, section)()
            bench.save()
            page.write(bench.results, pathlib.Path(options.out))
            print(f"== {section}: {time.perf_counter() - begin:.0f} s", flush=True)
