"""Heads: the last layers that an architecture may have as its `classifier`, from features B×F to logits B×C.

Besides `nn.Linear` there are those of this module. All have `in_features` and `out_features` like `nn.Linear`, and all
values that change their logits are in their state dict, except the scale of `CosineClassifier`. Cosines and distances
are computed in float32 also under autocast: bfloat16 has three digits, and a scale of 30 would make its error visible.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_SQUARED_LENGTH = 1e-12  # a vector whose squared length is not above this has no direction


class CosineClassifier(nn.Module):
    """Cosine head: logits scale·cos(h, w_c), without a bias.

    LDAM's head (Cao et al., NeurIPS 2019, arXiv 1906.07413, section 3.2 and the authors' NormedLinear): weights are
    drawn uniformly and scaled to length 1. A feature vector of zeros has no direction: its logits and its gradient
    are 0.

    Raises:
        ValueError: a scale that is not a number above 0.
    """

    def __init__(self, features: int, classes: int, *, scale: float) -> None:
        super().__init__()
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(
                f"head normalised: scale multiplies cosines and is a number above 0, such as 30; it is {scale!r}"
            )
        self.in_features, self.out_features, self.scale = features, classes, float(scale)
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights. The bound of the uniform draw does not matter, because they are scaled to length 1."""
        nn.init.kaiming_uniform_(self.weight)
        with torch.no_grad():
            self.weight.copy_(unit_length(self.weight))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C, from -scale to scale."""
        return self.scale * _inner_products(unit_length(feature_BF), unit_length(self.weight))

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale:g}"


class LearnableWeightScaling(nn.Module):
    """A head with one learnable factor for each class: logits s_c·inner(h)_c, where inner is a head; s starts at 1.

    Learnable weight scaling (LWS): Kang et al., ICLR 2020 (arXiv 1910.09217), section 4, and the authors' code. To
    learn s alone, freeze all other parameters. `scale_C` has one axis, so that weight decay can leave it out, as it
    leaves out biases.
    """

    def __init__(self, inner: "Head") -> None:
        super().__init__()
        self.in_features, self.out_features = sizes(inner)
        self.inner: Head = inner
        self.scale_C = nn.Parameter(_ones_like(inner, self.out_features))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C."""
        return _at_least_float32(self.inner(feature_BF)) * self.scale_C


class AdjustedLogits(nn.Module):
    """A head whose logits are adjusted after training: scale·inner(h)_c + shift_c; at first scale is 1 and shift 0.

    `scale` (no axis) and `shift_C` are buffers: they are saved and move with the model, but are not trained.
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
        return self.scale * _at_least_float32(self.inner(feature_BF)) + self.shift_C


class NearestClassMean(nn.Module):
    """Nearest class mean (NCM): logits ĥ·m_c - ‖m_c‖²/2, where ĥ is the feature scaled to length 1.

    For one image they differ from -‖ĥ - m_c‖²/2 by the same constant in all classes. Kang et al., ICLR 2020 (arXiv
    1910.09217), section 4. m_c is the mean of features of length 1 and therefore shorter than 1; the more a class
    varies, the shorter it is. `mean_CF` is a buffer, zeros at first; nothing here is trained. The logits of one image
    differ by about 1 only, so that probabilities need a temperature (`AdjustedLogits`).
    """

    mean_CF: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.in_features, self.out_features = features, classes
        self.register_buffer("mean_CF", torch.zeros(classes, features))

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Logits B×C."""
        return _inner_products(unit_length(feature_BF), self.mean_CF) - self.mean_CF.square().sum(1) / 2

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


Head = nn.Linear | CosineClassifier | LearnableWeightScaling | AdjustedLogits | NearestClassMean


def reset(head: Head) -> None:
    """Reset a head in place to the state that its constructor gives: weights drawn from torch's global generator,
    factors 1, shifts and class means 0. For cRT (Kang et al., ICLR 2020), which trains the last layer a second time.

    Raises:
        ValueError: a module that is no head.
    """
    sizes(head)  # raises the error
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


def unit_length(vector_NF: Tensor) -> Tensor:
    """Each row scaled to length 1. A row of length up to 1e-6 gives zeros, with gradient 0. float16 and bfloat16 become
    float32."""
    vector_NF = _at_least_float32(vector_NF)
    square_N1 = (vector_NF * vector_NF).sum(1, keepdim=True)
    nonzero_N1 = square_N1 > MIN_SQUARED_LENGTH
    return vector_NF * torch.where(nonzero_N1, square_N1, 1.0).rsqrt() * nonzero_N1


def _inner_products(left_BF: Tensor, right_CF: Tensor) -> Tensor:
    """Inner products B×C, not rounded by autocast. Without autocast, an exported program has no autocast region."""
    device = left_BF.device.type
    if not torch.is_autocast_enabled(device):
        return functional.linear(left_BF, right_CF)
    with torch.autocast(device, enabled=False):
        return functional.linear(left_BF, right_CF)


def _at_least_float32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _ones_like(head: "Head", classes: int) -> Tensor:
    """Ones C on the device, and in the type, of a head."""
    tensor = next(iter(head.state_dict().values()))
    return torch.ones(classes, dtype=tensor.dtype, device=tensor.device)
