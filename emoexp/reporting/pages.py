"""A report as Markdown, CSV, JSON, LaTeX and one HTML page that needs nothing else."""

import base64
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoexp import checkpoint, results
from emoexp.reporting.pictures import Picture
from emoexp.reporting.tables import Table


@dataclass(frozen=True)
class Page:
    """What a report says: a title, facts, sentences, tables, figures, what was left out with its reason, and a row for
    each run."""

    title: str
    facts: list[tuple[str, str]]
    sentences: list[str]
    tables: list[Table]
    pictures: list[Picture]
    left_out: list[tuple[str, str]]
    runs: list[dict[str, Any]] = field(default_factory=list)


_TABLES = ("arms_test", "arms_test_clean", "differences_test", "differences_test_clean", "costs", "runs")
_FIGURES = ("seeds", "differences", "confusions", "tradeoff", "recalls", "precision_recall")


def write(folder: Path, page: Page) -> None:
    """report.md, report.tex, report.html, summary.json and a CSV for each table; what an earlier report left there and
    this one does not have is removed."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    rows = {table.name: table.rows for table in page.tables} | {"runs": page.runs}
    for name, lines in rows.items():
        results.write_table(folder / "tables" / f"{name}.csv", lines)
    for name, text in (("md", markdown(page)), ("tex", latex(page)), ("html", web(page))):
        checkpoint.write_atomically(folder / f"report.{name}", text.encode())
    told: dict[str, Any] = {"title": page.title, "facts": dict(page.facts), "sentences": page.sentences, "tables": rows}
    told["left_out"] = [{"what": what, "why": why} for what, why in page.left_out]
    text = json.dumps(results.plain(told), indent=1, ensure_ascii=False, allow_nan=False)
    checkpoint.write_atomically(folder / "summary.json", text.encode() + b"\n")
    figures = {picture.path.name for picture in page.pictures}
    stale = [folder / "tables" / f"{name}.csv" for name in _TABLES if name not in rows]
    stale += [folder / "figures" / f"{name}.png" for name in _FIGURES if f"{name}.png" not in figures]
    for path in stale:
        path.unlink(missing_ok=True)


def markdown(page: Page) -> str:
    """The report as Markdown; figures are linked."""
    parts = [f"# {_plain(page.title)}", ""]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in page.facts]
    parts += ["", "## In words", "", *[f"- {_plain(text)}" for text in page.sentences]]
    for table in page.tables:
        parts += ["", f"## {_plain(table.title)}", "", markdown_table(table), "", _plain(table.note)]
    parts += ["", "## Left out", "", *_left_out(page)]
    parts += ["", "## Figures", ""]
    parts += [f"![{_plain(picture.caption)}](figures/{picture.path.name})" for picture in page.pictures]
    return "\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """The rows of a table as Markdown."""
    if not table.shown:
        return "Nothing to compare."
    columns = list(dict.fromkeys(key for row in table.shown for key in row))
    lines = [columns, ["---"] * len(columns), *[[_plain(row.get(key, "–")) for key in columns] for row in table.shown]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _left_out(page: Page) -> Iterator[str]:
    yield from (f"- {_plain(what)}: {_plain(why)}" for what, why in page.left_out)
    if not page.left_out:
        yield "Nothing: every cell that was asked for is in."


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def latex(page: Page) -> str:
    """The tables as LaTeX, for \\usepackage{booktabs}."""
    parts = [f"% {_tex(page.title)}; needs \\usepackage{{booktabs}}"]
    for table in page.tables:
        if not table.shown:
            continue
        columns = list(dict.fromkeys(key for row in table.shown for key in row))
        parts += ["", "\\begin{table}", "\\centering\\small", f"\\caption{{{_tex(table.title)}. {_tex(table.note)}}}"]
        parts += [f"\\begin{{tabular}}{{{'l' + 'r' * (len(columns) - 1)}}}", "\\toprule"]
        parts += [" & ".join(map(_tex, columns)) + " \\\\", "\\midrule"]
        parts += [" & ".join(_tex(row.get(key, "–")) for key in columns) + " \\\\" for row in table.shown]
        parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(parts) + "\n"


_TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "–": "--"}
_TEX |= {"<": "$<$", ">": "$>$", "−": "$-$"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_TEX |= {"[": "{[}", "]": "{]}"}  # \\ and \midrule would take a bracket after them for their own


def _tex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(str(text).split()))


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --soft: #666; --band: #f6f6f4;
  --better: #007a58; --worse: #b84d00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #181818; --line: #3a3a3a; --soft: #aaa; --band: #222;
    --better: #35c79b; --worse: #ff9a4d }
}
body {
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 80rem; margin: 2rem auto; padding: 0 1.2rem;
}
h1 { font-size: 1.6rem }
h2 { font-size: 1.15rem; margin-top: 2.4rem; border-top: 1px solid var(--line); padding-top: 1rem }
nav a { margin-right: 1.1rem }
a { color: inherit }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .55rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top }
th { vertical-align: bottom }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem }
tr.apart td { border-top: 2px solid var(--soft) }
td small { display: block; color: var(--soft) }
tbody tr:nth-child(even) { background: var(--band) }
p.note, figcaption, dt { color: var(--soft); font-size: .88rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dd { margin: 0; overflow-wrap: anywhere }
figure { margin: 1.4rem 0 }
img { max-width: 100%; background: #fff; border-radius: 4px }
td.better { color: var(--better); font-weight: 600 }
td.worse { color: var(--worse); font-weight: 600 }
@media print { nav { display: none } section, figure { break-inside: avoid-page } }
"""


def web(page: Page) -> str:
    """One HTML page with its style and figures inside."""
    heads = ["In words", *[table.title for table in page.tables], "Left out", "Figures"]
    links = "".join(f'<a href="#s{k}">{html.escape(head)}</a>' for k, head in enumerate(heads))
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in page.facts)
    bodies = ["<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in page.sentences) + "</ul>"]
    bodies += [_web_table(table) for table in page.tables]
    gone = "".join(f"<li>{html.escape(what)}: {html.escape(why)}</li>" for what, why in page.left_out)
    bodies.append(f"<ul>{gone}</ul>" if gone else "<p>Nothing: every cell that was asked for is in.</p>")
    bodies.append("".join(map(_web_figure, page.pictures)))
    sections = "".join(
        f'<section><h2 id="s{k}">{html.escape(head)}</h2>{body}</section>'
        for k, (head, body) in enumerate(zip(heads, bodies, strict=True))
    )
    title = html.escape(page.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><nav>{links}</nav><dl>{facts}</dl>{sections}</body></html>\n"
    )


def _web_table(table: Table) -> str:
    if not table.shown:
        return "<p>Nothing to compare.</p>"
    columns = list(dict.fromkeys(key for row in table.shown for key in row))
    head = "".join(f"<th>{html.escape(key)}</th>" for key in columns)
    body, before = "", table.shown[0].get("metric")
    for row in table.shown:
        apart = "" if row.get("metric") == before else ' class="apart"'
        body += f"<tr{apart}>{''.join(_cell(row.get(key, '–')) for key in columns)}</tr>"
        before = row.get("metric")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="note">{html.escape(table.note)}</p>'
    )


def _cell(text: str) -> str:
    kind = f' class="{text}"' if text in ("better", "worse") else ""
    return f"<td{kind}>{_broken(html.escape(text))}</td>"


def _broken(text: str) -> str:
    """A mean with its interval on a line of its own, a name that may break after an underscore: a table as wide as a
    page."""
    return re.sub(r"^(\d\S* ± \S+) (\[.*\])$", r"\1<small>\2</small>", text).replace("_", "_<wbr>")


def _web_figure(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )
