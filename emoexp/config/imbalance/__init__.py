"""A strategy of conf/imbalance: a row, which has an option of each column. One module for each column."""

from dataclasses import dataclass
from typing import Literal

from emoexp.config import options
from emoexp.config.fields import Count
from emoexp.config.imbalance.copies import Copies
from emoexp.config.imbalance.loss import Loss
from emoexp.config.imbalance.mix import Mix
from emoexp.config.imbalance.posthoc import Posthoc
from emoexp.config.imbalance.sampling import Sampling
from emoexp.config.imbalance.schedule import Schedule
from emoexp.config.imbalance.weights import Weights
from emoexp.config.models import Head
from emoexp.config.option import Values


@dataclass(frozen=True, kw_only=True)
class Imbalance(Values):
    """A strategy: a row of conf/imbalance, whose columns are options of their own."""

    name: str
    epoch_size: Literal["pool", "originals"] | Count
    weight_scale: Literal["mean1", "sum_to_classes", "batch"]
    copies: Copies
    sampling: Sampling
    weights: Weights
    loss: Loss
    schedule: Schedule
    mix: Mix
    posthoc: Posthoc

    def check(self, path: str) -> None:
        """Refuse a schedule that names a column which does nothing anyway, unless the classifier is retrained."""
        usual = options.chosen("imbalance", "none")
        if self.weight_scale != "mean1" and self.weights.name == usual["weights"]:
            raise ValueError(
                f"{path}.weight_scale={self.weight_scale} does nothing where {path}/weights is {self.weights.name}; "
                f"choose {path}/weights=inverse or another, or leave {path}.weight_scale=mean1"
            )
        for when, columns in self.schedule.columns().items():
            for column in columns:
                option = getattr(self, column)
                if option.name == usual[column] and not getattr(option, "smoothing", 0):
                    raise ValueError(
                        f"{path}.schedule.{when} names {column}, but {path}/{column}={option.name} does nothing "
                        f"anyway; choose another {path}/{column}, or name what should be: "
                        f"'{path}.schedule.{when}=[...]', of sampling, weights, loss, mix"
                    )

    def head(self) -> Head:
        """The last layer that the strategy needs: that of the loss, with a factor for each class where the schedule
        trains such factors."""
        layer, retrain = self.loss.last_layer(), getattr(self.schedule, "retrain", "none")
        return Head(layer.kind, layer.scale, factors=retrain in ("scale", "both"))
