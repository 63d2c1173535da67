"""The pictures a run leaves: the only package that imports matplotlib.

Each function writes one PNG, whole or not at all, and returns its path. Equal input gives equal bytes (same
matplotlib). Every figure of a run says how many images it speaks of. Class names may be any text.

    sheet      the common look: size, heading, colours, text that cannot break a figure
    matrix     the confusion: counts and shares
    curves     precision over recall
    history    training over the epochs
    bars       the ledger of priors, and by epochs
    pictures   the most confident mistakes
    arms       several trainings: seeds, differences, one quantity against another, curves over each other
    shades     several trainings by class: recalls, and confusions against a baseline's
    faces      the mean face of each class, and what sets it apart
    sheets     contact sheets: pictures, and pairs of them, each with a few words
    classes    what a data set can tell: counts, expected intervals, confounds, and what a leak is worth
"""

from emoexp.figures.arms import differences, overlay, pareto, seeds, tradeoff
from emoexp.figures.bars import ledger, prior_course
from emoexp.figures.classes import class_counts, confound, expected_intervals, leak_worth
from emoexp.figures.curves import precision_recall
from emoexp.figures.faces import class_means
from emoexp.figures.history import training
from emoexp.figures.matrix import confusion
from emoexp.figures.pictures import mistakes
from emoexp.figures.shades import confusion_differences, recalls
from emoexp.figures.sheets import pairs, sheet_of

__all__ = [
    "class_counts",
    "class_means",
    "confound",
    "confusion",
    "confusion_differences",
    "differences",
    "expected_intervals",
    "leak_worth",
    "ledger",
    "mistakes",
    "overlay",
    "pairs",
    "pareto",
    "precision_recall",
    "prior_course",
    "recalls",
    "seeds",
    "sheet_of",
    "tradeoff",
    "training",
]
