"""The options of `architecture` and of `activation`: networks, and what stands between their layers."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from emoexp.config.build import Homes, ours
from emoexp.config.fields import BelowOne, Length, NotNegative, Range, Width, accepted, check_keys
from emoexp.config.option import Option, Own

if TYPE_CHECKING:
    from torch import nn

    from emoexp.models.network import Network

    Activations = Callable[[], nn.Module]

Stem = Literal["small", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Activation(Option):
    """An option of conf/activation."""

    folder: ClassVar[str] = "activation"

    @abstractmethod
    def build(self) -> "Activations":
        """What makes one layer of it, without arguments."""


@dataclass(frozen=True, kw_only=True)
class Elu(Activation):
    """conf/activation/elu.yaml"""

    alpha: NotNegative

    def build(self) -> "Activations":
        """See Activation."""
        from torch import nn

        return partial(nn.ELU, alpha=self.alpha)


@dataclass(frozen=True, kw_only=True)
class Gelu(Activation):
    """conf/activation/gelu.yaml"""

    approximate: Literal["none", "tanh"]

    def build(self) -> "Activations":
        """See Activation."""
        from torch import nn

        return partial(nn.GELU, approximate=self.approximate)


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(Activation):
    """conf/activation/leaky_relu.yaml"""

    negative_slope: NotNegative

    def build(self) -> "Activations":
        """See Activation."""
        from torch import nn

        return partial(nn.LeakyReLU, negative_slope=self.negative_slope)


@dataclass(frozen=True, kw_only=True)
class Mish(Activation):
    """conf/activation/mish.yaml"""

    kernel: Literal["auto", "algebraic", "native"]

    def build(self) -> "Activations":
        """See Activation."""
        from emoexp.models import mish

        return partial(mish.Mish, kernel=self.kernel)


@dataclass(frozen=True, kw_only=True)
class Relu(Activation):
    """conf/activation/relu.yaml"""

    def build(self) -> "Activations":
        """See Activation."""
        from torch import nn

        return nn.ReLU


@dataclass(frozen=True, kw_only=True)
class Swish(Activation):
    """conf/activation/swish.yaml"""

    def build(self) -> "Activations":
        """See Activation."""
        from torch import nn

        return nn.SiLU


@dataclass(frozen=True, kw_only=True)
class OwnActivation(Own, Activation):
    """An activation of torch's, or of somebody's own."""

    homes: ClassVar[Homes] = {"torch.nn": "torch.nn.modules.activation", **ours("models.mish")}
    factory: ClassVar[bool] = True

    def build(self) -> "Activations":
        """See Activation."""
        activations: Activations = self.made()
        return activations


Activation.own = OwnActivation
Activation.known = {
    "elu": Elu,
    "gelu": Gelu,
    "leaky_relu": LeakyRelu,
    "mish": Mish,
    "relu": Relu,
    "swish": Swish,
}


@dataclass(frozen=True, kw_only=True)
class Architecture(Option):
    """An option of conf/architecture."""

    folder: ClassVar[str] = "architecture"

    @abstractmethod
    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """The network, with weights drawn from torch's global generator.

        num_classes: logits. channels, image_size: of its square images. activation: makes one layer.
        """

    @property
    def least_size(self) -> int:
        """Pixels a side that an image has at least."""
        return 1

    def weights_hash(self) -> dict[str, str]:
        """The file of the pretrained weights that the network starts from, and its SHA-256; nothing for random weights.

        Raises ValueError where the file cannot be fetched or read, or is another one than was published.
        """
        return {}

    def check_image(self, image_size: int) -> None:
        """Refuse images that pooling would leave nothing of."""
        if image_size < self.least_size:
            raise ValueError(
                f"architecture={self.name} needs image_size of at least {self.least_size}; it is {image_size}. Choose "
                f"image_size={self.least_size} or an architecture that shrinks the image less"
            )


@dataclass(frozen=True, kw_only=True)
class EmotionCnn(Architecture):
    """conf/architecture/emotion_cnn.yaml"""

    widths: Annotated[list[Width], Length(1)]
    dense: Width
    conv_dropout: BelowOne
    dropout: BelowOne

    @property
    def least_size(self) -> int:
        """Each width halves the side."""
        return int(2 ** len(self.widths))

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models.emotion_cnn import EmotionCNN

        return EmotionCNN(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            widths=self.widths,
            dense=self.dense,
            conv_dropout=self.conv_dropout,
            dropout=self.dropout,
        )


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Small(Architecture):
    """conf/architecture/mobilenet_v3_small.yaml"""

    stem: Stem
    pretrained: bool
    dropout: BelowOne
    norm_momentum: BelowOne

    def weights_hash(self) -> dict[str, str]:
        """See Architecture."""
        from emoexp.models import imagenet, mobilenet_v3_small

        return imagenet.weights_hash(mobilenet_v3_small.WEIGHTS) if self.pretrained else {}

    @property
    def least_size(self) -> int:
        """Five strides of 2, four with the small stem."""
        return 8

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models import mobilenet_v3_small

        return mobilenet_v3_small.MobileNetV3Small(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            stem=self.stem,
            pretrained=self.pretrained,
            dropout=self.dropout,
            norm_momentum=self.norm_momentum,
        )


@dataclass(frozen=True, kw_only=True)
class ResNet18(Architecture):
    """conf/architecture/resnet18.yaml"""

    stem: Stem
    pretrained: bool

    def weights_hash(self) -> dict[str, str]:
        """See Architecture."""
        from emoexp.models import imagenet, resnet18

        return imagenet.weights_hash(resnet18.WEIGHTS) if self.pretrained else {}

    @property
    def least_size(self) -> int:
        """Three strides of 2."""
        return 8

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models import resnet18

        return resnet18.ResNet18(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            stem=self.stem,
            pretrained=self.pretrained,
        )


@dataclass(frozen=True, kw_only=True)
class CifarResNet(Architecture):
    """conf/architecture/resnet32.yaml"""

    depth: Annotated[int, Range(least=8, most=1202)]

    @property
    def least_size(self) -> int:
        """Two halvings, and something left to convolve."""
        return 8

    def check(self, path: str) -> None:
        """The paper's depths."""
        if self.depth % 6 != 2:
            raise ValueError(f"{path}.depth is 6n + 2, such as 20, 32, 44 or 56; it is {self.depth}")

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models import cifar_resnet

        return cifar_resnet.CifarResNet(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            depth=self.depth,
        )


@dataclass(frozen=True, kw_only=True)
class ShallowCnn(Architecture):
    """conf/architecture/shallow_cnn.yaml"""

    width: Width
    dense: Width

    @property
    def least_size(self) -> int:
        """One pool."""
        return 2

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models.shallow_cnn import ShallowCNN

        return ShallowCNN(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            width=self.width,
            dense=self.dense,
        )


@dataclass(frozen=True, kw_only=True)
class VggA(Architecture):
    """conf/architecture/vgg_a.yaml"""

    dense: Width
    dropout: BelowOne
    batch_norm: bool

    @property
    def least_size(self) -> int:
        """Five pools."""
        return 32

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        from emoexp.models.vgg_a import VGGA

        return VGGA(
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            activation=activation,
            dense=self.dense,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )


NETWORKS = ("cifar_resnet", "emotion_cnn", "mobilenet_v3_small", "resnet18", "shallow_cnn", "vgg_a")  # modules


@dataclass(frozen=True, kw_only=True)
class OwnArchitecture(Own, Architecture):
    """A network of somebody's own."""

    homes: ClassVar[Homes] = ours(*(f"models.{name}" for name in NETWORKS))

    def build(self, *, num_classes: int, channels: int, image_size: int, activation: "Activations") -> "Network":
        """See Architecture."""
        network: Network = self.made(
            num_classes=num_classes, channels=channels, image_size=image_size, activation=activation
        )
        return network


Architecture.own = OwnArchitecture
Architecture.known = {
    "emotion_cnn": EmotionCnn,
    "mobilenet_v3_small": MobileNetV3Small,
    "resnet18": ResNet18,
    "resnet32": CifarResNet,
    "shallow_cnn": ShallowCnn,
    "vgg_a": VggA,
}


@dataclass(frozen=True)
class Head:
    """The last layer of a network: linear, or cosines times `scale`; with factors for the classes to be learnt or not.

    In a checkpoint it is the node that `plain` gives.
    """

    kind: Literal["linear", "cosine"] = "linear"
    scale: float = 1.0
    factors: bool = False

    def plain(self) -> dict[str, Any]:
        """As a checkpoint holds it; "normalised" is what earlier versions call the cosine layer."""
        node = {"kind": "normalised", "scale": self.scale} if self.kind == "cosine" else {"kind": "linear"}
        return node | ({"factors": True} if self.factors else {})

    @staticmethod
    def read(node: Any) -> "Head":
        """The last layer that a checkpoint holds.

        Raises:
            ValueError: another kind, or a scale that is no number above 0.
        """
        node = node if isinstance(node, dict) else {"kind": node}
        kind = node.get("kind")
        check_keys("head.", "head", node, ("kind", "scale", "factors"))
        accepted("head.kind", Literal["linear", "normalised", "cosine"], kind)
        factors = accepted("head.factors", bool, node.get("factors", False))
        if kind == "linear":
            return Head(factors=factors)
        return Head("cosine", accepted("head.scale", Annotated[float, Range(above=0)], node.get("scale")), factors)
