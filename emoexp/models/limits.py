"""What every architecture asks of its parameters."""

from collections.abc import Sequence


def check_sizes(where: str, **sizes: int | Sequence[int]) -> None:
    """Counts of channels, units and classes must be whole numbers from 1 on; lists of them not empty.

    Raises:
        ValueError: one is not.
    """
    for key, value in sizes.items():
        entries = list(value) if isinstance(value, Sequence) else [value]
        if not entries or any(not isinstance(entry, int) or isinstance(entry, bool) or entry < 1 for entry in entries):
            raise ValueError(f"architecture {where}: {key} takes whole numbers from 1 on, not {value!r}")


def check_share(where: str, **shares: float) -> None:
    """Probabilities of dropping must lie from 0 to below 1.

    Raises:
        ValueError: one does not.
    """
    for key, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"architecture {where}: {key} lies from 0 to below 1; it is {value}")


def check_image_size(where: str, image_size: int, *, least: int) -> None:
    """Pooling must leave at least one pixel.

    Raises:
        ValueError: the image is too small for this architecture.
    """
    if image_size < least:
        raise ValueError(
            f"architecture {where} needs image_size of at least {least}; it is {image_size}. "
            f"Choose image_size={least} or an architecture that shrinks the image less"
        )
