"""MLflow as a mirror of run folders. The only package that imports MLflow, and only inside functions.

The folder is the truth. `mirror` reads it and adds to MLflow what MLflow lacks; live logging (`Tracker`),
replay after an outage and `python -m emoexp.sync` are the same call.

    settings   where runs are shown, checked before anything is loaded
    record     a run folder as what MLflow should show of it
    client     MLflow's store: created once, opened, searched
    served     the logged model at work; its code travels with the model
    model      a finished run's model, logged
    mirror     one folder and its MLflow run
    thread     the mirror of a live run
"""

from emoexp.tracking.mirror import behind, close_dead, mirror
from emoexp.tracking.settings import Settings, locate
from emoexp.tracking.thread import Tracker

__all__ = ["Settings", "Tracker", "behind", "close_dead", "locate", "mirror"]
