"""The console table of a video run: aligned from row to row, a column for each part and kind of prompts."""

from jax_promptmtl.reporting.video_run import console_scores

SCORES = {"dynamic": {"test": {"top1": 71.25}}, "static": {"test": {"top1": 50.0}, "shifted": {"top1": 9.0}}}


def test_a_table_has_a_line_per_row_and_a_column_per_measure():
    text = console_scores({"dlm": {"title": "DLM", "trainable": 1234, "scores": SCORES}}, "top1")
    assert text.splitlines()[1].split() == ["DLM", "1,234", "71.2", "50.0", "-", "9.0"]


def test_tables_printed_one_after_the_other_are_aligned():
    frozen = {"title": "frozen primary", "trainable": 0, "scores": {"dynamic": {"test": {"top1": 60.0}}}}
    dlm = {"title": "auxiliaries see their own data", "trainable": 391_408, "scores": SCORES}
    one, both = console_scores({"frozen": frozen}, "top1"), console_scores({"frozen": frozen, "dlm": dlm}, "top1")
    head = f"{'top1':<30}{'trainable':>12}{'test dynamic':>18}{'test static':>18}"
    line = f"{'frozen primary':<30}{'0':>12}{'60.0':>18}{'-':>18}"
    assert one == f"{head}\n{line}" and [text[: len(head)] for text in both.splitlines()[:2]] == [head, line]
