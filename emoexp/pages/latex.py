"""Tables as LaTeX, for \\usepackage{booktabs}."""

from collections.abc import Sequence

from emoexp.pages.page import MISSING, Table

_ESCAPED = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "–": "--",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "[": "{[}",  # after \\ or \midrule a bracket would begin an optional argument
    "]": "{]}",
}
_ESCAPED |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def write(title: str, tables: Sequence[Table]) -> str:
    """The tables that have rows, each as a table environment with its caption; the title as a comment."""
    parts = [f"% {_escaped(title)}; needs \\usepackage{{booktabs}}\n"]
    parts += [_table(table) for table in tables if table.text_rows]
    return "\n".join(parts)


def _table(table: Table) -> str:
    import pandas as pd  # here: importing pandas takes a third of a second

    cells = [[_escaped(row.get(key, MISSING)) for key in table.columns] for row in table.text_rows]
    frame = pd.DataFrame(cells, columns=[_escaped(key) for key in table.columns])
    column_format = "l" + "r" * (len(table.columns) - 1)
    tabular = frame.to_latex(index=False, escape=False, column_format=column_format)
    caption = f"{_escaped(table.title)}. {_escaped(table.note)}"
    return f"\\begin{{table}}\n\\centering\\small\n\\caption{{{caption}}}\n{tabular}\\end{{table}}\n"


def _escaped(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_ESCAPED.get(letter, letter) for letter in " ".join(str(text).split()))
