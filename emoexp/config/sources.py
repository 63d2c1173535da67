"""Reads the images that an option of `data` names, and tells them apart by their content."""

import dataclasses
from pathlib import Path

from emoexp.config.data import Brought, DataSource
from emoexp.config.schema import Experiment
from emoexp.data.dataset import Source

CONTENT_DIGITS = 12  # of the hash of the images, as data.content holds it


def read_source(option: DataSource, image_size: int, channels: int, cache: str | None) -> Source:
    """The images of an option of `data`.

    Raises:
        ValueError: what its reader raises, and where the images are not those that `data.content` names.
    """
    source = option.build(image_size=image_size, channels=channels, cache=cache)
    content = source.images_hash[:CONTENT_DIGITS]
    if isinstance(option, Brought) and option.content not in (None, content):
        raise ValueError(
            f"data.content={option.content} names other images: those that data={option.name} finds have the content "
            f"{content}, at image_size={image_size} and channels={channels}. Give the path of the images that are "
            "meant with data.root, or leave data.content out"
        )
    return source


def identified(experiment: Experiment, source: Source) -> Experiment:
    """The experiment with the content of its images, which is part of what a run is. Drawn images need none."""
    if not isinstance(experiment.data, Brought):
        return experiment
    return dataclasses.replace(experiment, data=experiment.data.identified(source.images_hash[:CONTENT_DIGITS]))


def folder_of(cache: str | None) -> str | None:
    """A folder of the configuration as an absolute one."""
    return str(Path(cache).expanduser()) if cache else None
