"""The page of benchmark results: Markdown tables and figures."""

import pathlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jax_promptmtl.reporting.style import PALETTE, STYLE
from jax_promptmtl.speed.cells import Cell

Entry = dict[str, Any]
NONE = "-"
TITLES = {"coop": "CoOp", "vpt": "VPT-deep", "maple": "MaPLe", "mmap": "MmAP"}
SIDES = {
    "ours": "this project",
    "cached": "this project, cached image features",
    "images": "this project, four images at a time",
    "peer": "PyTorch as the peers write it",
    "fast": "PyTorch with its fastest kernels",
}
VARIANTS = {"cached": "cached features", "images": "4 at a time"}  # sides of this project, and their row titles
INTRO = """# Performance

Written by `python -m jax_promptmtl.bench`; the numbers behind it are in [performance.json](performance.json).

One training step and one evaluation pass of four methods at the size of CLIP {model}, random weights, float32. Times
are medians of wall time, CPU seconds of the process in brackets. Three sides do the same work from the same weights,
prompts and images, and their losses are compared:

- **this project**: what `main` runs; with _cached features_, where images are always seen alike; _4 at a time_, with
  `config.memory.image_chunk = 4`, which is exact and needs the memory of four images.
- **PyTorch as the peers write it**: the same methods on Hugging Face's CLIP, eager. All text positions, every class in
  every step, prompts through whole blocks; for MmAP one task after the other, each with its backward pass.
- **PyTorch with its fastest kernels**: the same, with the kernels that were fastest on this machine: {mode}.

Each side runs in a process of its own and the three take turns, so that a ratio is the median over neighbours in time.
**Arithmetic** is the peers' number of operations in matrix products over the number that is necessary (in closed form,
`jax_promptmtl/speed/flops.py`). A speed-up beyond it comes from kernels, not from doing less: part of the ratio to the
peers' column is only the matrix library that PyTorch ships with, so claims should rest on the column of the fastest
kernels.
"""


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def ran(entry: Entry, *sides: str) -> bool:
    """Return whether all given sides have times."""
    return all(entry["sides"].get(side, {}).get("wall") for side in sides)


def ratio(entry: Entry, side: str, base: str = "ours", clock: str = "wall") -> float:
    """Return the median over rounds of the ratio of one side's time to another's.

    >>> ratio({"sides": {"ours": {"wall": [1, 2]}, "peer": {"wall": [4, 6]}}}, "peer")
    3.5
    """
    mine, theirs = entry["sides"][base][clock], entry["sides"][side][clock]
    return median([b / a for a, b in zip(mine, theirs, strict=False)])


def times(entry: Entry, side: str) -> str:
    """Format wall and CPU seconds of a side, or why there are none."""
    if not ran(entry, side):
        return "failed" if "failed" in entry["sides"].get(side, {}) else NONE
    result = entry["sides"][side]
    return f"{significant(median(result['wall']))} s ({significant(median(result['cpu']))})"


def factor(entry: Entry, side: str, base: str = "ours") -> str:
    """Format a ratio."""
    return f"{significant(ratio(entry, side, base))}x" if ran(entry, side, base) else NONE


def significant(value: float) -> str:
    """Format a number with three significant digits.

    >>> [significant(value) for value in (0.01234, 1.234, 12.34, 1234.5)]
    ['0.0123', '1.23', '12.3', '1234']
    """
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers.

    >>> print(table(["a", "b"], [["x", "1"]]))
    | a | b |
    |:--|--:|
    | x | 1 |
    """
    lines = [list(head), *map(list, rows)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|:--|" + "--:|" * (len(head) - 1), *text[1:]])


def megabytes(entry: Entry, side: str) -> float | None:
    """Return the growth of a side's memory over its size when built, in MiB."""
    result = entry["sides"].get(side, {})
    return (result["peak"] - result["resident"]) / 2**20 if "peak" in result else None


def memory(entry: Entry, side: str) -> str:
    """Format memory."""
    value = megabytes(entry, side)
    return NONE if value is None else f"{value:.0f}"


def entries(results: dict[str, Any], keep: Callable[[Cell], bool]) -> list[tuple[Cell, Entry]]:
    """Return the cells that satisfy `keep` and were measured on this project."""
    pairs = [(Cell(**entry["cell"]), entry) for entry in results["cells"].values()]
    return [(cell, entry) for cell, entry in pairs if keep(cell) and ran(entry, "ours")]


def compared(results: dict[str, Any], kind: str) -> list[tuple[Cell, Entry]]:
    """Return the cells of a kind that all three sides ran."""
    found = entries(results, lambda cell: cell.kind == kind and not cell.length)
    order = list(TITLES)
    found = [(cell, entry) for cell, entry in found if {"ours", "peer", "fast"} <= entry["sides"].keys()]
    return sorted(found, key=lambda pair: (order.index(pair[0].method), pair[0].batch, pair[0].classes))


def title(cell: Cell) -> str:
    """Return the title of a row."""
    tasks = f", {cell.tasks} tasks" if cell.tasks > 1 else ""
    return f"{TITLES[cell.method]}{tasks}, {cell.batch} images"


def time_table(pairs: Sequence[tuple[Cell, Entry]]) -> str:
    """Return the table of times and ratios."""
    head = ["", "this project", "peers", "fastest kernels", "peers / ours", "fastest / ours", "arithmetic"]
    rows = []
    for cell, entry in pairs:
        less = f"{significant(entry['plain'] / entry['necessary'])}x"
        names = [times(entry, side) for side in ("ours", "peer", "fast")]
        rows.append([title(cell), *names, factor(entry, "peer"), factor(entry, "fast"), less])
        for variant, label in VARIANTS.items():
            if ran(entry, variant):
                names = [times(entry, side) for side in (variant, "peer", "fast")]
                work = entry["necessary_cached" if variant == "cached" else "necessary"]
                factors = [factor(entry, side, variant) for side in ("peer", "fast")]
                rows.append([f"{title(cell)}, {label}", *names, *factors, f"{significant(entry['plain'] / work)}x"])
    return table(head, rows)


def work_table(pairs: Sequence[tuple[Cell, Entry]], peak: float) -> str:
    """Return the table of rates, compilation and memory."""
    head = ["", "necessary GFLOP", "GFLOP/s", "of the peak", "compile", "MiB ours", "MiB peers", "MiB fastest"]
    rows = []
    for cell, entry in pairs:
        for mine, label in (("ours", ""), ("images", f", {VARIANTS['images']}")):
            if ran(entry, mine):
                rate = entry["necessary"] / median(entry["sides"][mine]["wall"])
                share = f"{100 * rate / peak:.0f} %" if peak else NONE
                seconds = f"{entry['sides'][mine]['compile']:.1f} s"
                sizes = [memory(entry, side) for side in (mine, "peer", "fast")]
                work = [significant(entry["necessary"] / 1e9), significant(rate / 1e9)]
                rows.append([title(cell) + label, *work, share, seconds, *sizes])
    return table(head, rows)


GROWTH: dict[str, tuple[str, Callable[[Cell], int], Callable[[Cell], bool]]] = {
    "classes": ("class texts", lambda c: c.classes, lambda c: c.method == "coop" and not c.length),
    "tasks": ("tasks", lambda c: c.tasks, lambda c: c.method == "mmap" and not c.length),
    "batch": ("images per step", lambda c: c.batch, lambda c: c.method == "mmap" and c.tasks == 4 and not c.length),
    "length": ("prompt tokens per set", lambda c: c.length, lambda c: c.method == "mmap" and c.length > 0),
}


def series(results: dict[str, Any], name: str) -> list[tuple[int, Cell, Entry]]:
    """Return the cells along one axis of growth, with the other sizes at their most frequent values."""
    _, axis, keep = GROWTH[name]
    found = entries(results, lambda cell: cell.kind == "step" and keep(cell))
    fixed = [tuple(v for k, v in vars(cell).items() if k != name) for cell, _ in found]
    if not found:
        return []
    common = max(fixed, key=fixed.count)
    chosen = [pair for pair, rest in zip(found, fixed, strict=True) if rest == common]
    return sorted(((axis(cell), cell, entry) for cell, entry in chosen), key=lambda row: row[0])


def growth_table(name: str, rows: Sequence[tuple[int, Cell, Entry]]) -> str:
    """Return the table along one axis of growth."""
    head = [
        GROWTH[name][0],
        "this project",
        "fastest kernels",
        "fastest / ours",
        "arithmetic",
        "MiB ours",
        "MiB fastest",
    ]
    return table(
        head,
        [
            [
                str(value),
                times(entry, "ours"),
                times(entry, "fast"),
                factor(entry, "fast"),
                f"{significant(entry['plain'] / entry['necessary'])}x",
                memory(entry, "ours"),
                memory(entry, "fast"),
            ]
            for value, _, entry in rows
        ],
    )


def memory_rows(results: dict[str, Any]) -> list[tuple[Cell, Entry]]:
    """Return the cells of the memory section: MmAP with few and with many classes."""
    found = entries(results, lambda cell: cell.kind == "step" and cell.method == "mmap" and not cell.length)
    return sorted((pair for pair in found if "texts" in pair[1]["sides"]), key=lambda pair: pair[0].classes)


def memory_text(results: dict[str, Any]) -> str:
    """Describe the memory added by more classes on the text side."""
    rows = memory_rows(results)
    sides = ("ours", "texts", "peer")
    head = ["class texts per task", "MiB ours", "MiB ours, 32 texts at a time", "MiB peers"]
    lines = [[str(cell.classes), *(memory(entry, side) for side in sides)] for cell, entry in rows]
    text = table(head, lines)
    grown = [[megabytes(entry, side) for _, entry in (rows[0], rows[-1])] for side in sides]
    if len(rows) > 1 and all(value is not None for pair in grown for value in pair):
        ours, texts, peer = ((many or 0) - (few or 0) for few, many in grown)
        text += (
            f"\n\nFrom {rows[0][0].classes} to {rows[-1][0].classes} class texts in each of {rows[0][0].tasks} tasks "
            f"the texts add {ours:.0f} MiB here, {texts:.0f} MiB with `config.memory.class_chunk = 32`, and {peer:.0f} "
            "MiB in the peers' way."
        )
    return text


def page(results: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    kernels, products = results.get("kernels", {}), results.get("products", {})
    times_of = kernels.get("seconds", {})
    mode = kernels.get("chosen", "onednn")
    parts = [INTRO.format(model=results["model"], mode=f"`{mode}`"), machine_text(results)]
    if products:
        rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in products.items())
        parts.append(f"Square matrix products, best of five, GFLOP/s: {rates}. The largest is the peak below.")
    if times_of:
        lines = [[name, f"{1e3 * value:.0f} ms"] for name, value in times_of.items()]
        lines += [[name, "failed"] for name in kernels["failed"]]
        parts.append("## PyTorch's kernels\n\nOne block of each tower, forward and backward:")
        parts.append(table(["kernels", "time"], lines))
    peak = max(products.values(), default=0.0)
    for kind, heading in (("step", "## One training step"), ("evaluation", "## One evaluation pass")):
        if pairs := compared(results, kind):
            parts += [heading, time_table(pairs), work_table(pairs, peak)]
            if kind == "step":
                parts.append("![Times of one training step](figures/performance_steps.png)")
    grown = [(name, rows) for name in GROWTH if len(rows := series(results, name)) > 1]
    if grown:
        parts.append("## How a step grows\n\n![Growth](figures/performance_growth.png)")
    for name, rows in grown:
        parts += [f"### With {GROWTH[name][0]}: {fixed_text(rows[0][1], name)}", growth_table(name, rows)]
    if memory_rows(results):
        parts += ["## Memory of the text side", memory_text(results)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def fixed_text(cell: Cell, name: str) -> str:
    """Describe the sizes that are fixed along an axis."""
    tasks = f"{cell.tasks} task{'s' if cell.tasks > 1 else ''}"
    sizes = {"batch": f"{cell.batch} images", "classes": f"{cell.classes} classes", "tasks": tasks}
    return ", ".join([TITLES[cell.method], *(text for key, text in sizes.items() if key != name)])


def machine_text(results: dict[str, Any]) -> str:
    """Describe the machine of the measurements."""
    about = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    hardware = f"{about['processor']}, {about['cores']} cores, {about['memory'] / 2**30:.0f} GiB"
    loads = ", ".join(f"{load:.1f} before {section}" for section, load in results.get("loads", {}).items())
    return f"Machine: {hardware}; {versions}. Load average {loads}."


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_steps(path: pathlib.Path, pairs: Sequence[tuple[Cell, Entry]]) -> None:
    """Draw the times of a step as horizontal bars, side by side."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.9 + 0.75 * len(pairs)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, side in enumerate(("ours", "peer", "fast")):
            rows = [(i, e["sides"][side]["wall"]) for i, (_, e) in enumerate(pairs) if ran(e, side)]
            where, values = [i + 0.27 * (number - 1) for i, _ in rows], [median(wall) for _, wall in rows]
            bars = axes.barh(where, values, height=0.25, color=PALETTE[number], label=SIDES[side])
            axes.bar_label(bars, [f"{significant(value)} s" for value in values], padding=3, fontsize=7.5)
        axes.set_yticks(range(len(pairs)), [title(cell) for cell, _ in pairs])
        axes.invert_yaxis()
        axes.set_xlabel("seconds per training step")
        axes.legend(loc="upper right")
        figure.savefig(path, dpi=160, facecolor="white")


def draw_growth(path: pathlib.Path, results: dict[str, Any]) -> None:
    """Draw one panel per axis of growth, and the memory over the classes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 3).flat
        for axes, name in zip(panels, GROWTH, strict=False):
            draw_series(axes, series(results, name), lambda e, side: median(e["sides"][side]["wall"]))
            axes.set(xlabel=GROWTH[name][0], ylabel="seconds per step")
        axes = next(panels := iter(figure.axes[len(GROWTH) :]))
        draw_series(axes, series(results, "classes"), lambda e, side: (megabytes(e, side) or 0) / 1024)
        axes.set(xlabel="class texts", ylabel="GiB above the weights")
        key = next(panels)  # the sixth panel holds the legend
        key.set_axis_off()
        key.legend(*figure.axes[0].get_legend_handles_labels(), loc="center left")
        figure.savefig(path, dpi=160, facecolor="white")


def draw_series(axes: Any, rows: Sequence[tuple[int, Cell, Entry]], value: Callable[[Entry, str], float]) -> None:
    """Draw a quantity of this project and of the fastest PyTorch along an axis."""
    for colour, side in ((PALETTE[0], "ours"), (PALETTE[2], "fast")):
        points = [(x, value(entry, side)) for x, _, entry in rows if ran(entry, side)]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=SIDES[side])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def write(results: dict[str, Any], out: pathlib.Path) -> None:
    """Write performance.md and its figures."""
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    if pairs := compared(results, "step"):
        draw_steps(figures / "performance_steps.png", pairs)
    if any(len(series(results, name)) > 1 for name in GROWTH):
        draw_growth(figures / "performance_growth.png", results)
    (out / "performance.md").write_text(page(results), "utf-8")
