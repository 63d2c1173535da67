"""Last layers besides `nn.Linear`: what an architecture's `classifier` may be, from features B×F to logits B×C.

All have `in_features` and `out_features` like `nn.Linear`, keep what decides in their state dict, and compute cosines
and distances in float32 under autocast: logits of bfloat16 have three digits, which a scale of 30 would show.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

TINY = 1e-12  # a vector whose squared length is not above this has no direction


class CosineClassifier(nn.Module):
    """Cosine head: logits scale·cos(h, w_c), without a bias; softmax of them is usable as it is.

    LDAM's head (Cao et al., NeurIPS 2019, arXiv 1906.07413, section 3.2 and the authors' NormedLinear): weights are
    drawn uniformly and brought to length 1. A feature of zeros has no direction: its logits, and what comes back
    through them, are 0.

    Raises:
        ValueError: a scale that is not a number above 0.
    """

    def __init__(self, features: int, classes: int, *, scale: float) -> None:
        super().__init__()
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(
                f"head normalised: scale multiplies cosines and is a number above 0, as 30; it is {scale!r}"
            )
        self.in_features, self.out_features, self.scale = features, classes, float(scale)
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights. The bound of the uniform draw is lost when they are brought to length 1."""
        nn.init.kaiming_uniform_(self.weight)
        with torch.no_grad():
            self.weight.copy_(unit(self.weight))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C, from -scale to scale."""
        return self.scale * _product(unit(feature_BF), unit(self.weight))

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale:g}"


class LearnableWeightScaling(nn.Module):
    """A head with one learnable factor a class: logits s_c·inner(h)_c, the inner bias included; s starts at 1.

    Learnable weight scaling (LWS): Kang et al., ICLR 2020 (arXiv 1910.09217), section 4, and the authors' code. Freeze
    the rest to learn s alone; `scale_C` has one axis, so that weight decay can spare it.
    """

    def __init__(self, inner: "Head") -> None:
        super().__init__()
        self.in_features, self.out_features = sizes(inner)
        self.inner: Head = inner
        self.scale_C = nn.Parameter(_ones_like(inner, self.out_features))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C."""
        return _precise(self.inner(feature_BF)) * self.scale_C


class AdjustedLogits(nn.Module):
    """What a fit after training leaves on a head: logits scale·inner(h) + shift_c; neutral at first.

    `scale` (no axis) and `shift_C` are buffers: they are saved and move with the model, and nothing trains them.
    """

    scale: Tensor
    shift_C: Tensor

    def __init__(self, inner: "Head") -> None:
        super().__init__()
        self.in_features, self.out_features = sizes(inner)
        self.inner: Head = inner
        one_C = _ones_like(inner, self.out_features)
        self.register_buffer("scale", one_C.new_ones(()))
        self.register_buffer("shift_C", torch.zeros_like(one_C))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C."""
        return self.scale * _precise(self.inner(feature_BF)) + self.shift_C


class NearestClassMean(nn.Module):
    """Nearest class mean: logits ĥ·m_c - ‖m_c‖²/2 with ĥ the feature brought to length 1.

    That is -‖ĥ - m_c‖²/2 up to a constant of the image. NCM: Kang et al., ICLR 2020 (arXiv 1910.09217), section 4. The
    means are those of features of length 1 and are themselves shorter, the more the wider a class spreads.
    `mean_CF` is a buffer of zeros at first; nothing here is trained. Logits span about 1, so that probabilities need a
    temperature (`AdjustedLogits`).
    """

    mean_CF: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.in_features, self.out_features = features, classes
        self.register_buffer("mean_CF", torch.zeros(classes, features))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C."""
        return _product(unit(feature_BF), self.mean_CF) - self.mean_CF.square().sum(1) / 2

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


Head = nn.Linear | CosineClassifier | LearnableWeightScaling | AdjustedLogits | NearestClassMean


def reset(head: Head) -> None:
    """Start a head anew in place, as its constructor would: weights drawn through torch's global generator, factors 1,
    shifts and class means 0. For cRT (Kang et al., ICLR 2020), which learns the last layer a second time.

    Raises:
        ValueError: a module that is no head.
    """
    sizes(head)  # refuses what is no head
    with torch.no_grad():
        if isinstance(head, nn.Linear | CosineClassifier):
            head.reset_parameters()
        elif isinstance(head, NearestClassMean):
            head.mean_CF.zero_()
        elif isinstance(head, LearnableWeightScaling):
            head.scale_C.fill_(1)
            reset(head.inner)
        elif isinstance(head, AdjustedLogits):
            head.scale.fill_(1)
            head.shift_C.zero_()
            reset(head.inner)


def sizes(head: nn.Module) -> tuple[int, int]:
    """Features and classes of a head.

    Raises:
        ValueError: a module that is no head.
    """
    if not isinstance(head, Head):
        known = ", ".join(kind.__name__ for kind in Head.__args__)
        raise ValueError(
            f"a last layer is one of {known}; it is {type(head).__name__}. Give the model a classifier of these"
        )
    return head.in_features, head.out_features


def unit(vector_NF: Tensor) -> Tensor:
    """Each row brought to length 1; zeros (a length up to 1e-6) give zeros, with gradient 0. Halves become float32."""
    vector_NF = _precise(vector_NF)
    square_N1 = (vector_NF * vector_NF).sum(1, keepdim=True)
    some_N1 = square_N1 > TINY
    return vector_NF * torch.where(some_N1, square_N1, 1.0).rsqrt() * some_N1


def _product(left_BF: Tensor, right_CF: Tensor) -> Tensor:
    """Inner products B×C, which autocast may not round. Without it an exported program need not know of it."""
    device = left_BF.device.type
    if not torch.is_autocast_enabled(device):
        return functional.linear(left_BF, right_CF)
    with torch.autocast(device, enabled=False):
        return functional.linear(left_BF, right_CF)


def _precise(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _ones_like(head: "Head", classes: int) -> Tensor:
    """Ones C on the device, and in the type, of a head."""
    known = next(iter(head.state_dict().values()))
    return torch.ones(classes, dtype=known.dtype, device=known.device)
