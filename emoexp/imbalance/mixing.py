"""Mixing images: two images become one, and so do their labels, as in mixup and CutMix.

Every image of an epoch gets a partner from a second draw. λ (`lam`) is the image's own weight in the mixed image, drawn
for each image anew; the partner has 1-λ. The loss is the sum of the two labels' losses, weighted in the same way (Remix
changes the weights of labels) and each with its own class weight, so that every loss can be used with mixing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from emoexp import rng
from emoexp.imbalance import sampling

_GRID = 2048  # points of the integral over λ in `exposure`


@dataclass(frozen=True)
class Mix:
    """How images are mixed. λ is drawn from Beta(alpha, beta).

    paste: false, the two images are blended, λ·image + (1-λ)·partner (mixup: Zhang et al., ICLR 2018); true, a box of
    the partner whose area is 1-λ is pasted into the image (CutMix: Yun et al., ICCV 2019). probability: of an image
    being mixed at all. partner: partners' classes are drawn in proportion to n_c^partner, 0 balanced; None: in the same
    shares as the images. kappa, tau: Remix (Chou et al., ECCV workshops 2020, equation 10): where one class has at
    least kappa times as many images as the other, and its weight in the mixed image is below tau, its weight in the
    label is 0; kappa 0: off. edge: share of the run without mixing at its beginning, and the same at its end.
    floored_side: pixels of an image's side, where the side of a box and then its half are rounded down to whole pixels,
    as in the authors' code of CutMix and CMO; None: only its edges are rounded.
    """

    alpha: float
    beta: float
    paste: bool = False
    probability: float = 1.0
    partner: float | None = None
    kappa: float = 0.0
    tau: float = 0.0
    edge: float = 0.0
    floored_side: int | None = None

    def is_active(self, progress: float) -> bool:
        """Whether images are mixed at a point of the run (0..1)."""
        return self.edge <= progress <= 1 - self.edge

    def partner_shares(self, count_C: Tensor, share_C: Tensor) -> Tensor:
        """Class shares of the partners' draws, where those of the images are `share_C`."""
        return share_C if self.partner is None else sampling.power(count_C, exponent=self.partner)

    def exposure(self, count_C: Tensor, share_C: Tensor) -> Tensor:
        """The share of each class in the labels that training meets, in expectation: float64 C, summing to 1."""
        other_C = self.partner_shares(count_C, share_C)
        u = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
        lam_K = self.quantile(u)
        if self.paste and self.floored_side is not None:
            lam_K = 1 - _covered(_floored_half(lam_K, self.floored_side), self.floored_side) ** 2
        elif (
            self.paste
        ):  # a box's side s = √(1-λ), clipped at the border, covers s - s²/4 of the image's side on average
            side = (1 - lam_K).sqrt()
            lam_K = 1 - (side - side**2 / 4) ** 2
        unequal = max(self.kappa, 1.0)  # ratio of class counts from which on Remix changes the label
        # so there are three cases: the partner's class is about as frequent, rarer, or more frequent
        own_3, other_3 = torch.tensor([[1, unequal, 1], [1, 1, unequal]], dtype=torch.float64)
        label_lam_3 = self.label_lam(lam_K[:, None], own_3, other_3).mean(0).expand(3)
        ratio_CC = count_C.double()[:, None] / count_C
        label_lam_CC = label_lam_3[torch.where(ratio_CC >= unequal, 1, torch.where(ratio_CC <= 1 / unequal, 2, 0))]
        label_lam_CC = 1 - self.probability * (1 - label_lam_CC)
        exposure = share_C * (label_lam_CC @ other_C) + other_C * (share_C @ (1 - label_lam_CC))
        return exposure / exposure.sum()

    def quantile(self, u: Tensor) -> Tensor:
        """The quantile function of Beta(alpha, beta): λ is below it with probability u."""
        if self.beta == 1:
            return u ** (1 / self.alpha)
        if self.alpha == 1:
            return 1 - (1 - u) ** (1 / self.beta)
        from scipy.special import betaincinv

        return torch.from_numpy(betaincinv(self.alpha, self.beta, u.double().numpy()))

    def label_lam(self, lam: Tensor, count: Tensor, other: Tensor) -> Tensor:
        """The weight of the image's own class in the label, from λ in the image and the counts of the two classes."""
        if not self.kappa:
            return lam
        ratio = count.double() / other
        only_partner = (ratio >= self.kappa) & (lam < self.tau)
        only_own = (ratio <= 1 / self.kappa) & (1 - lam < self.tau)
        return torch.where(only_partner, 0.0, torch.where(only_own, 1.0, lam))


def _floored_half(lam: Tensor, side: int) -> Tensor:
    """Half of a box's side in whole pixels, both rounded down."""
    return ((1 - lam).sqrt() * side).floor().div(2, rounding_mode="floor")


def _covered(half: Tensor, side: int) -> Tensor:
    """The mean share of a side that such a box covers: its centre is any pixel, and the border cuts it."""
    centre_S = torch.arange(side, dtype=torch.float64)
    ends = (centre_S + half[..., None]).clamp(max=side) - (centre_S - half[..., None]).clamp(min=0)
    return ends.mean(-1) / side


def none() -> None:
    """Images are not mixed."""


@dataclass(frozen=True)
class MixParameters:
    """How each of E images is mixed with its partner.

    lam_E: the image's own weight in the blend; 1 where it is not blended. box_EK4: K boxes (top, left, bottom, right in
    0..1 of the side, on whole pixels) where the partner is pasted. label_lam_E: the weight of the image's own class in
    the label.
    """

    lam_E: Tensor
    box_EK4: Tensor
    label_lam_E: Tensor

    @property
    def shows_partner(self) -> Tensor:
        """Whether the mixed image shows anything of the partner: bool E."""
        sides = self.box_EK4[..., 2:] - self.box_EK4[..., :2]
        return (self.lam_E < 1) | (sides.prod(2) > 0).any(1)


def draw(mix: Mix, count_E: Tensor, other_E: Tensor, side: tuple[int, int], *, seed: int, epoch: int) -> MixParameters:
    """Parameters for each of E images, a function of (seed, epoch, position in the epoch).

    count_E, other_E: images of the classes of each image and of its partner. side: height and width in pixels.
    """
    u = rng.uniform(seed, "mix", epoch, torch.arange(len(count_E)), draws=4).double()
    lam_E = torch.where(u[:, 3] < mix.probability, mix.quantile(u[:, 0]), 1.0)
    if not mix.paste:
        return MixParameters(lam_E.float(), torch.zeros(len(u), 0, 4), mix.label_lam(lam_E, count_E, other_E).float())
    half_E = (1 - lam_E).sqrt() / 2  # of the box's side
    edges = []
    for pixels, centre_E in zip(side, (u[:, 1], u[:, 2]), strict=True):
        if mix.floored_side is not None:
            centre_E, half_E = (centre_E * pixels).floor() / pixels, _floored_half(lam_E, pixels) / pixels
        edges += [((centre_E + sign * half_E).clamp(0, 1) * pixels).round() / pixels for sign in (-1, 1)]
    top, bottom, left, right = edges
    lam_E = 1 - (bottom - top) * (right - left)  # less is pasted where the border cuts the box
    box_E14 = torch.stack([top, left, bottom, right], 1)[:, None]
    return MixParameters(torch.ones(len(u)), box_E14.float(), mix.label_lam(lam_E, count_E, other_E).float())
