"""torchvision's ResNet-18 (He et al., CVPR 2016), for any image size and number of channels."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from emoexp.models import imagenet
from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network

WEIGHTS = ResNet18_Weights.IMAGENET1K_V1


class ResNet18(Network):
    """Torchvision's ResNet-18 with the chosen activation.

    stem: "small" keeps the side (3x3, stride 1, no pool), so that images of 48 pixels give final maps of 6x6;
    "imagenet" divides the side by four (7x7, stride 2, pool). pretrained: start from ImageNet's weights, except those
    of the last layer and of a small stem; for grey images the stem's kernels are summed over the colours.

    Raises:
        ValueError: an image smaller than 8 pixels, or weights that cannot be downloaded.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        activation: Callable[[], nn.Module],
        stem: str = "small",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_image_size("resnet18", image_size, minimum=8)
        assert stem in imagenet.STEMS
        network = resnet18(num_classes=num_classes)
        if stem == "small":
            network.conv1 = imagenet.fresh_stem(channels, 64, kernel=3, stride=1)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = imagenet.fresh_stem(channels, 64, kernel=7, stride=2)
        imagenet.replace_activations(network, activation)
        if pretrained:
            fresh = {"fc.weight", "fc.bias"} | ({"conv1.weight"} if stem == "small" else set())
            imagenet.load_weights(network, WEIGHTS, stem="conv1.weight", fresh=fresh)
            imagenet.warn_of_activation("resnet18", activation, "ReLU")
        self.network = network
        self.classifier = network.fc
        network.fc = nn.Identity()

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×512, means over the last feature maps."""
        feature_BF: Tensor = self.network(image_BCHW)
        return feature_BF
