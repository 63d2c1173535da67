"""The default network: four convolutions, four batch norms, two dense layers, dropout."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network


class EmotionCNN(Network):
    """One block per entry of `widths`, then two dense layers.

    A block is a 3x3 convolution, batch norm, activation, 2x2 max pool and dropout.

    Pools round down, so that every image size of at least 2^blocks pixels is possible. The dropout after a pool drops
    whole feature maps (Tompson et al., CVPR 2015, "spatial dropout"): neighbouring pixels of a map are similar, and
    one random number for each map is much cheaper than one for each pixel.

    Raises:
        ValueError: an image smaller than 2^blocks pixels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        activation: Callable[[], nn.Module],
        widths: Sequence[int] = (32, 64, 128, 256),
        dense: int = 256,
        conv_dropout: float = 0.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_image_size("emotion_cnn", image_size, minimum=2 ** len(widths))
        inputs = (channels, *widths[:-1])
        self.blocks = nn.Sequential(
            *(_block(i, o, activation, conv_dropout) for i, o in zip(inputs, widths, strict=True))
        )
        side = image_size // 2 ** len(widths)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(widths[-1] * side * side, dense), activation(), nn.Dropout(dropout)
        )
        self.classifier = nn.Linear(dense, num_classes)

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×dense."""
        feature_BF: Tensor = self.hidden(self.blocks(image_BCHW))
        return feature_BF


def _block(inputs: int, outputs: int, activation: Callable[[], nn.Module], dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # batch norm adds the bias
        nn.BatchNorm2d(outputs),
        activation(),
        nn.MaxPool2d(2),
        nn.Dropout2d(dropout),
    )
