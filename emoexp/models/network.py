"""What every network is: features of an image, and a last layer that turns them into logits."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from emoexp.models.heads import Head


class Output(NamedTuple):
    """What a network says of B images: features B×F, which the last layer sees, and logits B×C."""

    feature_BF: Tensor
    logits_BC: Tensor


class Network(nn.Module, ABC):
    """Normalised float32 images B×C×H×W to features and logits; logits = classifier(features(image)).

    Losses may use the features, two-stage strategies train the classifier alone, and post-hoc fits change it.
    """

    classifier: Head

    @abstractmethod
    def features(self, image_BCHW: Tensor) -> Tensor:
        """What the last layer sees: B×F."""

    def forward(self, image_BCHW: Tensor) -> Output:
        """Features and logits of normalised images."""
        feature_BF = self.features(image_BCHW)
        return Output(feature_BF, self.classifier(feature_BF))
