"""How uneven the classes are, what the test part can tell of each, and what the faces look like."""

from typing import Any

import numpy as np

from emoexp import figures
from emoexp.auditing.subject import Chapter, Finding, Subject, by_class, spread, table_of
from emoexp.data.dataset import PARTS
from emoexp.metrics import class_balance as balancing
from emoexp.pages.page import Picture, Section

WHOLE = 120  # classes with at most so many images are shown whole
SAMPLE = 48  # images shown of the others
TOO_WIDE = 0.10  # half-width of the interval of a recall of one half from which a class counts as having too few images


def balance(subject: Subject) -> Chapter:
    """Images of each class in each part, how uneven they are, and the intervals that the test part can give."""
    data, names = subject.data, list(subject.names)
    counts = {part: data.counts(part) for part in PARTS}
    train, test = counts["train"], counts["test"]
    largest, rarest = int(train.argmax()), int(train.argmin())
    ratio, evenness = balancing.ratio(train), balancing.evenness(train)
    expected = [{"class": name} | balancing.expected_interval(int(n)) for name, n in zip(names, test, strict=True)]
    told = [
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
    path = figures.expected_intervals(subject.figure("expected"), expected, title=title)
    stacked = np.stack(list(counts.values()))
    bars = figures.class_counts(subject.figure("counts"), stacked, names, PARTS, title="Images of each class by part")
    pictures = [
        Picture(bars, "Images of each class by part, on a logarithmic scale."),
        Picture(path, "The interval of a recall if all of a class's test images are right, and if half are."),
    ]
    numbers = {"ratio": ratio, "evenness": evenness, "counts": rows, "expected": expected}
    return Chapter(Section("Classes", told, tables, pictures), [_few(expected)], numbers)


def _few(expected: list[dict[str, Any]]) -> Finding:
    wide = [row for row in expected if (row["half_high"] - row["half_low"]) / 2 > TOO_WIDE]
    told = ", ".join(f"{row['class']} ({row['n']})" for row in wide) or "no class"
    need = balancing.images_for(TOO_WIDE)
    points = f"{100 * TOO_WIDE:.0f} points"
    return Finding("few", len(wide), f"test images below the {need} that tell a recall to within {points}: {told}")


_NOTE = (
    "95 % Wilson intervals of a class's recall on n test images: low to high if all of them are right, half_low to "
    "half_high if half are. They count images as independent: duplicates and pictures of one person make them wider."
)


def faces(subject: Subject) -> Chapter:
    """The mean face of each class, and pictures of each: small classes whole, samples of the others."""
    data, names = subject.data, list(subject.names)
    means = figures.class_means(subject.figure("means"), data.images, data.labels, names)
    pictures = [Picture(means, "Mean face of each class, and how it deviates from the mean of all classes.")]
    order = np.argsort(data.digest, kind="stable").argsort()
    for label in np.argsort(np.bincount(data.labels, minlength=len(names)), kind="stable"):
        members = np.flatnonzero(data.labels == label)
        chosen = members if len(members) <= WHOLE else spread(members, order, SAMPLE)
        title = f"{names[label]}: {'all' if len(chosen) == len(members) else 'a sample of'} its images"
        path = figures.sheet_of(
            subject.figure(f"class_{label}"),
            data.images[chosen],
            [""] * len(chosen),
            title=title,
            facts=f"{len(chosen)} of {len(members):,}",
        )
        pictures.append(Picture(path, title))
    told = ["Smallest classes first. Look for what is no face, and for what betrays a class besides the expression."]
    return Chapter(Section("Faces", told, [], pictures))
