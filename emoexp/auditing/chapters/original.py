"""How this copy of a known data set differs from the original."""

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
    """How this copy differs from the original, where the set is known."""
    dataset, title = audit_data.dataset, "This copy and the original"
    altered = [note for note in dataset.notes if note.startswith("ALTERED")]
    whole_C = IMAGES_OF_ORIGINAL.get(dataset.name)
    if whole_C is None:
        return Chapter(Section(title, [f"data={dataset.name} is no set whose original is known here."]))
    here_C = np.bincount(dataset.labels, minlength=len(audit_data.class_names))
    rows = [
        {"class": name, "here": int(here), "original": int(there), "missing": int(there - here)}
        for name, here, there in zip(audit_data.class_names, here_C, whole_C, strict=True)
    ]
    more_C = here_C > whole_C
    sentences = altered or ["Nothing tells it apart from the original, as far as it goes."]
    if here_C.sum() < whole_C.sum():
        sentences = [
            *sentences,
            f"{int((whole_C - here_C).sum()):,} of the original's {int(whole_C.sum()):,} images are not here.",
        ]
    table = table_of("original", title, "Images of all parts; of the original as published.", rows)
    finding = Finding("altered", len(altered) or int(more_C.any()), " ".join(altered) or sentences[0])
    return Chapter(Section(title, sentences, [table]), [finding], {"original": rows})
