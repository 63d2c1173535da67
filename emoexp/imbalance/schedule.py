"""When each column of a strategy acts, and what of the network is trained: a run has one stage or two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

TimedColumn = Literal["sampling", "weights", "loss", "mix"]
Retrain = Literal["none", "fresh", "kept", "scale", "both"]
Norms = Literal["update", "frozen"]
Rates = Literal["same", "cosine", "thirds"]
TIMED: tuple[TimedColumn, ...] = get_args(TimedColumn)


@dataclass(frozen=True)
class Schedule:
    """The second stage of a run begins after the share `start` of its epochs; 0: there is one stage.

    late: columns that act in the second stage only (deferred re-weighting and re-sampling: Cao et al., NeurIPS 2019,
    section 3.3). early: columns that act in the first stage only. rate: factor of the learning rate in the second
    stage; where a classifier is retrained, the learning-rate schedule begins anew.

    retrain, what is trained in the second stage:
    - "none": the whole network.
    - "kept": the classifier, from the weights that it has; features are frozen.
    - "fresh": the classifier, initialised again; features are frozen (cRT: Kang et al., ICLR 2020, section 4).
    - "scale": one factor for each class's logit, nothing else (LWS: the same paper).
    - "both": the classifier and such factors; features are frozen (MiSLAS: Zhong et al., CVPR 2021).

    rates: how the learning rate goes in a second stage that retrains: "same", the schedule of the run once more;
    "cosine", half a cosine down to 0 (MiSLAS); "thirds", a tenth after a third of the stage and a hundredth after two
    (the 10 and 20 of 30 epochs with which cRT and LWS were reported on CIFAR-10-LT).
    norms: whether batch norms still update their statistics where features are frozen, as in the original cRT and LWS,
    or are frozen too.
    """

    start: float = 0.0
    late: Sequence[TimedColumn] = ()
    early: Sequence[TimedColumn] = ()
    retrain: Retrain = "none"
    norms: Norms = "update"
    rate: float = 1.0
    rates: Rates = "same"

    @property
    def retrains(self) -> bool:
        """Whether features are frozen in the second stage."""
        return self.retrain != "none"

    def second_stage_start(self, epochs: int) -> int:
        """The first epoch, from 0, of the second stage; 0 where there is one stage. Two stages need 2 epochs."""
        if self.start == 0:
            return 0
        assert epochs >= 2
        return min(max(round(self.start * epochs), 1), epochs - 1)

    def is_active(self, column: TimedColumn, *, second: bool) -> bool:
        """Whether a column acts in the second stage or else in the first."""
        return column not in (self.early if second else self.late)
