"""What comes in from outside of a shifted picture: its border, or black as papers on CIFAR pad."""

import pytest
import torch
from composing import checked
from torch.nn import functional

from emoexp.training import augment
from emoexp.training.augment import Policy, Transformation

CIFAR = Policy(flip=0.5, translate=0.125, translate_step=1 / 32)
IMAGE = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1


def drawn(policy: Policy) -> Transformation:
    return augment.draw(policy, 0, "augmentation", torch.arange(64))


@pytest.mark.parametrize(("pad", "mode"), [("edge", "replicate"), ("black", "constant")])
def test_shifts_are_a_crop_of_the_padded_picture(pad, mode):
    """The oracle is what the papers do: pad by four pixels, mirror, crop 32x32 anywhere."""
    policy = Policy(translate=0.125, translate_step=1 / 32, pad=pad)
    transformation = drawn(policy)
    found = augment.apply(IMAGE, transformation, fill=0.5)
    padded = functional.pad(IMAGE, (4, 4, 4, 4), mode=mode)
    shift_B2 = (transformation.affine_B23[:, :, 2] * 16).round().long()
    for image, row, (x, y) in zip(found, padded, shift_B2.tolist(), strict=True):
        torch.testing.assert_close(image, row[:, 4 + y : 36 + y, 4 + x : 36 + x], rtol=0, atol=2e-5)


def test_some_of_it_is_black():
    black = [
        bool((augment.apply(IMAGE, drawn(Policy(translate=0.125, pad=pad)), 0.5) < 0.05).any())
        for pad in ("edge", "black")
    ]
    assert black == [False, True]


def test_black_stays_where_transformations_are_put_together():
    edge, black = (drawn(Policy(translate=0.1, pad=pad)) for pad in ("edge", "black"))
    assert [one.then(other).pad for one in (edge, black) for other in (edge, black)] == [
        "edge",
        "black",
        "black",
        "black",
    ]
    assert (
        black.map_tensors(lambda tensor: tensor[:3]).pad == black.where(torch.ones(64, dtype=torch.bool)).pad == "black"
    )
    assert Policy(pad="black").is_identity and not Policy(pad="black", flip=0.5).is_identity


def test_it_is_an_option_of_augmentation():
    assert checked("augmentation=cifar")[0].augmentation.build().pad == "edge"
    assert checked("augmentation=cifar", "augmentation.pad=black")[0].augmentation.build().pad == "black"
    with pytest.raises(ValueError, match=r"augmentation\.pad is one of edge, black; it is zeros"):
        checked("augmentation.pad=zeros")
