"""Contracts that every architecture keeps with every activation: one test over all files of both groups."""

import inspect
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torch import nn

from emoexp.config import build_model
from emoexp.config.models import Activation, Architecture, ShallowCnn
from emoexp.config.option import read
from emoexp.models.cifar_resnet import BasicBlock, CifarResNet
from emoexp.models.emotion_cnn import EmotionCNN
from emoexp.models.mish import Mish
from emoexp.models.shallow_cnn import ShallowCNN
from emoexp.models.vgg_a import VGGA

CONF = Path(__file__).resolve().parents[2] / "conf"
ARCHITECTURES = sorted(file.stem for file in (CONF / "architecture").glob("*.yaml"))
ACTIVATIONS = sorted(file.stem for file in (CONF / "activation").glob("*.yaml"))
KINDS = {
    "mish": Mish,
    "relu": nn.ReLU,
    "swish": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
}
OTHERS = (nn.Hardswish, nn.Hardtanh, nn.ReLU6, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
# activation modules by hand. resnet18, resnet32: the stem's and one for each of 8 or 15 blocks, which calls it twice.
# mobilenet: stem 1, first block 1, ten blocks 2 each, squeezes 9, last convolution 1, hidden layer 1
MODULES = {"emotion_cnn": 5, "shallow_cnn": 2, "vgg_a": 10, "resnet18": 9, "resnet32": 16, "mobilenet_v3_small": 33}
CALLS = MODULES | {"resnet18": 17, "resnet32": 31}
GATES = {"mobilenet_v3_small": 9}  # squeeze-and-excitation blocks, as in the paper's table 2
SHAPES = [(1, 48), (3, 64), (1, 32)]


def option(group: str, name: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def activation(name: str) -> Callable[[], nn.Module]:
    return read(Activation, option("activation", name), "activation").build()


def build(architecture: str, kind: str = "mish", num_classes: int = 7, channels: int = 1, size: int = 32) -> nn.Module:
    made = read(Architecture, option("architecture", architecture), "architecture")
    torch.manual_seed(0)
    return made.build(num_classes=num_classes, channels=channels, image_size=size, activation=activation(kind))


def settled(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """In evaluation mode, with batch-norm statistics of these images: those of a fresh network fit nothing."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(image)
    return network.eval()


def check_training(network: nn.Module, channels: int, size: int) -> None:
    torch.manual_seed(1)
    image = torch.randn(4, channels, size, size).to(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    logits = network(image).logits_BC
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_activation_trains_every_architecture_and_stands_everywhere_in_it(architecture: str, kind: str) -> None:
    network = build(architecture, kind)
    calls: Counter[type] = Counter()
    for module in network.modules():
        if isinstance(module, (*KINDS.values(), *OTHERS)):
            module.register_forward_hook(lambda module, *_: calls.update([type(module)]))
    check_training(network, 1, 32)
    found = Counter(type(module) for module in network.modules() if isinstance(module, (*KINDS.values(), *OTHERS)))
    gates = {nn.Hardsigmoid: GATES[architecture]} if architecture in GATES else {}
    assert found == {KINDS[kind]: MODULES[architecture], **gates}
    assert calls == {KINDS[kind]: CALLS[architecture], **gates}


@pytest.mark.parametrize("channels, size", SHAPES[:2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_grey_and_colour_of_any_size(architecture: str, channels: int, size: int) -> None:
    check_training(build(architecture, channels=channels, size=size), channels, size)


@pytest.mark.slow
@pytest.mark.parametrize("architecture, kind, shape", [*itertools.product(ARCHITECTURES, ACTIVATIONS, SHAPES[:2])])
def test_every_activation_on_every_shape(architecture: str, kind: str, shape: tuple[int, int]) -> None:
    check_training(build(architecture, kind, channels=shape[0], size=shape[1]), *shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_is_judged_by_itself(architecture: str) -> None:
    image, order = torch.randn(6, 1, 32, 32), torch.tensor([3, 0, 5, 1, 4, 2])
    network = settled(build(architecture, num_classes=2), image)
    with torch.no_grad():
        logits = network(image).logits_BC
        assert logits.shape == (6, 2)
        torch.testing.assert_close(network(image[order]).logits_BC, logits[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(image[:1]).logits_BC, logits[:1], rtol=1e-4, atol=1e-5)
        last = image.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(last).logits_BC, logits, rtol=1e-4, atol=1e-5)
    assert (logits - logits.mean(0)).abs().max() > 1e-4, "the image makes no difference"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_the_classifiers_of_the_features(architecture: str) -> None:
    network = build(architecture, num_classes=50).eval()
    image = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        feature = network.features(image)
        assert isinstance(network.classifier, nn.Linear)
        assert feature.shape == (2, network.classifier.in_features)
        assert torch.equal(network.classifier(feature), network(image).logits_BC)
        assert network(image).logits_BC.shape == (2, 50)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_come_from_the_global_generator_alone(architecture: str) -> None:
    first, again = build(architecture).state_dict(), build(architecture).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    made = read(Architecture, option("architecture", architecture), "architecture")  # and no seed
    other = made.build(num_classes=7, channels=1, image_size=32, activation=nn.ReLU).state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_says_the_defaults_of_its_class(architecture: str) -> None:
    keys = option("architecture", architecture)
    del keys["name"]
    parameters = inspect.signature(type(build(architecture))).parameters
    assert all(parameter.kind == parameter.KEYWORD_ONLY for parameter in parameters.values())
    common = {"num_classes", "channels", "image_size", "activation"}
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in common}
    assert common <= set(parameters)
    assert keys == {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


@pytest.mark.parametrize(
    "group, name", [*(("architecture", a) for a in ARCHITECTURES), *(("activation", a) for a in ACTIVATIONS)]
)
def test_a_file_is_named_and_described(group: str, name: str) -> None:
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("# ")
    assert next(iter(option(group, name))) == "name"
    assert option(group, name)["name"] == name


def test_the_options_are_those_of_the_issue() -> None:
    assert set(ARCHITECTURES) == set(MODULES)
    assert set(ACTIVATIONS) == set(KINDS)
    assert all(type(activation(name)()) is kind for name, kind in KINDS.items())


def test_activations_have_the_parameters_of_their_files() -> None:
    x = torch.tensor([-2.0, 0.5])
    assert activation("leaky_relu")()(x).tolist() == pytest.approx([-0.02, 0.5])
    assert activation("elu")()(x).tolist() == pytest.approx([-0.8646647, 0.5])
    assert activation("gelu")()(x).tolist() == pytest.approx([-0.0455003, 0.3457312], rel=1e-5)  # erf, not tanh
    assert activation("swish")()(x).tolist() == pytest.approx([-0.2384058, 0.3112297])


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_emotion_cnn_by_hand() -> None:
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    norms = 2 * (32 + 64 + 128 + 256)
    dense = 256 * 3 * 3 * 256 + 256 + 256 * 7 + 7
    assert count(build("emotion_cnn", size=48)) == convolutions + norms + dense == 980_199


def test_parameters_of_shallow_cnn_by_hand() -> None:
    assert count(build("shallow_cnn", size=48)) == 16 * 9 + 16 + 16 * 24 * 24 * 128 + 128 + 128 * 7 + 7 == 1_180_839


def test_parameters_of_vgg_a_by_hand_and_as_torchvision_counts() -> None:
    network = VGGA(num_classes=7, channels=3, image_size=48, activation=nn.ReLU)
    pairs = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    assert count(network.convolutions) == sum(9 * i * o + o for i, o in pairs) == 9_220_480
    with torch.device("meta"):
        original = torchvision.models.vgg11()
    assert count(network.convolutions) == count(original.features)
    assert count(network.hidden) + count(network.classifier) == 2 * (512 * 512 + 512) + 512 * 7 + 7


@pytest.mark.slow
def test_vgg_a_as_published_has_133_million_parameters() -> None:
    with torch.device("meta"):
        network = VGGA(num_classes=1000, channels=3, image_size=224, activation=nn.ReLU, dense=4096)
    assert count(network) == 132_863_336  # torchvision's vgg11; "133 million" in the paper's table 2


def test_parameters_of_torchvisions_networks() -> None:
    """As torchvision counts, with the original stem; else by the difference of the stems."""
    from emoexp.models.mobilenet_v3_small import MobileNetV3Small
    from emoexp.models.resnet18 import ResNet18

    common: dict[str, Any] = {"num_classes": 1000, "image_size": 48, "activation": Mish}
    assert count(ResNet18(channels=3, stem="imagenet", **common)) == 11_689_512
    assert count(ResNet18(channels=1, stem="imagenet", **common)) == 11_689_512 - 2 * 64 * 49
    assert count(ResNet18(channels=1, **common)) == 11_689_512 - 64 * 3 * 49 + 64 * 9
    for stem in ("small", "imagenet"):
        assert count(MobileNetV3Small(channels=3, stem=stem, **common)) == 2_542_856


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_parameters_of_resnet32_by_hand_and_as_its_papers_count(depth: int, parameters: int) -> None:
    network = CifarResNet(num_classes=10, channels=3, image_size=32, activation=nn.ReLU, depth=depth)
    each = (depth - 2) // 3  # convolutions of a stage
    convolutions = 9 * (3 * 16 + 16 * 16 * each + 16 * 32 + 32 * 32 * (each - 1) + 32 * 64 + 64 * 64 * (each - 1))
    norms = 2 * (16 + each * (16 + 32 + 64))
    assert count(network) == convolutions + norms + 64 * 10 + 10 == parameters  # 0.27, 0.46, 0.66, 0.85 M in table 6
    assert list(dict(network.named_children()))[-1] == "classifier"
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


@pytest.mark.parametrize(("channels", "size", "side"), [(1, 8, 2), (3, 32, 8), (1, 33, 9), (3, 47, 12)])
def test_resnet32_halves_the_side_twice_and_takes_odd_ones(channels: int, size: int, side: int) -> None:
    network = CifarResNet(num_classes=7, channels=channels, image_size=size, activation=nn.ReLU, depth=8)
    assert network.blocks(network.stem(torch.randn(2, channels, size, size))).shape == (2, 64, side, side)
    check_training(network, channels, size)


def test_a_shortcut_of_resnet32_is_every_second_pixel_between_zeros() -> None:
    image = torch.randn(2, 16, 6, 6)
    block = BasicBlock(16, 32, nn.ReLU)
    out = block.shortcut(image)
    assert torch.equal(out[:, 8:24], image[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()
    assert BasicBlock(16, 16, nn.ReLU).shortcut(image) is image
    nn.init.zeros_(block.norm2.weight)  # the convolutions say nothing: the shortcut alone is left
    torch.testing.assert_close(block(image), out.relu())


def test_weights_of_resnet32_are_as_wide_as_he_et_al_draw_them() -> None:
    network = CifarResNet(num_classes=10, channels=3, image_size=32, activation=nn.ReLU)
    wide = network.blocks[-1].conv2.weight
    assert wide.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert network.classifier.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)


@pytest.mark.parametrize("size, side", [(16, 1), (17, 1), (31, 1), (47, 2), (50, 3), (64, 4)])
def test_emotion_cnn_takes_sizes_that_sixteen_does_not_divide(size: int, side: int) -> None:
    network = build("emotion_cnn", size=size)
    assert network.hidden[1].in_features == 256 * side * side
    check_training(network, 1, size)


def test_emotion_cnn_is_what_it_says() -> None:
    kinds = Counter(type(module) for module in build("emotion_cnn").modules())
    expected = {
        nn.Conv2d: 4,
        nn.BatchNorm2d: 4,
        nn.Linear: 2,
        nn.Dropout2d: 4,
        nn.Dropout: 1,
        nn.MaxPool2d: 4,
    }
    assert {kind: kinds[kind] for kind in expected} == expected


def test_dropout_and_widths_reach_the_network() -> None:
    common: dict[str, Any] = {"num_classes": 3, "channels": 1, "image_size": 16, "activation": nn.ReLU}
    network = EmotionCNN(widths=[4, 6], dense=5, conv_dropout=0.3, dropout=0.4, **common)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)] == [0.3, 0.3]
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.4]
    assert [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)] == [4, 6]
    assert network.features(torch.randn(2, 1, 16, 16)).shape == (2, 5)
    normed = VGGA(batch_norm=True, **(common | {"image_size": 32}))
    assert [module.bias for module in normed.convolutions if isinstance(module, nn.Conv2d)] == [None] * 8
    assert sum(isinstance(module, nn.BatchNorm2d) for module in normed.modules()) == 8


@pytest.mark.parametrize(
    "made, keys, message",
    [
        (EmotionCNN, {"image_size": 15}, "emotion_cnn needs image_size of at least 16; it is 15"),
        (VGGA, {"image_size": 31}, "vgg_a needs image_size of at least 32; it is 31"),
        (ShallowCNN, {"image_size": 1}, "shallow_cnn needs image_size of at least 2"),
        (CifarResNet, {"image_size": 7}, "resnet32 needs image_size of at least 8; it is 7"),
    ],
)
def test_what_cannot_be_built_is_explained(made: Any, keys: dict[str, Any], message: str) -> None:
    common: dict[str, Any] = {"num_classes": 3, "channels": 1, "image_size": 32, "activation": nn.ReLU}
    with pytest.raises(ValueError, match=message):
        made(**(common | keys))


@pytest.mark.parametrize("architecture", ["emotion_cnn", "shallow_cnn"])
def test_a_network_can_learn_by_heart(architecture: str) -> None:
    network = build(architecture, num_classes=4, size=16)
    image, label = torch.randn(8, 1, 16, 16), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image).logits_BC, label).backward()
        optimizer.step()
    assert (network.eval()(image).logits_BC.argmax(1) == label).all()


@pytest.mark.parametrize("architecture", ["emotion_cnn", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)])
def test_an_exported_program_needs_torch_alone(architecture: str) -> None:
    network, image = build(architecture).eval(), torch.randn(3, 1, 32, 32)
    program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.mish.default" in targets
    assert all(name.startswith(("aten.", "<built-in function")) for name in targets)
    torch.testing.assert_close(
        program.module()(image[:2]).logits_BC, network(image[:2]).logits_BC, rtol=1e-4, atol=1e-5
    )


class PlainModule(nn.Module):
    """A network that is no `Network`: its output has no features."""

    def __init__(
        self, *, num_classes: int, channels: int, image_size: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels * image_size**2, num_classes)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.classifier(image_BCHW.flatten(1))


SPEC = {"activation": option("activation", "relu"), "class_names": ["a", "b"], "channels": 1, "image_size": 8}
NO_NETWORK = r"architecture=\w+ builds .*PlainModule, which is no subclass of emoexp.models.network.Network. Derive"


def test_an_architecture_of_this_package_that_builds_no_network_fails_when_it_is_built(monkeypatch):
    monkeypatch.setattr(ShallowCnn, "build", lambda self, **arguments: PlainModule(**arguments))
    with pytest.raises(ValueError, match=NO_NETWORK):
        build_model.build_model(SPEC | {"architecture": option("architecture", "shallow_cnn")}, [])


def test_a_class_of_the_user_that_is_no_network_fails_when_it_is_built():
    package = __name__.partition(".")[0]
    architecture = {"name": "mine", "_target_": f"{__name__}.PlainModule"}
    with pytest.raises(ValueError, match=NO_NETWORK):
        build_model.build_model(SPEC | {"architecture": architecture}, [package])


def test_a_class_of_the_user_that_is_a_network_is_built():
    architecture = {"name": "mine", "_target_": "emoexp.models.shallow_cnn.ShallowCNN", "width": 2, "dense": 3}
    model = build_model.build_model(SPEC | {"architecture": architecture}, [])
    assert type(model) is ShallowCNN and model.classifier.in_features == 3
