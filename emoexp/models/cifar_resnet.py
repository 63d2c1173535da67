"""Residual networks for small images (He et al., CVPR 2016, section 4.2): ResNet-20, 32, 44 and 56."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network

WIDTHS = (16, 32, 64)  # channels of the three stages; the last two halve the side


class CifarResNet(Network):
    """One 3x3 convolution, three stages of (depth - 2) / 6 basic blocks, global average pooling, one dense layer.

    Shortcuts have no parameters (the paper's option A): where a block halves the side, the shortcut takes every second
    pixel of the input and adds channels of zeros. All weights, also those of the last layer, are initialised as by He
    et al. (ICCV 2015), as in the implementation that most papers on long tails use.

    depth: layers with weights, 6n + 2.

    Raises:
        ValueError: an image smaller than 8 pixels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        activation: Callable[[], nn.Module],
        depth: int = 32,
    ) -> None:
        super().__init__()
        check_image_size("resnet32", image_size, minimum=8)
        self.stem = nn.Sequential(_convolution(channels, WIDTHS[0], 1), nn.BatchNorm2d(WIDTHS[0]), activation())
        blocks, inputs = [], WIDTHS[0]
        for width in WIDTHS:
            for _ in range((depth - 2) // 6):
                blocks.append(BasicBlock(inputs, width, activation))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×64, means over the last feature maps."""
        return self.blocks(self.stem(image_BCHW)).mean((2, 3))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; the input is added before the last activation.

    If there are more output than input channels, the side is halved, rounded up.
    """

    def __init__(self, inputs: int, outputs: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.channel_padding = ((outputs - inputs) // 2, (outputs - inputs) - (outputs - inputs) // 2)
        self.conv1, self.norm1 = _convolution(inputs, outputs, self.stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.activation = activation()

    def forward(self, map_NCHW: Tensor) -> Tensor:
        """Feature maps B×outputs×H×W, or of half the side."""
        residual = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(map_NCHW)))))
        out: Tensor = self.activation(residual + self.shortcut(map_NCHW))
        return out

    def shortcut(self, map_NCHW: Tensor) -> Tensor:
        """The input in the shape of the output."""
        if self.stride == 1:
            return map_NCHW
        return functional.pad(map_NCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channel_padding))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)  # batch norm adds the bias
