"""Chapter on the differences between this copy of a known data set and the original."""

import numpy as np

from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.data.readers import facial_expressions, fer2013
from emoexp.pages.page import Section

IMAGES_OF_ORIGINAL = {  # images of each class in the whole set, in the order of its classes
    "fer2013": fer2013.COUNTS.sum(0),
    "facial_expressions": facial_expressions.COUNTS,
}


def comparison_with_original(audit_data: AuditData) -> Chapter:
    """The differences between this copy and the original, if the original is known."""
    dataset, title = audit_data.dataset, "This copy and the original"
    altered = [note for note in dataset.notes if note.startswith("ALTERED")]
    original_C = IMAGES_OF_ORIGINAL.get(dataset.name)
    if original_C is None:
        return Chapter(Section(title, [f"For data={dataset.name} no original is known."]))
    count_C = np.bincount(dataset.labels, minlength=len(audit_data.class_names))
    rows = [
        {"class": name, "here": int(count), "original": int(original), "missing": int(original - count)}
        for name, count, original in zip(audit_data.class_names, count_C, original_C, strict=True)
    ]
    excess_C = count_C > original_C
    sentences = altered or ["No difference from the original was found."]
    if count_C.sum() < original_C.sum():
        sentences = [
            *sentences,
            f"{int((original_C - count_C).sum()):,} of the original's {int(original_C.sum()):,} images are not here.",
        ]
    table = table_of("original", title, "Images of all parts: of this copy, and of the original as published.", rows)
    finding = Finding("altered", len(altered) or int(excess_C.any()), " ".join(altered) or sentences[0])
    return Chapter(Section(title, sentences, [table]), [finding], {"original": rows})
