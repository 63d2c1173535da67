"""Groups of linked images against plain loops that lower each number to the smallest one it is linked with."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emoexp.data.groups import connected, same_pixels_or_person


def lowest_member(links: list[tuple[int, int]], size: int) -> list[int]:
    """The smallest member of each thing's group."""
    lowest, before = list(range(size)), []
    while lowest != before:
        before = list(lowest)
        for one, other in links:
            lowest[one] = lowest[other] = min(lowest[one], lowest[other])
    return lowest


def ranks(numbers: list[int]) -> list[int]:
    order = sorted(set(numbers))
    return [order.index(number) for number in numbers]


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=25))
def test_connected_groups_are_numbered_by_their_first_members(links: list[tuple[int, int]]) -> None:
    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    found = connected(ends[:, 0], ends[:, 1], 15)
    assert found.dtype == np.int64 and found.tolist() == ranks(lowest_member(links, 15))


def test_nothing_is_connected_with_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert connected(none, none, 3).tolist() == [0, 1, 2] and connected(none, none, 0).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(-1, 6)), min_size=1, max_size=25))
def test_images_are_linked_by_pixels_and_by_people(images: list[tuple[int, int]]) -> None:
    digest, identity = np.array([f"{pixels:02}".encode() for pixels, _ in images]), np.array([who for _, who in images])
    found = same_pixels_or_person(digest, identity)
    size = range(len(images))
    same = [(i, j) for i in size for j in size if images[i][0] == images[j][0] or images[i][1] == images[j][1] >= 0]
    group = lowest_member(same, len(images))
    smallest = {number: min(images[i][0] for i in size if group[i] == number) for number in group}
    assert found.dtype == np.int64 and found.tolist() == ranks([smallest[number] for number in group])


def test_groups_are_chained_through_pixels_and_people() -> None:
    digest = np.array([b"a", b"a", b"b", b"b", b"c", b"d", b"e"])
    identity = np.array([0, 1, 1, 2, 2, -1, -1])
    assert same_pixels_or_person(digest, identity).tolist() == [0, 0, 0, 0, 0, 1, 2]
    assert same_pixels_or_person(digest, None).tolist() == [0, 0, 1, 1, 2, 3, 4]
