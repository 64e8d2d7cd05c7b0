"""Tables of scores: the method's mean and standard deviation over seeds in every column."""

from collections.abc import Callable, Mapping, Sequence

from jax_promptmtl.reporting.collect import AVERAGE, Column, ImageTable, MethodRuns, VideoTable
from jax_promptmtl.reporting.formatting import NOTHING, format_count, format_mean_std, rank_best
from jax_promptmtl.reporting.paper import dlm_paper, mmap_paper
from jax_promptmtl.reporting.typeset import Cell, Sheet

Lead = Mapping[str, Callable[[MethodRuns], str]]  # header of a column before the scores -> its text of a row


def score_sheet(
    rows: Sequence[MethodRuns],
    columns: Mapping[Column, str],
    text: Callable[[MethodRuns, Column], str],
    *,
    lead: Lead,
    first: str = "method",
) -> Sheet:
    """Return a table of scores with the best two of each column marked.

    Args:
      rows: lines of the table.
      columns: {column of scores: its header}.
      text: formats a score.
      lead: columns between titles and scores.
      first: header of the titles.
    """
    best = {column: rank_best([round(row.mean(column), 1) for row in rows]) for column in columns}
    lines = []
    for number, row in enumerate(rows):
        leading = [row.title, *(tell(row) for tell in lead.values())]
        scores = [Cell(text(row, column), best[column][number]) for column in columns]
        lines.append([*map(Cell, leading), *scores])
    return Sheet((first, *lead, *columns.values()), lines)


# --- images ---


def accuracy_sheet(table: ImageTable) -> Sheet:
    """Return accuracies in percent, mean ± std over seeds, with the paper's in brackets where it has the row."""
    theirs = {row.method: _paper_scores(table, row.method) for row in table.rows}

    def text(row: MethodRuns, column: Column) -> str:
        beside = theirs[row.method].get(column.task)
        ours = format_mean_std(row.mean(column), row.std(column))
        return f"{ours} ({format_mean_std(*beside)})" if beside else ours

    lead: Lead = {
        "trained parameters": lambda row: format_count(row.trainable),
        "seeds": lambda row: str(len(row.runs)),
    }
    return score_sheet(table.rows, {column: str(column) for column in table.columns}, text, lead=lead)


def _paper_scores(table: ImageTable, method: str) -> dict[str, tuple[float, float | None]]:
    """Return {task or "average": [mean, std]} of the paper for a row; {} where the suite is none of the paper's."""
    found = mmap_paper()["tables"].get(table.suite_name, {})
    split = found.get("splits", {}).get(str(table.shots))
    cells = found["accuracy"][split].get(method, {}) if split else {}
    names = found.get("tasks", {}) | {AVERAGE.task: "Average"}
    return {ours: tuple(cells[theirs]) for ours, theirs in names.items() if cells}


def group_sheet(table: ImageTable) -> Sheet | None:
    """Return Table 3, the ablation of groups, or `None` if fewer than two of its rows were run."""
    about = mmap_paper()["table_3"]
    chosen = [(row, label, theirs) for method, label, theirs in about["rows"] if (row := table.row(method))]
    if len(chosen) < 2:
        return None
    best = rank_best([round(row.mean(AVERAGE), 2) for row, *_ in chosen])
    split = mmap_paper()["tables"][about["suite"]]["splits"].get(str(table.shots))
    beside = split if table.suite_name == about["suite"] else None
    lines = [
        [
            Cell(label),
            Cell(format_count(row.trainable)),
            Cell(format_mean_std(row.mean(AVERAGE), row.std(AVERAGE), 2), best[number]),
            *([Cell(f"{theirs[beside]:.2f}")] if beside else []),
        ]
        for number, (row, label, theirs) in enumerate(chosen)
    ]
    return Sheet(("prompts", "trained parameters", "average", *(["paper"] if beside else [])), lines)


# --- videos ---


def video_score_sheet(
    table: VideoTable, rows: Sequence[MethodRuns], columns: Sequence[Column], *, shares: bool = False
) -> Sheet:
    """Return the metric of each column for every row, mean ± std over seeds; with `shares`, the trained share.

    Args:
      table: of the rows.
      rows: lines of the table.
      columns: of scores.
      shares: whether to add the trained share of all models used, and the paper's.
    """
    lead: Lead = {"trained / all models": _trained_share, "paper": _paper_share} if shares else {}
    return score_sheet(rows, {column: table.heading(column) for column in columns}, _video_score, lead=lead)


def part_sheet(rows: Sequence[MethodRuns], task: str) -> Sheet:
    """Return the trained parameters of one primary's rows, and its metric on every part of the videos."""
    columns = {column: column.part for row in rows for column in row.scores if column.task == task}
    return score_sheet(
        rows, columns, _video_score, lead={"trained": lambda row: format_count(row.trainable)}, first="row"
    )


def _video_score(row: MethodRuns, column: Column) -> str:
    """Return mean ± std over seeds; without std for a frozen primary, which does not depend on the seed."""
    values = row.values(column)
    if not values:
        return NOTHING
    return format_mean_std(row.mean(column), row.std(column) if len(set(values)) > 1 else None)


def _trained_share(row: MethodRuns) -> str:
    """Return the trained share of all models used, over the primaries."""
    last = [runs[-1] for runs in row.by_task.values()]
    shares = sorted({f"{100 * run['trainable'] / run['loaded']:.3g}" for run in last}, key=float)
    return f"{shares[0]} %" if len(shares) == 1 else f"{shares[0]} to {shares[-1]} %"


def _paper_share(row: MethodRuns) -> str:
    return dlm_paper()["shares"].get(row.method, "") if row.prompts == "dynamic" else ""
