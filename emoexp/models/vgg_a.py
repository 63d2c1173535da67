"""VGG, configuration A (Simonyan and Zisserman, "Very deep convolutional networks", ICLR 2015)."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network

# output channels of the convolutions of each stage; a max pool ends a stage
STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGGA(Network):
    """Eight 3x3 convolutions in five stages, each with a 2x2 max pool at its end; three dense layers.

    The weights are initialised as by He et al. (ICCV 2015), so that a network without batch norm starts to learn.

    Raises:
        ValueError: an image smaller than 32 pixels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        activation: Callable[[], nn.Module],
        dense: int = 512,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_image_size("vgg_a", image_size, minimum=2 ** len(STAGES))
        self.convolutions = nn.Sequential(*_convolutions(channels, activation, batch_norm))
        side = image_size // 2 ** len(STAGES)
        inputs = STAGES[-1][-1] * side * side
        self.hidden = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(inputs, dense), activation(), nn.Dropout(dropout)),
            *(nn.Linear(dense, dense), activation(), nn.Dropout(dropout)),
        )
        for module in [*self.convolutions, *self.hidden]:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.classifier = nn.Linear(dense, num_classes)

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×dense."""
        feature_BF: Tensor = self.hidden(self.convolutions(image_BCHW))
        return feature_BF


def _convolutions(channels: int, activation: Callable[[], nn.Module], batch_norm: bool) -> Iterator[nn.Module]:
    for stage in STAGES:
        for width in stage:
            yield nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm)
            if batch_norm:
                yield nn.BatchNorm2d(width)
            yield activation()
            channels = width
        yield nn.MaxPool2d(2)
