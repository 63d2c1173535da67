"""Near duplicates: planted ones of each kind are found, different pictures are not, and order changes nothing."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from emoexp.data import groups, near_search


def picture(number: int, side: int = 48) -> np.ndarray:
    """A picture of its own: blotches of several sizes, uint8."""
    rng = np.random.default_rng(number)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n)).astype(np.uint8)).resize((side, side), 3), float)
        for n in (4, 8, 14)
    ]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


def stacked(pictures: list[np.ndarray]) -> np.ndarray:
    return np.stack(pictures)[:, None]


CROWD = [picture(number) for number in range(60)]


def moved(pixels: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """A picture moved down and right, its border repeated."""
    wide = np.pad(pixels, 8, mode="edge")
    return wide[8 - dy : 8 - dy + len(pixels), 8 - dx : 8 - dx + len(pixels)]


def encoded(pixels: np.ndarray, kind: str) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=30)
    return np.asarray(Image.open(buffer).convert("L"))


NOISE = np.random.default_rng(5).normal(0, 8, (48, 48))
KINDS = {
    "moved": lambda pixels: moved(pixels, 4, -3),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "JPEG": lambda pixels: encoded(pixels, "JPEG"),
    "WebP": lambda pixels: encoded(pixels, "WEBP"),
    "brighter": lambda pixels: np.clip(pixels * 1.2 + 20, 0, 255).astype(np.uint8),
    "darker": lambda pixels: np.clip(pixels * 0.7 - 10, 0, 255).astype(np.uint8),
    "flatter": lambda pixels: (127 + (pixels - 127.0) * 0.7).astype(np.uint8),
    "resized": lambda pixels: np.asarray(Image.fromarray(pixels).resize((24, 24)).resize((48, 48))),
    "blurred": lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))),
    "noisy": lambda pixels: np.clip(pixels + NOISE, 0, 255).astype(np.uint8),
    "mirrored, then moved": lambda pixels: moved(pixels[:, ::-1], -2, 2),
    "moved, then JPEG": lambda pixels: encoded(moved(pixels, 3, 3), "JPEG"),
    "brighter, then mirrored": lambda pixels: np.clip(pixels[:, ::-1] + 40.0, 0, 255).astype(np.uint8),
}


def test_different_pictures_are_no_duplicates():
    found = near_search.search(stacked(CROWD))
    assert len(found.first) == 0 and found.shift.shape == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_duplicate_is_found_and_nothing_else(kind):
    planted = [KINDS[kind](CROWD[index]) for index in (3, 17, 44)]
    found = near_search.search(stacked(CROWD + planted))
    assert list(zip(found.first, found.second, strict=True)) == [(3, 60), (17, 61), (44, 62)]
    assert (found.mirrored == ("mirrored" in kind)).all() and (found.similarity >= near_search.THRESHOLD).all()


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (4, 0), (0, -4), (-3, 2), (1, 4)])
@pytest.mark.parametrize("side", [48, 96])
def test_the_shift_is_told_in_pixels_of_the_images(dy, dx, side):
    pixels = picture(7, side)
    scale = side // 48
    found = near_search.search(
        stacked([pixels, np.clip(moved(pixels, dy * scale, dx * scale) + 3.0, 0, 255).astype(np.uint8)])
    )
    assert found.shift.tolist() == [[dy * scale, dx * scale]] and not found.mirrored.any()


@pytest.mark.parametrize(("side", "channels"), [(20, 1), (48, 3), (200, 1), (64, 3)])
def test_any_size_and_colour(side, channels):
    made = [picture(number, side) for number in range(12)]
    made.append(np.clip(made[5][:, ::-1] + 15.0, 0, 255).astype(np.uint8))
    images = np.repeat(stacked(made), channels, 1)
    found = near_search.search(images)
    assert (found.first.tolist(), found.second.tolist(), found.mirrored.tolist()) == ([5], [12], [True])


@pytest.mark.parametrize("size", [0, 1, 2])
def test_few_pictures(size):
    assert len(near_search.search(stacked(CROWD)[:size]).first) == 0


def test_flat_pictures_match_nothing():
    flat = [np.full((48, 48), tone, np.uint8) for tone in range(40, 60)]
    faint = [tone + (np.arange(48) % 2).astype(np.uint8)[None].repeat(48, 0) for tone in flat]
    assert len(near_search.search(stacked(CROWD[:5] + flat + faint)).first) == 0


def test_order_changes_nothing():
    images = stacked(CROWD + [KINDS[kind](CROWD[place]) for place, kind in enumerate(KINDS)])
    order = np.random.default_rng(1).permutation(len(images))
    one, other = near_search.search(images), near_search.search(images[order])
    pairs = {frozenset(pair) for pair in zip(one.first.tolist(), one.second.tolist(), strict=True)}
    again = {frozenset(order[[a, b]].tolist()) for a, b in zip(other.first, other.second, strict=True)}
    assert pairs == again and len(pairs) == len(KINDS)
    assert np.array_equal(near_search.search(images).similarity, one.similarity)


def test_the_correlation_is_that_of_a_naive_count():
    """At every shift, over the overlap, written out with loops."""
    torch = near_search.torch
    one, other = (near_search._difference_of_gaussians(torch.from_numpy(CROWD[k])[None]) for k in (0, 1))
    fast = (near_search._cross_correlations(one, other) / near_search._norms(one, other))[0]
    for row, dy in enumerate(range(-5, 6)):
        for column, dx in enumerate(range(-5, 6)):
            a = one[0, max(-dy, 0) : 48 - max(dy, 0), max(-dx, 0) : 48 - max(dx, 0)]
            b = other[0, max(dy, 0) : 48 + min(dy, 0), max(dx, 0) : 48 + min(dx, 0)]
            assert float(fast[row, column]) == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), abs=1e-4)


def test_the_filter_is_a_gaussian():
    from scipy.ndimage import gaussian_filter

    ours = near_search._gaussian_blur(near_search.torch.from_numpy(CROWD[2])[None].float(), 3.0)[0].numpy()
    theirs = gaussian_filter(CROWD[2].astype(float), 3.0, mode="nearest", radius=9)
    assert np.abs(ours - theirs).max() < 1e-3


def test_thousands_of_one_picture_stay_bounded(monkeypatch):
    monkeypatch.setattr(near_search, "MAX_CANDIDATES", 8)
    rng = np.random.default_rng(0)
    same = [np.clip(CROWD[0] + rng.normal(0, 4, (48, 48)), 0, 255).astype(np.uint8) for _ in range(150)]
    found = near_search.search(stacked(same))
    assert len(found.first) <= 150 * 8 and groups.connected(found.first, found.second, 150).max() == 0


@pytest.mark.parametrize(
    ("shape", "threshold", "why"),
    [((3, 2, 48, 48), 0.9, "1 or 3 channels"), ((3, 1, 48, 40), 0.9, "S×S"), ((3, 1, 48, 48), 1.5, "threshold lies")],
)
def test_bad_input_is_named(shape, threshold, why):
    with pytest.raises(ValueError, match=why):
        near_search.search(np.zeros(shape, np.uint8), threshold=threshold)


def test_progress_is_reported():
    shares: list[float] = []
    near_search.search(stacked(CROWD), progress=shares.append)
    assert shares[-1] == 1 and shares == sorted(shares)


def warped(pixels: np.ndarray, zoom: float, degrees: float) -> np.ndarray:
    """Zoomed and rotated about the middle, the border repeated."""
    cos, sin = np.cos(np.deg2rad(degrees)) / zoom, np.sin(np.deg2rad(degrees)) / zoom
    wide = Image.fromarray(np.pad(pixels, 8, mode="edge"))
    middle = wide.size[0] / 2
    matrix = (cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - sin - cos))
    return np.asarray(wide.transform(wide.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))[8:-8, 8:-8]


@pytest.mark.parametrize(("zoom", "degrees"), [(1.05, 0), (0.95, 0), (1, 5), (1, -5), (1.03, 3)])
def test_a_zoomed_or_rotated_one_is_found(zoom, degrees):
    planted = [warped(CROWD[index], zoom, degrees) for index in (3, 17)]
    found = near_search.search(stacked(CROWD + planted))
    assert list(zip(found.first, found.second, strict=True)) == [(3, 60), (17, 61)]


@pytest.mark.parametrize("tone", [0, 255])
def test_what_comes_in_at_the_border_does_not_matter(tone):
    shifted = moved(CROWD[3], 4, 4).copy()
    shifted[:4], shifted[:, :4] = tone, tone
    found = near_search.search(stacked(CROWD + [shifted]))
    assert (found.first.tolist(), found.second.tolist(), found.shift.tolist()) == ([3], [60], [[4, 4]])


def test_the_first_sieve_is_the_best_of_all_offsets_and_mirrored(monkeypatch):
    """Worked out one descriptor at a time, each mirrored picture mirrored first, in blocks that end unevenly."""
    monkeypatch.setattr(near_search, "_ROWS", 7)
    monkeypatch.setattr(near_search, "_COLUMNS", 11)
    monkeypatch.setattr(near_search, "CANDIDATE_SIMILARITY", 0.3)
    cells = near_search._downscale(stacked(CROWD))[1]
    whole = [
        [near_search.torch.cat(near_search._descriptors(turned, *o), 1) for o in near_search._OFFSETS]
        for turned in (cells, cells.flip(2))
    ]
    best = near_search.torch.stack(
        [near_search.torch.stack([whole[0][near_search._NO_OFFSET] @ d.T for d in half]).amax(0) for half in whole]
    )
    expected = {
        (i, j, bool(best[1, i, j] > best[0, i, j])) for i, j in (best.amax(0) >= 0.3).nonzero().tolist() if i < j
    }
    found = near_search._candidates(cells, lambda share: None)
    assert set(zip(*(each.tolist() for each in found), strict=True)) == expected and len(expected) > 20
