"""The pictures a run leaves: the only package that imports matplotlib.

Each function writes one PNG, whole or not at all, and returns its path. Equal input gives equal bytes (same
matplotlib). Every figure says how many images it speaks of. Class names may be any text.

    sheet      the common look: size, heading, colours, text that cannot break a figure
    matrix     the confusion: counts and shares
    curves     precision over recall
    history    training over the epochs
    bars       the ledger of priors
    pictures   the most confident mistakes
"""

from emoexp.figures.bars import ledger
from emoexp.figures.curves import precision_recall
from emoexp.figures.history import training
from emoexp.figures.matrix import confusion
from emoexp.figures.pictures import mistakes

__all__ = ["confusion", "ledger", "mistakes", "precision_recall", "training"]
