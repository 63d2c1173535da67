"""Chapter with pictures of each class."""

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.findings import Chapter
from emoexp.pages.page import Picture, Section

MAX_SHOWN_WHOLE = 120  # all images of a class are shown if there are at most so many
SAMPLE_SIZE = 48  # images that are shown of a larger class


def class_pictures(audit_data: AuditData) -> Chapter:
    """The mean face of each class, and its pictures: all of a small class, a sample of a large one."""
    dataset, names = audit_data.dataset, list(audit_data.class_names)
    means = figures.class_means(audit_data.figure("means"), dataset.images, dataset.labels, names)
    pictures = [Picture(means, "Mean face of each class, and how it deviates from the mean of all classes.")]
    for label in np.argsort(np.bincount(dataset.labels, minlength=len(names)), kind="stable"):
        members = np.flatnonzero(dataset.labels == label)
        chosen = members if len(members) <= MAX_SHOWN_WHOLE else audit_data.sample(members, SAMPLE_SIZE)
        title = f"{names[label]}: {'all' if len(chosen) == len(members) else 'a sample of'} its images"
        path = figures.image_grid(
            audit_data.figure(f"class_{label}"),
            dataset.images[chosen],
            [""] * len(chosen),
            title=title,
            facts=f"{len(chosen)} of {len(members):,}",
        )
        pictures.append(Picture(path, title))
    sentence = (
        "Smallest classes first. Look for pictures without a face, and for other signs of a class than the expression."
    )
    return Chapter(Section("Faces", [sentence], [], pictures))
