"""MLflow as a mirror of run folders. The only package that imports MLflow, and only inside functions.

`mirror` reads a run's folder and adds to MLflow what MLflow lacks. A running training (`Tracker`), a replay after an
outage and `python -m emoexp.sync` all make this call.

    settings   MLflow's address, checked before anything is loaded
    record     reads from a run folder what MLflow is to show
    client     creates, opens and searches MLflow's store
    served     predicts with a logged model; its code is stored with the model
    model      logs a finished run's model
    mirror     brings one folder's MLflow run up to date
    thread     does so from a thread while the run trains
"""

from emoexp.tracking.mirror import behind, close_dead, mirror
from emoexp.tracking.settings import Settings, locate
from emoexp.tracking.thread import Tracker

__all__ = ["Settings", "Tracker", "behind", "close_dead", "locate", "mirror"]
