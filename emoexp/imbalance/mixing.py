"""Mixing images: two drawn images become one, with labels in the shares in which they stand in it.

Every image of an epoch gets a partner from a second draw. Images are mixed one by one, each by a share of its own; the
loss is the two labels' losses in these shares, each with its own class weight, so that mixing goes with every loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from emoexp import rng
from emoexp.imbalance import sampling

_GRID = 2048  # points of an expectation over the share


@dataclass(frozen=True)
class Mix:
    """How images are mixed. The share of the image itself is drawn from Beta(alpha, beta).

    paste: false, a blend of the two (mixup: Zhang et al., ICLR 2018); true, a box of the partner of that area (CutMix:
    Yun et al., ICCV 2019). probability: of an image being mixed at all. partner: exponent of the class counts by whose
    power partners' classes are drawn, 0 balanced; None: as the images themselves. kappa, tau: Remix (Chou et al., ECCV
    workshops 2020, equation 10) gives the whole label to a class at least kappa times rarer than the other where the
    other has less than tau of the picture; kappa 0: off. edge: share of the run without mixing at either end.
    """

    alpha: float
    beta: float
    paste: bool = False
    probability: float = 1.0
    partner: float | None = None
    kappa: float = 0.0
    tau: float = 0.0
    edge: float = 0.0

    def acts(self, progress: float) -> bool:
        """Whether images are mixed at a point of the run (0..1)."""
        return self.edge <= progress <= 1 - self.edge

    def partners(self, count_C: Tensor, share_C: Tensor) -> Tensor:
        """Class shares of the partners, where the images themselves have `share_C`."""
        return share_C if self.partner is None else sampling.power(count_C, exponent=self.partner)

    def exposure(self, count_C: Tensor, share_C: Tensor) -> Tensor:
        """The share of each class in the labels that training meets, in expectation: float64 C, summing to 1."""
        other_C = self.partners(count_C, share_C)
        u = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
        kept_K = self.quantile(u)
        if self.paste:  # a box's side s = √(1-share), clipped at the border, covers s - s²/4 of a side on average
            side = (1 - kept_K).sqrt()
            kept_K = 1 - (side - side**2 / 4) ** 2
        more = max(self.kappa, 1.0)
        # the label's share knows three cases: the other class is about as frequent, rarer, or more frequent
        own_3, other_3 = torch.tensor([[1, more, 1], [1, 1, more]], dtype=torch.float64)
        share_3 = self.labels(kept_K[:, None], own_3, other_3).mean(0).expand(3)
        ratio_CC = count_C.double()[:, None] / count_C
        kept_CC = share_3[torch.where(ratio_CC >= more, 1, torch.where(ratio_CC <= 1 / more, 2, 0))]
        kept_CC = 1 - self.probability * (1 - kept_CC)
        exposure = share_C * (kept_CC @ other_C) + other_C * (share_C @ (1 - kept_CC))
        return exposure / exposure.sum()

    def quantile(self, u: Tensor) -> Tensor:
        """The share at which a part u of Beta(alpha, beta) lies below."""
        if self.beta == 1:
            return u ** (1 / self.alpha)
        if self.alpha == 1:
            return 1 - (1 - u) ** (1 / self.beta)
        from scipy.special import betaincinv

        return torch.from_numpy(betaincinv(self.alpha, self.beta, u.double().numpy()))

    def labels(self, kept: Tensor, count: Tensor, other: Tensor) -> Tensor:
        """The image's share of the label, given its share of the picture and the counts of the two classes."""
        if not self.kappa:
            return kept
        ratio = count.double() / other
        none = (ratio >= self.kappa) & (kept < self.tau)
        whole = (ratio <= 1 / self.kappa) & (1 - kept < self.tau)
        return torch.where(none, 0.0, torch.where(whole, 1.0, kept))


def none() -> None:
    """Images are not mixed."""


@dataclass(frozen=True)
class Shares:
    """What the mixing of E images takes, a row each: how much of the image is kept in the blend, boxes K×4 (top, left,
    bottom, right in 0..1 of the side, on whole pixels) where the partner is pasted, and the label's share."""

    kept_E: Tensor
    box_EK4: Tensor
    label_E: Tensor

    @property
    def shows(self) -> Tensor:
        """Whether anything of the partner is to be seen: bool E."""
        sides = self.box_EK4[..., 2:] - self.box_EK4[..., :2]
        return (self.kept_E < 1) | (sides.prod(2) > 0).any(1)


def draw(mix: Mix, count_E: Tensor, other_E: Tensor, side: tuple[int, int], *, seed: int, epoch: int) -> Shares:
    """Shares for each of E images, a function of (seed, epoch, place in the epoch).

    count_E, other_E: images of the classes of each image and of its partner. side: height and width in pixels.
    """
    u = rng.uniform(seed, "mix", epoch, torch.arange(len(count_E)), draws=4).double()
    kept_E = torch.where(u[:, 3] < mix.probability, mix.quantile(u[:, 0]), 1.0)
    if not mix.paste:
        return Shares(kept_E.float(), torch.zeros(len(u), 0, 4), mix.labels(kept_E, count_E, other_E).float())
    half_E = (1 - kept_E).sqrt() / 2
    edges = []
    for pixels, centre_E in zip(side, (u[:, 1], u[:, 2]), strict=True):
        edges += [((centre_E + sign * half_E).clamp(0, 1) * pixels).round() / pixels for sign in (-1, 1)]
    top, bottom, left, right = edges
    kept_E = 1 - (bottom - top) * (right - left)
    box_E14 = torch.stack([top, left, bottom, right], 1)[:, None]
    return Shares(torch.ones(len(u)), box_E14.float(), mix.labels(kept_E, count_E, other_E).float())
