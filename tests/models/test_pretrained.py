"""ImageNet's weights in torchvision's networks, without a network: drawn weights stand in for the published ones."""

import hashlib
import json
import logging
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from composing import TINY, checked
from torch import Tensor, nn

from emoexp.models import imagenet
from emoexp.models.mish import Mish
from emoexp.models.mobilenet_v3_small import MobileNetV3Small
from emoexp.models.resnet18 import ResNet18
from emoexp.runs import manifest
from emoexp.training import run

COMMON: dict[str, Any] = {"num_classes": 5, "channels": 3, "image_size": 32, "activation": nn.ReLU}


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Torchvision's ResNet-18 in evaluation mode, whose weights `fetch` gives as the published ones."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18()
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
    monkeypatch.setattr(imagenet, "fetch", lambda weights: dict(network.state_dict()))
    network.fc = nn.Identity()
    return network.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads, and nobody at the other end."""

    def away(*_: object, **__: object) -> None:
        raise urllib.error.URLError("nobody at the other end")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", away)
    return tmp_path / "checkpoints"


def test_with_the_original_stem_and_activation_the_features_are_the_originals(original: nn.Module) -> None:
    network = ResNet18(stem="imagenet", pretrained=True, **COMMON).eval()
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.features(image), original(image))


def test_grey_is_seen_as_colour_with_equal_channels(original: nn.Module) -> None:
    network = ResNet18(stem="imagenet", pretrained=True, **(COMMON | {"channels": 1})).eval()
    grey = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(network.features(grey), original(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_any_number_of_equal_channels_is_seen_alike() -> None:
    kernel, grey = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    expected = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    for channels in (1, 2, 3, 5):
        fitted = imagenet.fit_channels(kernel, channels)
        result = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), fitted)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert imagenet.fit_channels(kernel, 3) is kernel


def test_with_a_small_stem_all_else_is_loaded(original: nn.Module) -> None:
    torch.manual_seed(8)
    network = ResNet18(pretrained=True, **COMMON)
    torch.manual_seed(8)
    fresh = ResNet18(**COMMON).state_dict()
    own, learnt = network.state_dict(), original.state_dict()
    for name in ("network.conv1.weight", "classifier.weight", "classifier.bias"):
        assert torch.equal(own.pop(name), fresh[name])
    assert own.keys() == {f"network.{name}" for name in learnt} - {"network.conv1.weight"}
    assert all(torch.equal(value, learnt[name.removeprefix("network.")]) for name, value in own.items())


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_mobilenet_keeps_its_stem_and_hidden_layer(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    learnt = torchvision.models.mobilenet_v3_small().state_dict()
    monkeypatch.setattr(imagenet, "fetch", lambda weights: dict(learnt))
    network = MobileNetV3Small(stem=stem, pretrained=True, **(COMMON | {"channels": 1}))
    own = network.state_dict()
    stem_OCHW: Tensor = own.pop("network.features.0.0.weight")
    torch.testing.assert_close(stem_OCHW, learnt.pop("features.0.0.weight").sum(1, keepdim=True))
    kept = {name: value for name, value in learnt.items() if not name.startswith("classifier.3")}
    assert own.keys() == {f"network.{name}" for name in kept} | {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(own[f"network.{name}"], value) for name, value in kept.items())


def test_mobilenet_is_torchvisions_where_nothing_is_changed() -> None:
    """ReLU and hard-swish put back: what is left must compute what torchvision's network computes."""
    torch.manual_seed(5)
    original = torchvision.models.mobilenet_v3_small().eval()
    network = MobileNetV3Small(stem="imagenet", **(COMMON | {"num_classes": 1000})).eval()
    weights = dict(zip(network.state_dict(), original.state_dict().values(), strict=True))
    network.load_state_dict(weights)
    for name, module in original.named_modules():
        if isinstance(module, imagenet.REPLACEABLE):
            network.network.set_submodule(name, module)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(image).logits_BC, original(image))


def test_dropout_and_norm_momentum_reach_mobilenet() -> None:
    network = MobileNetV3Small(dropout=0.3, norm_momentum=0.2, **COMMON)
    drops = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [(module.p, module.inplace) for module in drops] == [(0.3, False)]
    norms = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 34 and set(norms) == {0.2}


@pytest.mark.parametrize("made", [ResNet18, MobileNetV3Small])
def test_the_small_stem_keeps_the_side(made: Any) -> None:
    sides = {}
    for stem in ("small", "imagenet"):
        network = made(stem=stem, **COMMON).eval()
        maps: list[int] = []
        pool = network.network.avgpool
        pool.register_forward_pre_hook(lambda module, inputs, maps=maps: maps.append(inputs[0].shape[-1]))
        network(torch.randn(1, 3, 64, 64))
        sides[stem] = maps[0]
    assert sides == ({"small": 8, "imagenet": 2} if made is ResNet18 else {"small": 4, "imagenet": 2})


def test_another_activation_is_warned_of(original: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    ResNet18(stem="imagenet", pretrained=True, **COMMON)
    assert not caplog.records
    ResNet18(stem="imagenet", pretrained=True, **(COMMON | {"activation": Mish}))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.name == "emoexp.models.imagenet"
    assert "pretrained with ReLU, and the network now has Mish" in record.getMessage()


@pytest.mark.parametrize(
    "made, file", [(ResNet18, "resnet18-f37072fd.pth"), (MobileNetV3Small, "mobilenet_v3_small-047dcff4.pth")]
)
def test_offline_it_says_what_was_tried_and_what_to_do(made: Any, file: str, hub: Path) -> None:
    with pytest.raises(ValueError, match=r"architecture\.pretrained=false") as caught:
        made(pretrained=True, **COMMON)
    message = str(caught.value)
    assert file in message and str(hub) in message and "nobody at the other end" in message
    assert "cannot be fetched" in message


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a file"])
def test_a_file_that_cannot_be_read_is_named(content: bytes, hub: Path) -> None:
    hub.mkdir()
    (hub / "resnet18-f37072fd.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"resnet18-f37072fd\.pth is not the file that was published"):
        ResNet18(pretrained=True, **COMMON)


def test_a_forged_file_is_refused_at_every_load(hub: Path) -> None:
    hub.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), hub / "resnet18-f37072fd.pth")
    for _ in range(2):
        with pytest.raises(ValueError, match="that of the published file with f37072fd"):
            ResNet18(stem="imagenet", pretrained=True, **COMMON)


@pytest.fixture
def published(hub: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights in the folder of downloads that count as the published ones."""
    learnt = torchvision.models.resnet18().state_dict()
    hub.mkdir()
    file = hub / "resnet18-f37072fd.pth"
    torch.save(learnt, file)
    monkeypatch.setattr(imagenet, "_hash_in", lambda file: hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    return dict(learnt)


def test_a_file_put_in_place_is_used(published: dict[str, Tensor]) -> None:
    network = ResNet18(stem="imagenet", pretrained=True, **COMMON)
    assert torch.equal(network.network.conv1.weight, published["conv1.weight"])


def test_the_hash_of_the_weights_is_part_of_what_a_run_is(published: dict[str, Tensor], hub: Path) -> None:
    file = hub / "resnet18-f37072fd.pth"
    experiment, _ = checked("architecture=resnet18", "architecture.pretrained=true")
    found = experiment.architecture.weights_hash()
    assert found == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert checked("architecture=resnet18")[0].architecture.weights_hash() == {}
    old, new = {"weights": found}, {"weights": {file.name: "0" * 64}}
    assert manifest.differences(old, old) == [] and manifest.differences({}, old) == []
    (difference,) = manifest.differences(old, new)
    assert difference.startswith(f"weights.{file.name} ({found[file.name]}")


@pytest.mark.usefixtures("blank_figures")
def test_a_run_keeps_the_hash_of_its_weights(published: dict[str, Tensor], tmp_path: Path) -> None:
    usual = [word for word in TINY if not word.startswith(("architecture", "epochs"))]
    places = [f"outputs={tmp_path}/outputs", f"cache={tmp_path}/cache", "threads=1", "epochs=1"]
    run.train(*checked(*usual, "architecture=resnet18", "architecture.pretrained=true", *places))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert list(json.loads((folder / "manifest.json").read_text())["weights"]) == ["resnet18-f37072fd.pth"]
