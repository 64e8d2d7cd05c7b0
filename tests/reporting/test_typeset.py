"""Tables as text: LaTeX that keeps its form, and a summary that is set off in every form."""

from jax_promptmtl.reporting import typeset
from jax_promptmtl.reporting.typeset import Cell, Sheet
from tests.pages import balanced


def test_latex_keeps_its_form_with_any_title():
    cell = typeset.Cell(r"100 % {of} A_1 & B\C # $5 ~^ <x>", 1)
    tex = typeset.latex(typeset.Sheet(("a_b", "c & d"), [(cell, typeset.Cell("1.0 ± 0.1", 2))]), "50 %", "x_y & z")
    assert balanced(tex) and not balanced(tex.replace(r"\&", "&")) and not balanced(tex[:-5])
    assert r"\textbf{100 \% \{of\} A\_1 \& B\textbackslash{}C \# \$5" in tex and r"1.0 $\pm$ 0.1" in tex


def test_a_summary_is_set_off():
    sheet = Sheet(("task", "acc"), [(Cell("a"), Cell("9.5")), (Cell("average"), Cell("9.5"))], summary=True)
    rule = "─" * len("average  9.5")
    assert typeset.console(sheet).splitlines() == ["task     acc", rule, "a        9.5", rule, "average  9.5"]
    assert typeset.markdown(sheet).splitlines()[-2:] == ["| a | 9.5 |", "| **average** | **9.5** |"]
    tex = typeset.latex(sheet, "", "")
    assert balanced(tex) and [line.strip() for line in tex.splitlines()[5:10]] == [
        "\\midrule", r"a & 9.5 \\", "\\midrule", r"average & 9.5 \\", "\\bottomrule",
    ]  # fmt: skip
