"""Near duplicates: one picture shifted, mirrored, re-encoded, resized or brightened; found among all pairs.

There are two steps. Both use fixed filters, so that the result for a pair depends on the two pictures alone.
1. Candidates. A descriptor of each picture is made of the 63 lowest frequencies (DCT) of its middle, 12x12 of 16x16
   cells. The weights of the frequencies rise with frequency, because natural pictures have more energy in low ones.
   All pairs of descriptors are compared, with the second picture moved by up to one cell in each direction (nine
   offsets; one cell is a sixteenth of the side), and mirrored or not. A pair whose similarity is below
   CANDIDATE_SIMILARITY is no near duplicate.
2. Verification. Candidates are compared by normalised cross-correlation of their overlap at 48x48 pixels, after a
   difference of Gaussians has removed large shapes and the finest grain: two different bright heads in front of dark
   walls correlate at 0.95 without this filter, and hardly with it. They are compared at the best shift in whole
   pixels; if the correlation is high enough there, also after alignment in shift, zoom and rotation.

A picture with more than MAX_CANDIDATES candidates among the later pictures keeps only the most similar ones. The
result depends on the order of the images in this case alone.

Time grows with the square of the number of pictures, memory with the number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

VERSION = 1  # of the results: raise it when the search finds other pairs, so that saved results are not used
THRESHOLD = 0.93  # correlation from which two pictures are near duplicates; benchmarks/near.py measures it
CANDIDATE_SIMILARITY = 0.84  # of descriptors; of 10,000 pairs of different faces, 1 or 2 reach it
FLAT = 3.0  # standard deviation, in grey levels, below which a picture is too flat to be compared
MAX_CANDIDATES = 64  # of one picture, the most similar ones: a set may hold thousands of copies of a picture
_CELLS, _MIDDLE, _FREQUENCIES = 16, 12, 8
_SIDE = 48  # pixels a side of the pictures that are correlated
_MAX_SHIFT = 5  # pixels that one picture may be shifted against the other
_NOISE = 0.5  # grey levels: details weaker than this count as noise and match nothing
_FINE_SIGMA, _COARSE_SIGMA = 1.0, 3.0  # pixels: standard deviations of the two Gaussians
_BORDER = 3  # pixels at the edge of the overlap that the filter mixes with pixels outside it
_ALIGN_FROM = 0.6  # a pair with at least this correlation at the best shift is aligned
_ALIGN_STEPS = 3
_ALIGN_LIMITS = (0.1, 0.1, 2.0, 2.0)  # of the alignment: zoom, rotation in radians, pixels down and right
_ROWS, _COLUMNS, _PAIRS = 256, 1024, 256  # that are in memory at a time


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures that are nearly the same, each pair once, sorted by first and then by second.

    first, second: int64 P, first < second. similarity: float32 P, correlation of the overlap, at most 1. mirrored:
    bool P. shift: int16 P×2, down and to the right, in pixels of the images, from the first to the (mirrored) second.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray
    shift: np.ndarray


def search(
    image_NCHW: np.ndarray, *, threshold: float = THRESHOLD, progress: Callable[[float], None] | None = None
) -> Pairs:
    """Find near duplicates among all pairs of pictures.

    Args:
        image_NCHW: uint8, square, of 1 or 3 channels, of different pixels. Flat pictures match nothing.
        threshold: of the similarity, in 0..1.
        progress: called from time to time with the finished share of the search, 0..1.

    Raises:
        ValueError: images of another shape, or a threshold outside 0..1.
    """
    if image_NCHW.ndim != 4 or image_NCHW.shape[1] not in (1, 3) or image_NCHW.shape[2] != image_NCHW.shape[3]:
        raise ValueError(f"near duplicates are searched in N×C×S×S images of 1 or 3 channels, not {image_NCHW.shape}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold lies between 0 and 1; it is {threshold}")
    small_NHW, cell_NHW = _downscale(image_NCHW)
    textured_M = (
        torch.nonzero(small_NHW.flatten(1).float().std(1) >= FLAT).flatten() if len(small_NHW) else torch.arange(0)
    )
    first_P, second_P, mirrored_P = _candidates(cell_NHW[textured_M], progress or (lambda share: None))
    first_P, second_P = textured_M[first_P], textured_M[second_P]
    similarity_P, shift_P2 = _verify(small_NHW, first_P, second_P, mirrored_P)
    near_P = similarity_P >= threshold
    order = np.lexsort((second_P[near_P].numpy(), first_P[near_P].numpy()))
    scale = image_NCHW.shape[2] / _SIDE
    return Pairs(
        first=first_P[near_P].numpy()[order],
        second=second_P[near_P].numpy()[order],
        similarity=similarity_P[near_P].clamp(max=1).numpy()[order],
        mirrored=mirrored_P[near_P].numpy()[order],
        shift=np.round(shift_P2[near_P].numpy()[order] * scale).astype(np.int16),
    )


_OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # cells
_NO_OFFSET = _OFFSETS.index((0, 0))


def _downscale(image_NCHW: np.ndarray) -> tuple[Tensor, Tensor]:
    """Grey pictures of 48x48 (uint8) and of 16x16 cells (float32), by area."""
    small, cells = [torch.empty(0, _SIDE, _SIDE, dtype=torch.uint8)], [torch.empty(0, _CELLS, _CELLS)]
    for start in range(0, len(image_NCHW), _ROWS):
        grey_B1HW = torch.from_numpy(image_NCHW[start : start + _ROWS]).float().mean(1, keepdim=True)
        mode = "area" if grey_B1HW.shape[2] >= _SIDE else "bilinear"
        if grey_B1HW.shape[2] != _SIDE:
            grey_B1HW = functional.interpolate(grey_B1HW, size=(_SIDE, _SIDE), mode=mode)
        small.append(grey_B1HW[:, 0].round().to(torch.uint8))
        cells.append(functional.avg_pool2d(grey_B1HW, _SIDE // _CELLS)[:, 0])
    return torch.cat(small), torch.cat(cells)


def _descriptors(cell_NHW: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """The lowest frequencies of a picture's middle, moved by an offset in cells, together of length 1.

    N×31 of functions that are even from left to right, and N×32 of odd ones, which change sign in a mirrored picture.
    """
    edge = (_CELLS - _MIDDLE) // 2
    middle = cell_NHW[:, edge + dy : edge + dy + _MIDDLE, edge + dx : edge + dx + _MIDDLE]
    k = torch.arange(_FREQUENCIES, dtype=torch.float32)
    basis = torch.cos(torch.pi * (torch.arange(_MIDDLE) + 0.5) * k[:, None] / _MIDDLE)
    basis[0] *= 0.5**0.5
    weight = (k[:, None] ** 2 + k**2) ** 0.25
    frequency = (basis @ middle @ basis.T) * weight
    frequency = frequency / frequency.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-3)
    return frequency[:, :, 0::2].flatten(1)[:, 1:], frequency[:, :, 1::2].flatten(1)


def _candidates(cell_NHW: Tensor, progress: Callable[[float], None]) -> tuple[Tensor, Tensor, Tensor]:
    """Candidate pairs: their indices, int64 P, and whether they are more similar mirrored, bool P."""
    size = len(cell_NHW)
    even_VNF, odd_VNF = map(torch.stack, zip(*(_descriptors(cell_NHW, dy, dx) for dy, dx in _OFFSETS), strict=True))
    candidates, buffer = [torch.empty(0, 3, dtype=torch.int64)], torch.empty(min(_ROWS, size), size)
    for start in range(0, size, _ROWS):
        end = min(start + _ROWS, size)
        row_descriptors = even_VNF[_NO_OFFSET, start:end], odd_VNF[_NO_OFFSET, start:end]
        best_BM = _similarity(
            *row_descriptors, even_VNF[:, start:], odd_VNF[:, start:], buffer[: end - start, : size - start]
        )
        best_BM[:, : end - start].masked_fill_(
            torch.ones(end - start, end - start).tril().bool(), -1.0
        )  # each pair once
        row, column = torch.nonzero(_most_similar(best_BM), as_tuple=True)
        # A mirrored picture moved by (dy, dx) is the picture moved by (dy, -dx) and then mirrored; _OFFSETS has both.
        even_VP = (even_VNF[:, column + start] * row_descriptors[0][row]).sum(2)
        odd_VP = (odd_VNF[:, column + start] * row_descriptors[1][row]).sum(2)
        mirrored = (even_VP - odd_VP).amax(0) > (even_VP + odd_VP).amax(0)
        candidates.append(torch.stack([row + start, column + start, mirrored.long()], 1))
        progress(1 - (1 - end / size) ** 2)
    first, second, mirrored = torch.cat(candidates).unbind(1)
    return first, second, mirrored.bool()


def _similarity(even_BF: Tensor, odd_BF: Tensor, even_VMF: Tensor, odd_VMF: Tensor, best_BM: Tensor) -> Tensor:
    """Similarity of B rows and M columns at the best offset, mirrored or not. It is written into best_BM."""
    buffer = torch.empty(len(even_BF) * _COLUMNS)  # allocated once: new memory costs more time than the products
    for start in range(0, even_VMF.shape[1], _COLUMNS):
        best_BC = best_BM[:, start : start + _COLUMNS].fill_(-1.0)
        similarity_BC = buffer[: best_BC.numel()].view(best_BC.shape)
        for even_MF, odd_MF in zip(even_VMF, odd_VMF, strict=True):
            columns = slice(start, start + best_BC.shape[1])
            torch.mm(odd_BF, odd_MF[columns].T, out=similarity_BC).abs_().addmm_(even_BF, even_MF[columns].T)
            torch.maximum(best_BC, similarity_BC, out=best_BC)
    return best_BM


def _most_similar(best_BM: Tensor) -> Tensor:
    """Which of a block's pairs are candidates, at most PARTNERS of each row: bool B×M."""
    candidate_BM = best_BM >= CANDIDATE_SIMILARITY
    crowded = torch.nonzero(candidate_BM.sum(1) > MAX_CANDIDATES).flatten()
    for row in crowded.tolist():
        top = best_BM[row].topk(MAX_CANDIDATES).indices
        candidate_BM[row] = False
        candidate_BM[row, top] = True
    return candidate_BM


def _verify(small_NHW: Tensor, first_P: Tensor, second_P: Tensor, mirrored_P: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of each candidate after filter and alignment, float32 P, and its shift (down, right), int64 P×2."""
    similarity, shift = [torch.empty(0)], [torch.empty(0, 2, dtype=torch.int64)]
    for start in range(0, len(first_P), _PAIRS):
        chosen = slice(start, start + _PAIRS)
        one = _difference_of_gaussians(small_NHW[first_P[chosen]])
        other = small_NHW[second_P[chosen]]
        other = _difference_of_gaussians(torch.where(mirrored_P[chosen, None, None], other.flip(2), other))
        best_B = (_cross_correlations(one, other) / _norms(one, other)).flatten(1).argmax(1)
        shift_B2 = torch.stack([best_B // len(_SHIFTS), best_B % len(_SHIFTS)], 1) - _MAX_SHIFT
        similarity.append(_align(one, other, shift_B2))
        shift.append(shift_B2)
    return torch.cat(similarity), torch.cat(shift)


def _align(one_BHW: Tensor, other_BHW: Tensor, shift_B2: Tensor) -> Tensor:
    """The best correlation over the overlap, at the shift and after each step of the alignment: B.

    A step is one of Gauss-Newton in shift, zoom and rotation. The gradient is that of the first picture, which stays
    the same in all steps (the inverse compositional algorithm of Baker and Matthews, IJCV 2004). Pairs below
    _ALIGN_FROM at the shift are not aligned.
    """
    inside_BHW = _overlap(shift_B2)
    warp_B4 = functional.pad(shift_B2.float(), (2, 0))
    start_B = _correlation(one_BHW, _warp(other_BHW, warp_B4), inside_BHW)[0]
    align_index = torch.nonzero(start_B >= _ALIGN_FROM).flatten()
    if len(align_index) == 0:
        return start_B
    one, other, inside, warp = (tensor[align_index] for tensor in (one_BHW, other_BHW, inside_BHW, warp_B4))
    descent_B4P = _steepest_descent(one, inside)
    hessian_B44 = descent_B4P @ descent_B4P.mT
    hessian_B44 = hessian_B44 + torch.diag_embed(hessian_B44.diagonal(dim1=1, dim2=2) * 1e-3 + 1e-3)
    low, high = (warp + sign * torch.tensor(_ALIGN_LIMITS) for sign in (-1, 1))
    best = start_B[align_index]
    for _ in range(_ALIGN_STEPS):
        _, first_BP, second_BP = _correlation(one, _warp(other, warp), inside)
        gain = (first_BP * second_BP).sum(1) / (second_BP * second_BP).sum(1).clamp(min=1e-6)
        residual_B4 = descent_B4P @ (second_BP * gain[:, None] - first_BP)[:, :, None]
        warp = (warp - torch.linalg.solve(hessian_B44, residual_B4)[:, :, 0]).clamp(low, high)
        best = torch.maximum(best, _correlation(one, _warp(other, warp), inside)[0])
    return start_B.index_copy(0, align_index, best)


def _overlap(shift_B2: Tensor) -> Tensor:
    """1 where the second picture covers a pixel of the first, without a border of _BORDER, else 0: float32 B×H×W."""
    position = torch.arange(_SIDE)
    covered_B2S = (position >= (-shift_B2).clamp(min=0)[:, :, None] + _BORDER) & (
        position < _SIDE - _BORDER - shift_B2.clamp(min=0)[:, :, None]
    )
    return (covered_B2S[:, 0, :, None] & covered_B2S[:, 1, None]).float()


_PIXEL_OFFSETS = torch.arange(_SIDE) - (_SIDE - 1) / 2


def _warp(image_BHW: Tensor, warp_B4: Tensor) -> Tensor:
    """Pictures as seen from the first one, by (zoom - 1, rotation in radians, down, right)."""
    zoom, rotation, down, right = warp_B4.unbind(1)
    half = _SIDE / 2
    rows = [torch.stack([1 + zoom, -rotation, right / half], 1), torch.stack([rotation, 1 + zoom, down / half], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [len(image_BHW), 1, _SIDE, _SIDE], align_corners=False)
    return functional.grid_sample(image_BHW[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _steepest_descent(image_BHW: Tensor, inside_BHW: Tensor) -> Tensor:
    """Steepest-descent images of Baker and Matthews: the change of each pixel with zoom, rotation, shift down and shift
    right, less its mean: B×4×P."""
    down, right = torch.gradient(image_BHW, dim=(1, 2))
    y, x = _PIXEL_OFFSETS[:, None], _PIXEL_OFFSETS
    descent_B4HW = torch.stack([right * x + down * y, down * x - right * y, down, right], 1)
    return _subtract_mean(descent_B4HW, inside_BHW[:, None])


def _subtract_mean(image: Tensor, inside: Tensor) -> Tensor:
    """Pixels inside less their mean, 0 outside; height and width become one dimension."""
    mean = (image * inside).sum((-2, -1), keepdim=True) / inside.sum((-2, -1), keepdim=True)
    return ((image - mean) * inside).flatten(-2)


def _correlation(one_BHW: Tensor, other_BHW: Tensor, inside_BHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised cross-correlation inside, B, and both pictures there less their means, B×P."""
    one, other = _subtract_mean(one_BHW, inside_BHW), _subtract_mean(other_BHW, inside_BHW)
    least_B = inside_BHW.sum((1, 2)) * _NOISE**2
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp(min=least_B), one, other


_SHIFTS = torch.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)


def _difference_of_gaussians(small_BHW: Tensor) -> Tensor:
    """Pictures without large shapes and finest grain, of mean about 0. A shift of half a pixel changes them little."""
    return _gaussian_blur(small_BHW.float(), _FINE_SIGMA) - _gaussian_blur(small_BHW.float(), _COARSE_SIGMA)


def _gaussian_blur(image_BHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter, computed as two matrix products, for rows and for columns; edge pixels are repeated."""
    radius = round(3 * sigma)
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    from_PK = (torch.arange(_SIDE)[:, None] + offset).clamp(0, _SIDE - 1)
    filter_PP = torch.zeros(_SIDE, _SIDE).scatter_add_(1, from_PK, (weight / weight.sum()).expand(_SIDE, -1))
    return filter_PP @ image_BHW @ filter_PP.T


def _cross_correlations(one_BHW: Tensor, other_BHW: Tensor) -> Tensor:
    """Sum of products over the overlap, with the second picture moved down and right by each of _SHIFTS: B×K×K."""
    size = (2 * _SIDE, 2 * _SIDE)
    spectrum = torch.fft.rfft2(one_BHW, s=size).conj() * torch.fft.rfft2(other_BHW, s=size)
    return torch.fft.irfft2(spectrum, s=size)[:, _SHIFTS % size[0]][:, :, _SHIFTS % size[1]]


def _norms(one_BHW: Tensor, other_BHW: Tensor) -> Tensor:
    """Product of the L2 norms of both pictures over the overlap, for each of the same shifts: B×K×K."""
    start, end = (-_SHIFTS).clamp(min=0), _SIDE - _SHIFTS.clamp(min=0)
    first_BKK, second_BKK = _box_sums(one_BHW**2, start, end), _box_sums(other_BHW**2, start + _SHIFTS, end + _SHIFTS)
    return (first_BKK * second_BKK).clamp(min=0).sqrt().clamp(min=_SIDE * _SIDE * _NOISE**2)


def _box_sums(image_BHW: Tensor, start_K: Tensor, end_K: Tensor) -> Tensor:
    """Sums over all boxes of rows start_K..end_K and columns start_K..end_K: B×K×K."""
    total = functional.pad(image_BHW.cumsum(1).cumsum(2), (1, 0, 1, 0))
    rows = total[:, end_K] - total[:, start_K]
    return rows[:, :, end_K] - rows[:, :, start_K]
