"""Chapter on unusual pictures, and on files that cannot be used."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import image_quality as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Picture, Section

MAX_LISTED = 40  # rows that a table of the page lists


def image_quality(audit_data: AuditData) -> Chapter:
    """Pictures that are blank, small, elongated or of another size, and files that cannot be used."""
    dataset = audit_data.dataset
    blank, nearly_blank = checks.blank(dataset.images)
    index_by_kind = {"blank": blank, "nearly blank": nearly_blank}
    if audit_data.file_info is not None:
        width, height = audit_data.file_info.width, audit_data.file_info.height
        (usual_width, usual_height), other_size = checks.other_sizes(width, height)
        index_by_kind["smaller than used"] = checks.enlarged(width, height, dataset.images.shape[2])
        index_by_kind["long"] = checks.elongated(width, height)
        index_by_kind[f"not {usual_width}x{usual_height}"] = other_size
    rows = [_row(audit_data, index, kind) for kind, index_M in index_by_kind.items() for index in index_M]
    unusable = [{"file": name, "why": why} for name, why in dataset.left_out]
    broken = [row for row in unusable if row["why"] != "has no label" and "different labels" not in row["why"]]
    counts = {"blank": len(blank), "nearly_blank": len(nearly_blank), "unreadable": len(broken)}
    if audit_data.file_info is not None:
        file_kinds = list(index_by_kind)[2:]
        counts |= dict(
            zip(("small", "shapes", "sizes"), (len(index_by_kind[kind]) for kind in file_kinds), strict=True)
        )
    sentences = [f"{len(index_M):,} pictures are {kind}." for kind, index_M in index_by_kind.items()]
    sentences.append(f"{len(unusable):,} files are not among the images, {len(broken):,} of them because of damage.")
    findings = [Finding(kind, count, f"{count} pictures: {_DESCRIPTIONS[kind]}") for kind, count in counts.items()]
    note = f"At most {MAX_LISTED} of {{}}; all in the JSON."
    tables = [
        table_of("standouts", "Pictures that stand out", note.format(len(rows)), rows[:MAX_LISTED]),
        table_of("left_out", "Files that are not among the images", note.format(len(unusable)), unusable[:MAX_LISTED]),
    ]
    numbers = {"standouts": rows, "left_out": unusable, "counts": counts}
    return Chapter(
        Section("Pictures that stand out", sentences, tables, _figure(audit_data, index_by_kind)), findings, numbers
    )


_DESCRIPTIONS = {
    "blank": "one flat tone",
    "nearly_blank": f"hardly any contrast (deviation below {checks.NEARLY_BLANK:g} of 255 grey levels)",
    "unreadable": "cannot be read",
    "small": "the file has fewer pixels than the image that is used",
    "shapes": "one side is at least twice the other",
    "sizes": "the size differs from that of nine in ten files",
}


def _row(audit_data: AuditData, index: int, kind: str) -> dict[str, Any]:
    row = {"image": str(audit_data.dataset.names[index]), "label and part": audit_data.caption(index), "what": kind}
    if audit_data.file_info is not None:
        row["size"] = f"{audit_data.file_info.width[index]}x{audit_data.file_info.height[index]}"
    return row


def _figure(audit_data: AuditData, index_by_kind: dict[str, np.ndarray]) -> list[Picture]:
    chosen = [(int(index), kind) for kind, index_M in index_by_kind.items() for index in index_M[: audit_data.pictures]]
    if not chosen:
        return []
    index = np.array([i for i, _ in chosen])
    path = figures.image_grid(
        audit_data.figure("standouts"),
        audit_data.dataset.images[index],
        [f"{kind}\n{audit_data.caption(i)}" for i, kind in chosen],
        title="Pictures that stand out",
        facts=f"{len(chosen)} of {sum(map(len, index_by_kind.values())):,}",
    )
    return [Picture(path, "Pictures that stand out, as they are used in training.")]
