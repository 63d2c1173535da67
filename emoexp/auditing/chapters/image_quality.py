"""Pictures that stand out by themselves, and files that could not be used."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import image_quality as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Picture, Section

LISTED = 40  # rows that a table of the page lists


def image_quality(audit_data: AuditData) -> Chapter:
    """Blank, small, elongated and differently sized pictures, and files that could not be used."""
    dataset = audit_data.dataset
    flat, nearly = checks.blank(dataset.images)
    found = {"blank": flat, "nearly blank": nearly}
    if audit_data.file_info is not None:
        width, height = audit_data.file_info.width, audit_data.file_info.height
        (usual_width, usual_height), other = checks.other_sizes(width, height)
        found["smaller than used"] = checks.enlarged(width, height, dataset.images.shape[2])
        found["long"] = checks.elongated(width, height)
        found[f"not {usual_width}x{usual_height}"] = other
    rows = [_row(audit_data, index, kind) for kind, hits in found.items() for index in hits]
    unusable = [{"file": name, "why": why} for name, why in dataset.left_out]
    broken = [row for row in unusable if row["why"] != "has no label" and "different labels" not in row["why"]]
    counts = {"blank": len(flat), "nearly_blank": len(nearly), "unreadable": len(broken)}
    if audit_data.file_info is not None:
        of_files = list(found)[2:]
        counts |= dict(zip(("small", "shapes", "sizes"), (len(found[kind]) for kind in of_files), strict=True))
    sentences = [f"{len(hits):,} pictures are {kind}." for kind, hits in found.items()]
    sentences.append(f"{len(unusable):,} files are not among the images, {len(broken):,} of them because of damage.")
    findings = [Finding(kind, count, f"{count} pictures: {_DESCRIPTIONS[kind]}") for kind, count in counts.items()]
    note = f"At most {LISTED} of {{}}; all in the JSON."
    tables = [
        table_of("standouts", "Pictures that stand out", note.format(len(rows)), rows[:LISTED]),
        table_of("left_out", "Files that are not among the images", note.format(len(unusable)), unusable[:LISTED]),
    ]
    numbers = {"standouts": rows, "left_out": unusable, "counts": counts}
    return Chapter(Section("Pictures that stand out", sentences, tables, _figure(audit_data, found)), findings, numbers)


_DESCRIPTIONS = {
    "blank": "one flat tone",
    "nearly_blank": f"hardly any contrast (deviation below {checks.NEARLY:g} of 255 grey levels)",
    "unreadable": "cannot be read",
    "small": "smaller in the file than they are used",
    "shapes": "one side at least twice the other",
    "sizes": "of another size than nine in ten",
}


def _row(audit_data: AuditData, index: int, kind: str) -> dict[str, Any]:
    row = {"image": str(audit_data.dataset.names[index]), "label and part": audit_data.caption(index), "what": kind}
    if audit_data.file_info is not None:
        row["size"] = f"{audit_data.file_info.width[index]}x{audit_data.file_info.height[index]}"
    return row


def _figure(audit_data: AuditData, found: dict[str, np.ndarray]) -> list[Picture]:
    chosen = [(int(index), kind) for kind, hits in found.items() for index in hits[: audit_data.pictures]]
    if not chosen:
        return []
    index = np.array([place for place, _ in chosen])
    path = figures.image_grid(
        audit_data.figure("standouts"),
        audit_data.dataset.images[index],
        [f"{kind}\n{audit_data.caption(place)}" for place, kind in chosen],
        title="Pictures that stand out",
        facts=f"{len(chosen)} of {sum(map(len, found.values())):,}",
    )
    return [Picture(path, "Pictures that stand out, as they are used in training.")]
