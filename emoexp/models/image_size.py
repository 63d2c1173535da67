"""The smallest image that an architecture can process."""


def check_image_size(architecture: str, image_size: int, *, minimum: int) -> None:
    """Check that pooling leaves at least one pixel.

    Raises:
        ValueError: the image is too small for this architecture.
    """
    if image_size < minimum:
        raise ValueError(
            f"architecture {architecture} needs image_size of at least {minimum}; it is {image_size}. "
            f"Choose image_size={minimum} or an architecture that shrinks the image less"
        )
