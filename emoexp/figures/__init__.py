"""The figures of runs, reports and audits: the only package that imports matplotlib.

Each function writes one PNG, whole or not at all, and returns its path. Equal input gives equal bytes (same
matplotlib). Every figure of a run says how many images it speaks of. Class names may be any text.

    style             the common look: size, heading, colours, text that cannot break a figure
    confusion_matrix  the confusion: counts and shares
    curves            precision over recall
    history           training over the epochs
    bars              the ledger of priors, and by epochs
    pictures          the most confident mistakes
    arms              several trainings: seeds, differences, one quantity against another, curves over each other
    heatmaps          several trainings by class: recalls, and confusions against a baseline's
    faces             the mean face of each class, and how it differs from the others
    image_grids       many pictures, or pairs of them, each with a short caption
    classes           facts about a data set: counts, expected intervals, confounds, and what a leak is worth
"""

from emoexp.figures.arms import differences, overlay, pareto, seeds, tradeoff
from emoexp.figures.bars import ledger, prior_course
from emoexp.figures.classes import class_counts, confound, expected_intervals, leak_worth
from emoexp.figures.confusion_matrix import confusion
from emoexp.figures.curves import precision_recall
from emoexp.figures.faces import class_means
from emoexp.figures.heatmaps import confusion_differences, recalls
from emoexp.figures.history import training
from emoexp.figures.image_grids import image_grid, image_pairs
from emoexp.figures.pictures import mistakes

__all__ = [
    "class_counts",
    "class_means",
    "confound",
    "confusion",
    "confusion_differences",
    "differences",
    "expected_intervals",
    "image_grid",
    "image_pairs",
    "leak_worth",
    "ledger",
    "mistakes",
    "overlay",
    "pareto",
    "precision_recall",
    "prior_course",
    "recalls",
    "seeds",
    "tradeoff",
    "training",
]
