"""Batched transformations against exact cases, composition and ranges."""

import math

import pytest
import torch

from emoexp.training import augment
from emoexp.training.augment import Policy, Transformation

IMAGE = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
STRONG = Policy(0.5, 15.0, 0.15, 0.15, 5.0, 0.15, 0.25, 0.5, 0.2)


def affine(rows, count=4):
    matrix = torch.tensor(rows).expand(count, 2, 3)
    return Transformation(matrix, torch.ones(count), torch.zeros(count), torch.zeros(count, 1, 4))


IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_identity_changes_nothing():
    torch.testing.assert_close(augment.apply(IMAGE, affine(IDENTITY), 0.5), IMAGE)


def test_grid_is_torchs():
    drawn = augment.draw(STRONG, 0, "t", torch.arange(20))
    theirs = torch.nn.functional.affine_grid(drawn.affine_B23, [20, 1, 9, 14], align_corners=False)
    torch.testing.assert_close(augment._grid(drawn.affine_B23, 9, 14), theirs, atol=5e-7, rtol=0)


def test_mirror_is_flip():
    mirrored = augment.apply(IMAGE, affine([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), 0.5)
    torch.testing.assert_close(mirrored, IMAGE.flip(3))


def test_whole_pixel_shift_is_a_roll_inside():
    moved = augment.apply(IMAGE, affine([[1.0, 0.0, 2 * 3 / 12], [0.0, 1.0, 0.0]]), 0.5)
    torch.testing.assert_close(moved[..., :9], IMAGE[..., 3:])


def test_quarter_turn_is_rot90():
    turned = augment.apply(IMAGE, affine([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), 0.5)
    torch.testing.assert_close(turned, torch.rot90(IMAGE, 1, (2, 3)), atol=1e-5, rtol=0)


def test_shifts_by_whole_pixels_are_a_padded_crop_and_all_equally_frequent():
    policy = Policy(translate=4 / 32, translate_step=1 / 32)
    drawn = augment.draw(policy, 0, "t", torch.arange(20_000))
    pixels = drawn.affine_B23[:, :, 2] * 16  # the side is 2 long
    assert torch.equal(pixels, pixels.round()) and pixels.abs().max() == 4
    frequency = torch.bincount((pixels[:, 0] * 9 + pixels[:, 1] + 40).long()) / 20_000
    assert len(frequency) == 81 and (frequency - 1 / 81).abs().max() < 0.004
    image = torch.rand(64, 3, 32, 32)
    moved = augment.apply(image, drawn.map_tensors(lambda table: table[:64]), 0.5)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4), mode="replicate")
    for k, (x, y) in enumerate(pixels[:64].long().tolist()):
        torch.testing.assert_close(moved[k], padded[k, :, 4 + y : 36 + y, 4 + x : 36 + x], atol=1e-4, rtol=0)


def test_mirrored_shifts_stay_on_whole_pixels():
    image = torch.rand(16, 1, 32, 32)
    moved = augment.apply(
        image, augment.draw(Policy(flip=1.0, translate=4 / 32, translate_step=1 / 32), 0, "t", torch.arange(16)), 0.5
    )
    assert torch.isin((moved * 4096).round(), (image * 4096).round()).float().mean() > 0.99  # no value was mixed


def test_shifts_of_any_size_do_not_know_of_steps():
    drawn = augment.draw(Policy(translate=0.1), 3, "t", torch.arange(1000)).affine_B23[:, :, 2] / 2
    assert len(drawn.unique()) > 1900 and drawn.abs().max() == pytest.approx(0.1, abs=1e-3)


def test_flip_probability_one_always_mirrors():
    drawn = augment.draw(Policy(flip=1.0), 0, "t", torch.arange(4))
    torch.testing.assert_close(augment.apply(IMAGE, drawn, 0.5), IMAGE.flip(3))


def test_gain_and_bias():
    drawn = affine(IDENTITY)
    brighter = Transformation(drawn.affine_B23, torch.full((4,), 0.5), torch.full((4,), 0.2), drawn.box_BK4)
    torch.testing.assert_close(augment.apply(IMAGE, brighter, 0.5), IMAGE * 0.5 + 0.2)


def test_contrast_turns_about_mid_grey():
    drawn = augment.draw(Policy(contrast=0.5), 0, "t", torch.arange(100))
    torch.testing.assert_close(0.5 * drawn.gain_B + drawn.bias_B, torch.full((100,), 0.5))


def test_erased_box_is_where_it_says():
    drawn = affine(IDENTITY)
    box = torch.tensor([[0.25, 0.5, 0.5, 1.0]]).expand(4, 1, 4)
    out = augment.apply(IMAGE, Transformation(drawn.affine_B23, drawn.gain_B, drawn.bias_B, box), 0.33)
    expected = IMAGE.clone()
    expected[:, :, 3:6, 6:12] = 0.33
    torch.testing.assert_close(out, expected)


def test_composition_equals_one_after_the_other():
    """Smooth images, so that resampling twice differs little from resampling once; away from the border."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = (0.5 + 0.2 * torch.sin(2 * x) * torch.cos(3 * y))[None, None].expand(8, 1, 64, 64)
    mild = Policy(rotate=10.0, translate=0.05, scale=0.05, shear=5.0, contrast=0.1, brightness=0.05, flip=0.5)
    first, second = (augment.draw(mild, 0, name, torch.arange(8)) for name in ("a", "b"))
    twice = augment.apply(augment.apply(image, first, 0.5), second, 0.5)
    once = augment.apply(image, first.then(second), 0.5)
    torch.testing.assert_close(once[..., 12:-12, 12:-12], twice[..., 12:-12, 12:-12], atol=3e-3, rtol=0)
    assert (once - image).abs().max() > 0.05


def test_where_leaves_the_others_alone():
    drawn = augment.draw(STRONG, 0, "t", torch.arange(4))
    mask = torch.tensor([True, False, True, False])
    out = augment.apply(IMAGE, drawn.where(mask), 0.5)
    torch.testing.assert_close(out[~mask], IMAGE[~mask])
    assert (out[mask] - IMAGE[mask]).abs().amax((1, 2, 3)).min() > 0.01


def test_draw_depends_on_its_keys_alone():
    whole = augment.draw(STRONG, 3, "t", 1, torch.arange(10))
    part = augment.draw(STRONG, 3, "t", 1, torch.arange(4, 7))
    torch.testing.assert_close(whole.affine_B23[4:7], part.affine_B23, rtol=0, atol=0)
    other = augment.draw(STRONG, 3, "t", 2, torch.arange(10))
    assert not torch.equal(whole.affine_B23, other.affine_B23)


def test_ranges_are_kept_and_used():
    drawn = augment.draw(Policy(rotate=10.0, scale=0.1), 0, "t", torch.arange(20_000))
    matrix = drawn.affine_B23[:, :, :2]
    zoom = 1 / torch.linalg.det(matrix).sqrt()
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 1, 1]) * 180 / math.pi
    assert zoom.min() == pytest.approx(0.9, abs=1e-3) and zoom.max() == pytest.approx(1.1, abs=1e-3)
    assert angle.min() == pytest.approx(-10, abs=0.05) and angle.max() == pytest.approx(10, abs=0.05)


def test_boxes_lie_inside_and_are_as_frequent_as_asked():
    box = augment.draw(Policy(erase=0.3, erase_area=0.2), 0, "t", torch.arange(20_000)).box_BK4[:, 0]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    assert (area > 0).float().mean() == pytest.approx(0.3, abs=0.02)
    assert box.min() >= 0 and box.max() <= 1 + 1e-6 and area.max() <= 0.2 + 1e-5
    assert area[area > 0].min() >= 0.02 - 1e-5


def test_idle_and_nonsense():
    assert Policy().is_identity and Policy(erase_area=0.2).is_identity and not Policy(flip=0.5).is_identity
    assert Policy(translate_step=0.1).is_identity and not Policy(translate=0.1, translate_step=0.1).is_identity
