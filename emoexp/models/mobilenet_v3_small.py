"""torchvision's MobileNetV3-Small (Howard et al., ICCV 2019), for any image size and number of channels."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

from emoexp.models import imagenet
from emoexp.models.image_size import check_image_size
from emoexp.models.network import Network

WEIGHTS = MobileNet_V3_Small_Weights.IMAGENET1K_V1


class MobileNetV3Small(Network):
    """Torchvision's MobileNetV3-Small with the chosen activation in place of its ReLUs and hard-swishes.

    stem: stride of the first convolution: 1 for "small", so that images of 48 pixels give final maps of 3x3; 2 for
    "imagenet". pretrained: start from ImageNet's weights, except those of the last layer; for grey images the stem's
    kernels are summed over the colours. norm_momentum: of the running statistics of batch norm; with torchvision's
    0.01 they need hundreds of steps to follow the weights.

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
        dropout: float = 0.2,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_image_size("mobilenet_v3_small", image_size, minimum=8)
        assert stem in imagenet.STEMS
        network = mobilenet_v3_small(num_classes=num_classes)
        # torchvision's dropout works in place and would overwrite the values that ReLU and ELU save for their gradient
        network.classifier[2] = nn.Dropout(dropout)
        stride = 1 if stem == "small" else 2
        network.features[0][0] = imagenet.fresh_stem(channels, 16, kernel=3, stride=stride)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        imagenet.replace_activations(network, activation)
        if pretrained:
            fresh = {"classifier.3.weight", "classifier.3.bias"}
            imagenet.load_weights(network, WEIGHTS, stem="features.0.0.weight", fresh=fresh)
            imagenet.warn_of_activation("mobilenet_v3_small", activation, "ReLU and Hardswish")
        self.network = network
        self.classifier = network.classifier[3]
        network.classifier[3] = nn.Identity()

    def features(self, image_BCHW: Tensor) -> Tensor:
        """Input of the last layer: B×1024."""
        feature_BF: Tensor = self.network(image_BCHW)
        return feature_BF
