"""Formatting of numbers and groups in tables."""

from collections.abc import Iterable, Sequence

import numpy as np

NOTHING = "–"  # noqa: RUF001


def format_mean_std(mean: float, std: float | None, digits: int = 1) -> str:
    """Return a mean and its standard deviation, which may be missing or NaN.

    >>> format_mean_std(52.84, 0.36), format_mean_std(52.84, float("nan"))
    ('52.8 ± 0.4', '52.8')
    """
    return f"{mean:.{digits}f}" + ("" if std is None or np.isnan(std) else f" ± {std:.{digits}f}")


def format_count(number: float) -> str:
    """Format a number of parameters, in millions where large.

    >>> format_count(0), format_count(6264), format_count(149620737)
    ('0', '6,264', '149.62 M')
    """
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,.0f}"


def format_duration(seconds: float) -> str:
    """Format a duration in suitable units.

    >>> [format_duration(s) for s in (0.5, 59.96, 61, 3725)]
    ['0.5 s', '1 min 00 s', '1 min 01 s', '1 h 02 min']
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_average(values: Iterable[float], form: str) -> str:
    """Return the mean of some values in a format; a dash where there are none.

    >>> format_average([1.0, 2.0], "{:.1f}"), format_average([], "{:.1f}") == NOTHING
    ('1.5', True)
    """
    some = list(values)
    return form.format(np.mean(some)) if some else NOTHING


def format_groups(groups: Iterable[Iterable[str]]) -> str:
    """Return groups of tasks as a line.

    >>> format_groups([["ink", "wax"], ["oil"]])
    'ink + wax; oil'
    """
    return "; ".join(" + ".join(group) for group in groups)


def rank_best(values: Sequence[float]) -> list[int]:
    """Return 1 for the largest values, 2 for the next ones, 0 for the others and for NaN.

    >>> rank_best([3.0, 5.0, 5.0, 4.0])
    [0, 1, 1, 2]
    """
    best = sorted({value for value in values if not np.isnan(value)}, reverse=True)
    return [best.index(value) + 1 if value in best[:2] else 0 for value in values]
