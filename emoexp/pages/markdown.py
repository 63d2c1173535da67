"""Pages and tables as Markdown."""

import re

from emoexp.pages.page import MISSING, Page, Table


def write(page: Page, figures: str = "figures") -> str:
    """The page as Markdown. figures: the folder to which its figures are linked."""
    parts = [f"# {_plain(page.title)}", ""]
    parts += [f"- {_plain(name)}: {_plain(value)}" for name, value in page.facts]
    for section in page.sections:
        parts += ["", f"## {_plain(section.title)}"]
        parts += ["", *[f"- {_plain(text)}" for text in section.sentences]] if section.sentences else []
        for table in section.tables:
            parts += ["", f"### {_plain(table.title)}"] if table.title != section.title else []
            parts += ["", write_table(table), "", _plain(table.note)]
        images = [f"![{_plain(picture.caption)}]({figures}/{picture.path.name})" for picture in section.pictures]
        parts += ["", *images] if images else []
    return "\n".join(parts) + "\n"


def write_table(table: Table) -> str:
    """The rows of a table as Markdown."""
    if not table.text_rows:
        return "Nothing to show."
    rows = [[_plain(row.get(key, MISSING)) for key in table.columns] for row in table.text_rows]
    lines = [table.columns, ["---"] * len(table.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
