"""What every architecture asks of its images."""


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
