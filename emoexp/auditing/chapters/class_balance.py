"""How uneven the classes are, and what the test part can tell about each."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.findings import Chapter, Finding, by_class, table_of
from emoexp.data.dataset import PARTS
from emoexp.metrics import class_balance as metrics
from emoexp.pages.page import Picture, Section

TOO_WIDE = 0.10  # half-width of the interval of a recall of one half above which a class has too few test images


def class_balance(audit_data: AuditData) -> Chapter:
    """Images of each class in each part, how uneven they are, and the intervals that the test part can give."""
    dataset, names = audit_data.dataset, list(audit_data.class_names)
    counts = {part: dataset.counts(part) for part in PARTS}
    train, test = counts["train"], counts["test"]
    largest, rarest = int(train.argmax()), int(train.argmin())
    ratio, evenness = metrics.ratio(train), metrics.evenness(train)
    expected = [{"class": name} | metrics.expected_interval(int(n)) for name, n in zip(names, test, strict=True)]
    sentences = [
        f"Training holds {ratio:.1f} times as many images of {names[largest]} as of {names[rarest]}; the entropy of "
        f"its classes is {100 * evenness:.0f} % of that of equal ones.",
        f"Always answering {names[largest]} is right for {100 * test[largest] / test.sum():.1f} % of the test images.",
    ]
    whole_C = sum(counts.values())
    columns = {part: count.tolist() for part, count in counts.items()}
    rows = by_class(names, columns | {"share": (whole_C / np.sum(whole_C)).tolist()})
    tables = [
        table_of("counts", "Images of each class", "Share: of all parts together.", rows),
        table_of("expected", "What this test part can tell", _NOTE, expected),
    ]
    title = "What this test part can tell of a class's recall"
    path = figures.expected_intervals(audit_data.figure("expected"), expected, title=title)
    stacked = np.stack(list(counts.values()))
    bars = figures.class_counts(
        audit_data.figure("counts"), stacked, names, PARTS, title="Images of each class by part"
    )
    pictures = [
        Picture(bars, "Images of each class by part, on a logarithmic scale."),
        Picture(path, "The interval of a recall if all of a class's test images are right, and if half are."),
    ]
    numbers = {"ratio": ratio, "evenness": evenness, "counts": rows, "expected": expected}
    return Chapter(Section("Classes", sentences, tables, pictures), [_few(expected)], numbers)


def _few(expected: list[dict[str, Any]]) -> Finding:
    wide = [row for row in expected if (row["half_high"] - row["half_low"]) / 2 > TOO_WIDE]
    named = ", ".join(f"{row['class']} ({row['n']})" for row in wide) or "no class"
    need = metrics.images_for(TOO_WIDE)
    points = f"{100 * TOO_WIDE:.0f} points"
    return Finding("few", len(wide), f"test images below the {need} that tell a recall to within {points}: {named}")


_NOTE = (
    "95 % Wilson intervals of a class's recall on n test images: low to high if all of them are right, half_low to "
    "half_high if half are. They count images as independent: duplicates and pictures of one person make them wider."
)
