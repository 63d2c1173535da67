"""Folded batch norms against the model as it stands, for every architecture; and what must not be folded."""

import pytest
import torch
from test_models import ARCHITECTURES, build
from torch import Tensor, nn

from emoexp.models import folding
from emoexp.models.network import Output

NORMS = {"emotion_cnn": 4, "shallow_cnn": 0, "vgg_a": 0, "resnet18": 20, "mobilenet_v3_small": 34, "resnet32": 31}


def lived_in(model: nn.Module) -> nn.Module:
    """The model with statistics that batch norms might have after training."""
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def test_every_architecture_is_known():
    assert set(NORMS) == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_computes_the_same_without_batch_norms(architecture):
    model = lived_in(build(architecture))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(5, 1, 32, 32)
    own = folding.fold_batch_norms(model, image[:2])
    assert (norms(model), norms(own)) == (NORMS[architecture], 0)
    with torch.inference_mode():
        torch.testing.assert_close(own(image).logits_BC, model(image).logits_BC, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (own is model) == (NORMS[architecture] == 0)
    assert not any(part._forward_hooks for part in model.modules())


class Twice(nn.Module):
    """Uses what its convolution gives both before and after the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, image: Tensor) -> Output:
        found = self.conv(image)
        return Output(image, self.head((self.norm(found) + found).mean((2, 3))))


class Shared(nn.Module):
    """One norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten()

    def forward(self, image: Tensor) -> Output:
        return Output(image, self.head((self.norm(self.a(image)) + self.norm(self.b(image))).mean((2, 3))))


class Between(nn.Module):
    """An activation between convolution and norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten())

    def forward(self, image: Tensor) -> Output:
        return Output(image, self.body(image))


@pytest.mark.parametrize("kind", [Twice, Shared, Between])
def test_what_is_no_plain_pair_stays_as_it_is(kind):
    model = lived_in(kind())
    assert folding.fold_batch_norms(model, torch.randn(2, 1, 9, 9)) is model


def test_a_model_that_is_not_finite_stays_as_it_is():
    model = lived_in(build("emotion_cnn"))
    nn.init.constant_(model.classifier.bias, float("nan"))
    assert folding.fold_batch_norms(model, torch.randn(2, 1, 32, 32)) is model
