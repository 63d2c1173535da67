"""A page of sections, as Markdown and as one HTML file that needs nothing else."""

import base64
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table: its file's name, its title, what to know of it, its rows as numbers and as text."""

    name: str
    title: str
    note: str
    rows: list[dict[str, Any]]
    shown: list[dict[str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure's file and what to see in it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with sentences, tables and figures below it; a table of the same title gets no heading."""

    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A title, facts (name, value), and sections."""

    title: str
    facts: list[tuple[str, str]]
    sections: list[Section]


def markdown(page: Page, figures: str = "figures") -> str:
    """The page as Markdown; figures are linked in the folder of that name."""
    parts = [f"# {_plain(page.title)}", ""]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in page.facts]
    for section in page.sections:
        parts += ["", f"## {_plain(section.title)}"]
        parts += ["", *[f"- {_plain(text)}" for text in section.sentences]] if section.sentences else []
        for table in section.tables:
            parts += ["", f"### {_plain(table.title)}"] if table.title != section.title else []
            parts += ["", markdown_table(table), "", _plain(table.note)]
        shown = [f"![{_plain(picture.caption)}]({figures}/{picture.path.name})" for picture in section.pictures]
        parts += ["", *shown] if shown else []
    return "\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """The rows of a table as Markdown."""
    if not table.shown:
        return "Nothing to show."
    columns = list(dict.fromkeys(key for row in table.shown for key in row))
    lines = [columns, ["---"] * len(columns), *[[_plain(row.get(key, "–")) for key in columns] for row in table.shown]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


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
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
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
td.text { text-align: left; white-space: normal }
td.better { color: var(--better); font-weight: 600 }
td.worse { color: var(--worse); font-weight: 600 }
@media print { nav { display: none } section, figure { break-inside: avoid-page } }
"""


_LONG = 32  # letters from which a cell is text and not a number


def web(page: Page) -> str:
    """One HTML page with its style and figures inside."""
    links = "".join(f'<a href="#s{k}">{html.escape(one.title)}</a>' for k, one in enumerate(page.sections))
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in page.facts)
    sections = "".join(
        f'<section><h2 id="s{k}">{html.escape(one.title)}</h2>{"".join(_web_section(one))}</section>'
        for k, one in enumerate(page.sections)
    )
    title = html.escape(page.title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><nav>{links}</nav><dl>{facts}</dl>{sections}</body></html>\n"
    )


def _web_section(section: Section) -> Iterator[str]:
    if section.sentences:
        yield "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in section.sentences) + "</ul>"
    for table in section.tables:
        if table.title != section.title:
            yield f"<h3>{html.escape(table.title)}</h3>"
        yield _web_table(table)
    yield from map(_web_figure, section.pictures)


def _web_table(table: Table) -> str:
    if not table.shown:
        return "<p>Nothing to show.</p>"
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
    kind = f' class="{text}"' if text in ("better", "worse") else ' class="text"' if len(text) > _LONG else ""
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
