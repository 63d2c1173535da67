"""A very small network, as a lower bound for the others: one convolution, two dense layers."""

from collections.abc import Callable

from torch import Tensor, nn

from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network


class ShallowCNN(Network):
    """3x3 convolution to `width` channels, activation, 2x2 max pool, dense layer, activation, dense layer.

    Raises:
        ValueError: an image of one pixel.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        activation: Callable[[], nn.Module],
        width: int = 16,
        dense: int = 128,
    ) -> None:
        super().__init__()
        check_image_size("shallow_cnn", image_size, minimum=2)
        side = image_size // 2
        self.convolution = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), activation(), nn.MaxPool2d(2))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(width * side * side, dense), activation())
        self.classifier = nn.Linear(dense, num_classes)

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×dense."""
        feature_BF: Tensor = self.hidden(self.convolution(image_BCHW))
        return feature_BF
