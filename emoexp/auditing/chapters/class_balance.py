"""Chapter on class imbalance, and on the precision of the test part for each class."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.findings import Chapter, Finding, by_class, table_of
from emoexp.data.dataset import PARTS
from emoexp.metrics import class_balance as metrics
from emoexp.pages.page import Picture, Section

MAX_HALF_WIDTH = 0.10  # of the interval of a recall of one half; with a larger one, a class has too few test images


def class_balance(audit_data: AuditData) -> Chapter:
    """Images of each class in each part, their imbalance, and the expected intervals of recalls on the test part."""
    dataset, names = audit_data.dataset, list(audit_data.class_names)
    counts = {part: dataset.counts(part) for part in PARTS}
    train, test = counts["train"], counts["test"]
    largest, rarest = int(train.argmax()), int(train.argmin())
    ratio, evenness = metrics.ratio(train), metrics.evenness(train)
    expected = [{"class": name} | metrics.expected_interval(int(n)) for name, n in zip(names, test, strict=True)]
    sentences = [
        f"Training has {ratio:.1f} times as many images of {names[largest]} as of {names[rarest]}; the entropy of the "
        f"class shares is {100 * evenness:.0f} % of that of equal shares.",
        f"Always predicting {names[largest]} is right for {100 * test[largest] / test.sum():.1f} % of the test images.",
    ]
    whole_C = sum(counts.values())
    columns = {part: count.tolist() for part, count in counts.items()}
    rows = by_class(names, columns | {"share": (whole_C / np.sum(whole_C)).tolist()})
    tables = [
        table_of("counts", "Images of each class", "Share: of all parts together.", rows),
        table_of("expected", "Expected intervals on this test part", _NOTE, expected),
    ]
    title = "Expected interval of each class's recall on this test part"
    path = figures.expected_intervals(audit_data.figure("expected"), expected, title=title)
    stacked = np.stack(list(counts.values()))
    bars = figures.class_counts(
        audit_data.figure("counts"), stacked, names, PARTS, title="Images of each class by part"
    )
    pictures = [
        Picture(bars, "Images of each class by part, on a logarithmic scale."),
        Picture(path, "The interval of a recall if all of a class's test images are right, and if half of them are."),
    ]
    numbers = {"ratio": ratio, "evenness": evenness, "counts": rows, "expected": expected}
    return Chapter(Section("Classes", sentences, tables, pictures), [_small_test_classes(expected)], numbers)


def _small_test_classes(expected: list[dict[str, Any]]) -> Finding:
    small_classes = [row for row in expected if (row["half_high"] - row["half_low"]) / 2 > MAX_HALF_WIDTH]
    class_list = ", ".join(f"{row['class']} ({row['n']})" for row in small_classes) or "no class"
    images_needed = metrics.images_for(MAX_HALF_WIDTH)
    points = f"{100 * MAX_HALF_WIDTH:.0f} points"
    text = (
        f"fewer test images than the {images_needed} that are needed to know a recall to within {points}: {class_list}"
    )
    return Finding("few", len(small_classes), text)


_NOTE = (
    "95 % Wilson intervals of a class's recall on n test images: low to high if all of them are right, half_low to "
    "half_high if half of them are. They assume independent images: with duplicates or several pictures of one person "
    "the true intervals are wider."
)
