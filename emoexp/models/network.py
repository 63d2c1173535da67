"""The base class of all networks: features of an image, and a last layer from features to logits."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from emoexp.models.heads import Head


class Output(NamedTuple):
    """Output of a network for B images: features B×F, the input of the last layer, and logits B×C."""

    feature_BF: Tensor
    logits_BC: Tensor


class Network(nn.Module, ABC):
    """A network from normalised float32 images B×C×H×W to features and logits = classifier(features(image)).

    Features and classifier are separate, because some losses use the features, two-stage strategies train the
    classifier alone, and post-hoc fits replace it.
    """

    classifier: Head

    @abstractmethod
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×F."""

    def forward(self, image_BCHW: Tensor) -> Output:
        """Features and logits of normalised images."""
        feature_BF = self.features(image_BCHW)
        return Output(feature_BF, self.classifier(feature_BF))
