"""Random transformations of images, drawn one for each image and applied to a whole batch at once, on its device.

A transformation is one affine map, one gain and bias, and boxes to erase. Two of them compose into one, so that a
minority copy's own transformation and the augmentation on top of it cost a single resampling.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from emoexp import rng

Pad = Literal["edge", "black"]
PADDING = {"edge": "border", "black": "zeros"}  # as torch calls them


@dataclass(frozen=True)
class Policy:
    """The ranges from which random transformations are drawn. A value of 0 switches its change off.

    flip: probability of mirroring. rotate, shear: at most so many degrees in either direction. translate: at most this
    share of the side, in either direction. scale, contrast: factors from 1 - value to 1 + value. brightness: at most so
    much is added or subtracted, where grey values are 0..1. erase: probability of one erased box, which covers up to
    `erase_area` of the image (random erasing: Zhong et al., AAAI 2020). translate_step: shifts are multiples of this
    share of the side, all equally probable; with 1/side they are whole pixels, which blurs nothing. pad: what comes in
    from outside of the image: "edge" repeats its border, "black" is black.
    """

    flip: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.0
    translate_step: float = 0.0
    pad: Pad = "edge"

    @property
    def is_identity(self) -> bool:
        """Whether every image stays as it is."""
        return self == Policy(erase_area=self.erase_area, translate_step=self.translate_step, pad=self.pad)


@dataclass(frozen=True)
class Transformation:
    """One transformation for each of B images.

    affine_B23: maps output to input coordinates, both -1..1 over the side, as torch's affine_grid takes it.
    gain_B, bias_B: factor and summand of the grey values, which are 0..1. box_BK4: top, left, bottom, right of K boxes
    to erase, as shares of the side (an empty box has bottom = top). pad: as in `Policy`, of all images alike.
    """

    affine_B23: Tensor
    gain_B: Tensor
    bias_B: Tensor
    box_BK4: Tensor
    pad: Pad = "edge"

    def then(self, second: "Transformation") -> "Transformation":
        """This transformation, followed by the second one. Both are one resampling: black, where either of them is."""
        # the maps go from output to input coordinates, so that the second one is applied first
        first, last = _square(self.affine_B23), _square(second.affine_B23)
        return Transformation(
            (first @ last)[:, :2],
            self.gain_B * second.gain_B,
            self.bias_B * second.gain_B + second.bias_B,
            torch.cat([self.box_BK4, second.box_BK4], 1),
            "black" if "black" in (self.pad, second.pad) else "edge",
        )

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> "Transformation":
        """The transformation with a function applied to each of its tensors, such as one that selects rows."""
        tensors = map(function, (self.affine_B23, self.gain_B, self.bias_B, self.box_BK4))
        affine_B23, gain_B, bias_B, box_BK4 = tensors
        return Transformation(affine_B23, gain_B, bias_B, box_BK4, self.pad)

    def where(self, mask_B: Tensor) -> "Transformation":
        """This transformation where the mask is true, the identity elsewhere."""
        identity = torch.eye(2, 3, device=mask_B.device).expand_as(self.affine_B23)
        return Transformation(
            torch.where(mask_B[:, None, None], self.affine_B23, identity),
            torch.where(mask_B, self.gain_B, 1.0),
            torch.where(mask_B, self.bias_B, 0.0),
            torch.where(mask_B[:, None, None], self.box_BK4, 0.0),
            self.pad,
        )


def draw(policy: Policy, seed: int, purpose: str, *keys: int | Tensor) -> Transformation:
    """A random transformation for each element of the integer keys, a function of (seed, purpose, keys) alone."""
    u = rng.uniform(seed, purpose, *keys, draws=12)
    signed = u * 2 - 1
    angle, shear = (signed[:, k] * math.radians(degrees) for k, degrees in ((1, policy.rotate), (2, policy.shear)))
    zoom = 1 / (1 + signed[:, 3] * policy.scale)
    mirror = torch.where(u[:, 0] < policy.flip, -1.0, 1.0)
    cos, sin, slant = angle.cos() * zoom, angle.sin() * zoom, shear.tan()
    shift = _shift(policy, u[:, 4:6]) * 2  # the side is 2 long in affine_grid's coordinates
    row_x = torch.stack([mirror * cos, mirror * (cos * slant - sin), shift[:, 0]], 1)
    row_y = torch.stack([sin, sin * slant + cos, shift[:, 1]], 1)
    contrast = 1 + signed[:, 6] * policy.contrast
    bias = 0.5 * (1 - contrast) + signed[:, 7] * policy.brightness  # a change of contrast leaves mid grey as it is
    return Transformation(torch.stack([row_x, row_y], 1), contrast, bias, _boxes(policy, u[:, 8:12]), policy.pad)


def _shift(policy: Policy, u_B2: Tensor) -> Tensor:
    """Shifts B×2 in shares of the side: any up to `translate`, or the multiples of `translate_step` among them."""
    if policy.translate_step == 0:
        return (u_B2 * 2 - 1) * policy.translate
    max_steps = math.floor(policy.translate / policy.translate_step + 1e-6)
    return ((u_B2 * (2 * max_steps + 1)).floor().clamp(max=2 * max_steps) - max_steps) * policy.translate_step


def _boxes(policy: Policy, u_B4: Tensor) -> Tensor:
    """Boxes B×1×4 of 0.02..erase_area of the image with aspect 1/3..3, inside it, empty with probability 1-erase.

    B×0×4 where the policy never erases, so that `apply` does no work for boxes.
    """
    if policy.erase == 0:
        return u_B4.new_zeros(len(u_B4), 0, 4)
    # one number decides whether a box is erased and how large it is: where u < erase, u/erase is uniform in 0..1
    size = (u_B4[:, 0] / max(policy.erase, 1e-9)).clamp(max=1)
    area = 0.02 + size * max(policy.erase_area - 0.02, 0.0)
    aspect = torch.exp((u_B4[:, 1] * 2 - 1) * math.log(3.0))
    height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    top, left = u_B4[:, 2] * (1 - height), u_B4[:, 3] * (1 - width)
    box = torch.stack([top, left, top + height, left + width], 1)
    return torch.where((u_B4[:, 0] < policy.erase)[:, None], box, 0.0)[:, None]


def _square(affine_B23: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0.0, 1.0], device=affine_B23.device).expand(len(affine_B23), 1, 3)
    return torch.cat([affine_B23, last], 1)


def apply(image_NCHW: Tensor, transformation: Transformation, fill: float) -> Tensor:
    """Transformed images. What comes from outside repeats the border or is black; erased boxes are filled with `fill`.

    Args:
        image_NCHW: float32 in 0..1.
        transformation: one for each image.
        fill: grey value in 0..1 of erased boxes. Training takes the mean of the data, so that a box is 0 after
            normalisation.

    Returns:
        float32 N×C×H×W in 0..1.
    """
    grid_BHW2 = _grid(transformation.affine_B23, *image_NCHW.shape[2:])
    warped = functional.grid_sample(
        image_NCHW, grid_BHW2, padding_mode=PADDING[transformation.pad], align_corners=False
    )
    gain, bias = (value[:, None, None, None] for value in (transformation.gain_B, transformation.bias_B))
    return _erase(warped.mul_(gain).add_(bias).clamp_(0, 1), transformation.box_BK4, fill)


def _grid(affine_B23: Tensor, height: int, width: int) -> Tensor:
    """What torch's affine_grid returns, up to rounding, by one matrix product: several times faster on a CPU, where
    affine_grid was the most expensive part of a batch."""
    source_2BP = affine_B23.reshape(-1, 3) @ _pixels(height, width, affine_B23.device)
    return source_2BP.view(-1, 2, height, width).permute(0, 2, 3, 1)


@cache  # never freed: a recorded step knows it by its place in memory
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """Homogeneous coordinates 3×P of an image's pixels, -1..1 over the side."""
    y = (torch.arange(height, device=device) * 2 + 1) / height - 1
    x = (torch.arange(width, device=device) * 2 + 1) / width - 1
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones_like(x).repeat(height)])


def _erase(image_NCHW: Tensor, box_BK4: Tensor, fill: float) -> Tensor:
    if box_BK4.shape[1] == 0:
        return image_NCHW
    return torch.where(_inside(box_BK4, *image_NCHW.shape[2:]), fill, image_NCHW)


def _inside(box_BK4: Tensor, height: int, width: int) -> Tensor:
    """Whether a pixel's centre lies in one of the boxes: bool B×1×H×W."""
    y = (torch.arange(height, device=box_BK4.device) + 0.5) / height
    x = (torch.arange(width, device=box_BK4.device) + 0.5) / width
    top, left, bottom, right = (edge[..., None] for edge in box_BK4.unbind(2))
    inside = ((y >= top) & (y < bottom))[..., :, None] & ((x >= left) & (x < right))[..., None, :]
    return inside.any(1)[:, None]


def mix(image_NCHW: Tensor, other_NCHW: Tensor, lam_B: Tensor, box_BK4: Tensor) -> Tensor:
    """For each image λ·image + (1-λ)·other; inside the boxes only the other image."""
    mixed = torch.lerp(other_NCHW, image_NCHW, lam_B[:, None, None, None])
    if box_BK4.shape[1] == 0:
        return mixed
    return torch.where(_inside(box_BK4, *image_NCHW.shape[2:]), other_NCHW, mixed)
