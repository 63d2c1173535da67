"""Chapter on confounds: features of files and pixels that predict the class without showing the expression."""

from emoexp import figures
from emoexp.auditing.audit_data import AuditData
from emoexp.auditing.checks import confounds as checks
from emoexp.auditing.findings import Chapter, Finding, table_of
from emoexp.pages.page import Picture, Section


def confounds(audit_data: AuditData) -> Chapter:
    """How well the headers of the files, and mean brightness and contrast, predict the class."""
    dataset, title = audit_data.dataset, "Source confounds"
    results = checks.predictability(
        checks.features(dataset.images, audit_data.file_info),
        dataset.labels,
        len(audit_data.class_names),
        group_N=dataset.identity,
    )
    predictive = [row for row in results if row.verdict == checks.PREDICTS]
    sentences = [
        f"{row.feature} predicts the class: macro-F1 {row.macro_f1:.3f}, chance {row.chance_macro_f1:.3f}. "
        f"It gives away {audit_data.class_names[row.gives_away]} most "
        f"(informedness {row.informedness[row.gives_away]:.2f} of 1)."
        for row in predictive
    ] or ["None of the tested features predicts the class clearly better than chance."]
    rows = [
        {
            "feature": row.feature,
            "macro_f1": row.macro_f1,
            "chance": row.chance_macro_f1,
            "chance_high": row.chance_macro_f1_95,
            "balanced_accuracy": row.balanced_accuracy,
            "chance_balanced_accuracy": row.chance_balanced_accuracy,
            "verdict": row.verdict,
            "gives_away": audit_data.class_names[row.gives_away],
            "how_far": float(row.informedness[row.gives_away]),
        }
        for row in results
    ]
    finding = Finding(
        "confounds", len(predictive), f"{', '.join(row.feature for row in predictive) or 'nothing'} predicts the class"
    )
    table = table_of("confounds", title, _NOTE, rows)
    pictures = []
    if rows:
        path = figures.confound(
            audit_data.figure("confounds"),
            rows,
            title="How well each feature alone predicts",
            images=len(dataset.labels),
        )
        pictures.append(
            Picture(path, "Cross-validated macro-F1 of a small decision tree on each feature alone, beside chance.")
        )
    return Chapter(Section(title, sentences, [table], pictures), [finding], {"confounds": rows})


_NOTE = (
    "A small decision tree that sees this feature alone, cross-validated over all parts; each known person is in one "
    "fold. Chance: the same with permuted labels, mean and 95th percentile. gives_away: the class that is recognised "
    "best; how_far: its informedness, which is recall minus false positive rate, 1 at best."
)
