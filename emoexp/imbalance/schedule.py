"""When each column of a strategy acts, and what of the network is trained: a run has one stage or two."""

from collections.abc import Sequence
from dataclasses import dataclass

TIMED = ("sampling", "weights", "loss", "mix")
RETRAIN = ("none", "fresh", "kept", "scale", "both")
NORMS = ("update", "frozen")


@dataclass(frozen=True)
class Schedule:
    """The second stage of a run begins after the share `start` of its epochs; 0: there is one stage.

    late: columns that act in the second stage only (deferred re-weighting and re-sampling: Cao et al., NeurIPS 2019,
    section 3.3). early: columns that act in the first stage only. rate: factor of the learning rate in the second
    stage; where a classifier is retrained, the schedule of the rate begins anew.

    retrain, what is trained in the second stage:
    - "none": the whole network.
    - "kept": the classifier, from the weights that it has; features are frozen.
    - "fresh": the classifier, initialised again; features are frozen (cRT: Kang et al., ICLR 2020, section 4).
    - "scale": one factor for each class, nothing else (LWS: the same).
    - "both": the classifier and such factors; features are frozen (MiSLAS: Zhong et al., CVPR 2021).

    norms: whether batch norms still update their statistics where features are frozen, as in the original cRT and LWS,
    or are frozen too.
    """

    start: float = 0.0
    late: Sequence[str] = ()
    early: Sequence[str] = ()
    retrain: str = "none"
    norms: str = "update"
    rate: float = 1.0

    @property
    def retrains(self) -> bool:
        """Whether features are frozen in the second stage."""
        return self.retrain != "none"

    def second_stage_start(self, epochs: int) -> int:
        """The epoch, from 0, that the second stage begins with; 0 where there is one. Two take 2 epochs or more."""
        if self.start == 0:
            return 0
        assert epochs >= 2
        return min(max(round(self.start * epochs), 1), epochs - 1)

    def acts(self, column: str, second: bool) -> bool:
        """Whether a column acts in a stage."""
        return column not in (self.early if second else self.late)
