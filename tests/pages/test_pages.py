"""Pages: whole, and hostile names shown as they are, in HTML, Markdown and LaTeX."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emoexp.pages import html, latex, markdown
from emoexp.pages.page import Page, Picture, Section, Table

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&amp;b",
    "{{ page.title }}",
    "{% for x in y %}",
    "</style>",
    "'quoted'",
    "a_long_name|with*marks*",
]
ALONE = ("meta", "img", "wbr")  # tags that nothing closes


class Reader(HTMLParser):
    """Texts by the tag that they stand in, attributes by tag, and tags that are open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.setdefault(tag, []).append(dict(attrs))
        if tag not in ALONE:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data


def table(name: str, rows: list[dict[str, str]]) -> Table:
    return Table("table", name, name, [dict(row) for row in rows], rows)


def page_of(name: str, picture: Path | None = None) -> Page:
    pictures = [Picture(picture, name)] if picture else []
    rows = [{"arm": name, name: "1"}, {"arm": "relu", name: "0.539 ± 0.018 [0.520, 0.558]"}]
    return Page(name, [(name, name)], [Section(name, [name], [table(f"table {name}", rows)], pictures)])


@pytest.mark.parametrize("name", HOSTILE)
def test_html_shows_hostile_names_as_they_are(name: str, tmp_path: Path) -> None:
    picture = tmp_path / "figure.png"
    picture.write_bytes(b"\x89PNG")
    read = Reader(html.write(page_of(name, picture)))
    assert read.open == [] and set(read.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "nav", "a", "dl", "dt", "dd", "section", "h2"),
        *("ul", "li", "h3", "div", "table", "thead", "tr", "th", "tbody", "td", "wbr", "small", "p", "figure"),
        *("img", "figcaption"),
    }
    for tag in ("title", "h1", "a", "dt", "dd", "h2", "li", "figcaption"):
        assert read.texts[tag] == [name], tag
    assert read.texts["h3"] == [f"table {name}"] == read.texts["p"]
    assert read.texts["th"] == ["arm", name] and read.texts["td"][:2] == [name, "1"]
    data = base64.b64encode(picture.read_bytes()).decode()
    assert read.attributes["img"] == [{"src": f"data:image/png;base64,{data}", "alt": name}]


def test_html_colours_verdicts_breaks_intervals_and_parts_metrics() -> None:
    rows = [
        {"metric": "accuracy", "verdict": "better", "value": "0.5 ± 0.1 [0.4, 0.6]"},
        {"metric": "accuracy", "verdict": "worse", "value": "x" * 40},
        {"metric": "macro-F1", "verdict": "cannot tell"},
    ]
    read = Reader(html.write(Page("p", [], [Section("s", tables=[table("s", rows)])])))
    assert [one.get("class") for one in read.attributes["tr"]] == [None, None, None, "apart"]
    classes = [one.get("class") for one in read.attributes["td"]]
    assert classes == [None, "better", None, None, "worse", "text", None, None, None]
    assert read.texts["td"][2] == "0.5 ± 0.1" and read.texts["small"] == ["[0.4, 0.6]"]
    assert read.texts["td"][8] == "–" and "h3" not in read.tags  # a table of its section's title has no other heading


def test_empty_sections_and_tables_say_so() -> None:
    page = Page("p", [], [Section("s"), Section("t", tables=[table("t", [])])])
    read, text = Reader(html.write(page)), markdown.write(page)
    assert read.texts["p"] == ["Nothing to show."] and "ul" not in read.tags and "table" not in read.tags
    assert "Nothing to show." in text and latex.write("p", page.sections[1].tables).count("\n") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_hostile_names_as_they_are(name: str) -> None:
    lines = markdown.write(page_of(name), figures="../figures").splitlines()
    plain = [line.replace("\\", "") for line in lines]
    assert plain[0] == f"# {name}" and f"## {name}" in plain and f"- {name}: {name}" in plain
    row = next(line for line in lines if line.startswith("| ") and line.endswith("| 1 |"))
    assert row.replace("\\|", "").count("|") == 3 and "<" not in row.replace("\\<", "")


def tex_of(table: Table) -> str:
    """The table written line by line."""
    plain = latex._escaped
    lines = ["\\begin{table}", "\\centering\\small", f"\\caption{{{plain(table.title)}. {plain(table.note)}}}"]
    lines += [f"\\begin{{tabular}}{{{'l' + 'r' * (len(table.columns) - 1)}}}", "\\toprule"]
    lines += [" & ".join(map(plain, table.columns)) + " \\\\", "\\midrule"]
    lines += [" & ".join(plain(row.get(key, "–")) for key in table.columns) + " \\\\" for row in table.text_rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


@pytest.mark.parametrize("name", [*HOSTILE, "a  b", "[4, 8]", "50 % & $x$ #1 {y} \\z ~^", "−1 – ±"])
def test_latex_is_the_table_line_by_line(name: str) -> None:
    one = table(name, [{"arm": name, "a b": "1", "a  b": "2"}, {"arm": "relu", name: "3"}])
    none = table("empty", [])
    assert latex.write(name, [one, none, one]).split("\n", 2)[2] == f"{tex_of(one)}\n{tex_of(one)}"
    assert "empty" not in latex.write(name, [one, none, one])
