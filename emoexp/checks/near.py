"""Near duplicates: one picture shifted, mirrored, re-encoded, resized, brightened; found among all pairs.

Two sieves, both of fixed filters, so that what is found of a pair depends on nothing but the two pictures.
1. A picture's middle, 12x12 of 16x16 cells, as its 63 lowest frequencies (DCT; natural pictures hold more in lower
   ones, hence weights that rise with frequency). Every pair is compared, the second picture at nine offsets of one cell
   (up to a twelfth of the side and a half) and mirrored: what falls below SIEVE is no duplicate.
2. Of what is left the normalised cross-correlation of the overlap at 48x48, at the best shift within two pixels, of
   pictures less their large shapes and finest grain (a difference of Gaussians): two bright heads before dark walls
   correlate at 0.95 as they are, and hardly so.

Time grows with the square of the number of pictures, memory with the number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.90  # correlation from which two pictures are taken for one; benchmarks/near.py measures it
SIEVE = 0.84  # of the descriptors: random faces reach it in 1 or 2 pairs of 10,000
FLAT = 3.0  # standard deviation, in grey levels, below which a picture is too flat to be compared
PARTNERS = 64  # pairs that are kept of one picture, the most alike: of thousands of the same picture not all are needed
_CELLS, _MIDDLE, _FREQUENCIES = 16, 12, 8
_SIDE = 48  # of the pictures that are correlated
_REACH = 5  # pixels that one picture may be shifted against the other
_FAINT = 0.5  # grey levels: details fainter than these are noise and match nothing
_GRAIN, _SHAPE = 1.2, 3.0  # pixels: standard deviations of the two Gaussians
_ROWS, _COLUMNS, _PAIRS = 256, 4096, 1024  # held at a time


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures that are nearly the same, each once, in order.

    first, second: int64 P, first < second. similarity: float32 P, correlation of the overlap, at most 1. mirrored:
    bool P. shift: int16 P×2, down and to the right, in pixels of the images, from the first to the (mirrored) second.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray
    shift: np.ndarray


def search(
    image_NCHW: np.ndarray, *, threshold: float = THRESHOLD, told: Callable[[float], None] | None = None
) -> Pairs:
    """Find near duplicates among all pairs of pictures.

    Args:
        image_NCHW: uint8, square, of 1 or 3 channels, of different pixels. Flat pictures match nothing.
        threshold: of the similarity, in 0..1.
        told: is told the share that is done, in 0..1, now and then.

    Raises:
        ValueError: images of another shape, or a threshold outside 0..1.
    """
    if image_NCHW.ndim != 4 or image_NCHW.shape[1] not in (1, 3) or image_NCHW.shape[2] != image_NCHW.shape[3]:
        raise ValueError(f"near duplicates are searched in N×C×S×S images of 1 or 3 channels, not {image_NCHW.shape}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold lies between 0 and 1; it is {threshold}")
    small_NHW, cell_NHW = _reduced(image_NCHW)
    kept_M = torch.nonzero(small_NHW.flatten(1).float().std(1) >= FLAT).flatten() if len(small_NHW) else torch.arange(0)
    first_P, second_P, mirrored_P = _candidates(cell_NHW[kept_M], told or (lambda share: None))
    first_P, second_P = kept_M[first_P], kept_M[second_P]
    similarity_P, shift_P2 = _correlated(small_NHW, first_P, second_P, mirrored_P)
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


def _reduced(image_NCHW: np.ndarray) -> tuple[Tensor, Tensor]:
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


def _descriptors(cell_NHW: Tensor, dy: int, dx: int, mirrored: bool) -> Tensor:
    """The lowest frequencies of a picture's middle, moved by an offset in cells: N×63, of length 1."""
    edge = (_CELLS - _MIDDLE) // 2
    turned = cell_NHW.flip(2) if mirrored else cell_NHW
    middle = turned[:, edge + dy : edge + dy + _MIDDLE, edge + dx : edge + dx + _MIDDLE]
    k = torch.arange(_FREQUENCIES, dtype=torch.float32)
    basis = torch.cos(torch.pi * (torch.arange(_MIDDLE) + 0.5) * k[:, None] / _MIDDLE)
    basis[0] *= 0.5**0.5
    weight = (k[:, None] ** 2 + k**2) ** 0.25
    frequency = ((basis @ middle @ basis.T) * weight).flatten(1)[:, 1:]
    return frequency / frequency.norm(dim=1, keepdim=True).clamp(min=1e-3)


def _candidates(cell_NHW: Tensor, told: Callable[[float], None]) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that pass the first sieve: their indices, int64 P, and whether they are more alike mirrored, bool P."""
    size = len(cell_NHW)
    centre_NF = _descriptors(cell_NHW, 0, 0, mirrored=False)
    variant_VNF = torch.stack(
        [_descriptors(cell_NHW, dy, dx, mirrored) for mirrored in (False, True) for dy, dx in _OFFSETS]
    )
    found = [torch.empty(0, 3, dtype=torch.int64)]
    for start in range(0, size, _ROWS):
        rows_BF = centre_NF[start : start + _ROWS]
        pieces = [_alike(rows_BF, piece_VMF) for piece_VMF in variant_VNF[:, start:].split(_COLUMNS, 1)]
        best_BM, mirrored_BM = (torch.cat(parts, 1) for parts in zip(*pieces, strict=True))
        best_BM[torch.ones(best_BM.shape, dtype=torch.bool).tril()] = -1.0  # each pair once
        row, column = torch.nonzero(_most_alike(best_BM), as_tuple=True)
        found.append(torch.stack([row + start, column + start, mirrored_BM[row, column].long()], 1))
        told(1 - (1 - min(start + _ROWS, size) / size) ** 2)
    first, second, mirrored = torch.cat(found).unbind(1)
    return first, second, mirrored.bool()


def _alike(rows_BF: Tensor, piece_VMF: Tensor) -> tuple[Tensor, Tensor]:
    """How alike rows and columns are in their best variant, B×M, and whether that is a mirrored one."""
    alike_BVM = (rows_BF @ piece_VMF.flatten(0, 1).T).view(len(rows_BF), *piece_VMF.shape[:2])
    plain, mirrored = (half.amax(1) for half in alike_BVM.chunk(2, 1))
    return torch.maximum(plain, mirrored), mirrored > plain


def _most_alike(best_BM: Tensor) -> Tensor:
    """Which of a block's pairs pass, at most PARTNERS of each row: bool B×M."""
    pass_BM = best_BM >= SIEVE
    crowded = torch.nonzero(pass_BM.sum(1) > PARTNERS).flatten()
    for row in crowded.tolist():
        kept = best_BM[row].topk(PARTNERS).indices
        pass_BM[row] = False
        pass_BM[row, kept] = True
    return pass_BM


def _correlated(small_NHW: Tensor, first_P: Tensor, second_P: Tensor, mirrored_P: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation of each pair's details at their best shift, float32 P, and that shift (down, right), int64 P×2."""
    similarity, shift = [torch.empty(0)], [torch.empty(0, 2, dtype=torch.int64)]
    for chosen in torch.arange(len(first_P)).split(_PAIRS):
        one = _details(small_NHW[first_P[chosen]])
        other = small_NHW[second_P[chosen]]
        other = _details(torch.where(mirrored_P[chosen, None, None], other.flip(2), other))
        alike_PK = (_products(one, other) / _energies(one, other)).flatten(1)
        best = alike_PK.max(1)
        similarity.append(best.values)
        shift.append(torch.stack([best.indices // len(_SHIFTS), best.indices % len(_SHIFTS)], 1) - _REACH)
    return torch.cat(similarity), torch.cat(shift)


_SHIFTS = torch.arange(-_REACH, _REACH + 1)


def _details(small_BHW: Tensor) -> Tensor:
    """Pictures less their large shapes and finest grain, which forgives half a pixel; their mean is about 0."""
    return _blurred(small_BHW.float(), _GRAIN) - _blurred(small_BHW.float(), _SHAPE)


def _blurred(image_BHW: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter, the border repeated, as a product with a matrix for rows and one for columns."""
    reach = round(3 * sigma)
    offset = torch.arange(-reach, reach + 1)
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    from_PK = (torch.arange(_SIDE)[:, None] + offset).clamp(0, _SIDE - 1)
    filter_PP = torch.zeros(_SIDE, _SIDE).scatter_add_(1, from_PK, (weight / weight.sum()).expand(_SIDE, -1))
    return filter_PP @ image_BHW @ filter_PP.T


def _products(one_BHW: Tensor, other_BHW: Tensor) -> Tensor:
    """Sum of products where the first lies over the second, moved down and right by each of _SHIFTS: B×K×K."""
    size = (2 * _SIDE, 2 * _SIDE)
    spectrum = torch.fft.rfft2(one_BHW, s=size).conj() * torch.fft.rfft2(other_BHW, s=size)
    return torch.fft.irfft2(spectrum, s=size)[:, _SHIFTS % size[0]][:, :, _SHIFTS % size[1]]


def _energies(one_BHW: Tensor, other_BHW: Tensor) -> Tensor:
    """Root of the product of both sums of squares over the same overlaps: B×K×K."""
    start, end = (-_SHIFTS).clamp(min=0), _SIDE - _SHIFTS.clamp(min=0)
    here, there = _box_sums(one_BHW**2, start, end), _box_sums(other_BHW**2, start + _SHIFTS, end + _SHIFTS)
    return (here * there).clamp(min=0).sqrt().clamp(min=_SIDE * _SIDE * _FAINT**2)


def _box_sums(image_BHW: Tensor, start_K: Tensor, end_K: Tensor) -> Tensor:
    """Sums over boxes from start to end, of rows by columns: B×K×K."""
    total = functional.pad(image_BHW.cumsum(1).cumsum(2), (1, 0, 1, 0))
    rows = total[:, end_K] - total[:, start_K]
    return rows[:, :, end_K] - rows[:, :, start_K]
