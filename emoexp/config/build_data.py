"""From a configuration to images: read, split, without the leaks and with the long tail that it asks for."""

import logging
from functools import partial
from pathlib import Path

from emoexp.config import build
from emoexp.config.build_strategy import copies_target
from emoexp.config.schema import Experiment, Machine, Node
from emoexp.data import leaks, long_tail, near_duplicates
from emoexp.data.dataset import Dataset, Source
from emoexp.training import leaky_protocol

log = logging.getLogger(__name__)
NO_TRANSFORM = {"_target_": "emoexp.training.augment.Policy"}


def load_data(experiment: Experiment, place: Machine) -> Dataset:
    """The images of a configuration, split, with the leaks between the parts and the long tail that it asks for."""
    cache = folder_of(place.cache)
    source = read(experiment.data, place.allow, experiment.image_size, experiment.channels, cache)
    divide = partial(build.instantiate, experiment.split, place.allow)
    if experiment.protocol == "leaky":
        data: Dataset = leaky_protocol.split(
            source,
            target=build.instantiate(copies_target(experiment.imbalance["copies"]), place.allow),
            policy=build.instantiate(experiment.imbalance["copies"].get("transform", NO_TRANSFORM), place.allow),
            divide=lambda source: divide(source=source),
            seed=experiment.split["seed"],
        )
    else:
        data = divide(source=source)
    data = without_leaks(data, experiment.data.get("leaks", "warn"), cache)
    return with_long_tail(data, experiment.data)  # last: its counts are those that training has


def read(node: Node, allow: list[str], image_size: int, channels: int, cache: str | None) -> Source:
    """The images of a data source's configuration, without parts of our own."""
    keys = {key: value for key, value in node.items() if key not in ("long_tail", "leaks")}
    source: Source = build.instantiate(keys, allow, image_size=image_size, channels=channels, cache=cache)
    return source


def folder_of(cache: str | None) -> str | None:
    """A folder of the configuration as an absolute one."""
    return str(Path(cache).expanduser()) if cache else None


def with_long_tail(data: Dataset, node: Node) -> Dataset:
    """The data with the long tail that its configuration asks for in the training part."""
    asked = {"profile": "none", "factor": 1.0, "seed": 0} | (node.get("long_tail") or {})
    return long_tail.cut(data, profile=asked["profile"], factor=asked["factor"], seed=asked["seed"])


def without_leaks(data: Dataset, policy: str, cache: str | None) -> Dataset:
    """The data as data.leaks wants it. To drop or refuse leaks, near duplicates are searched where nobody has yet."""
    if policy not in leaks.POLICIES:
        raise ValueError(f"data.leaks is one of {', '.join(leaks.POLICIES)}; it is {policy}")
    if policy == "warn":
        return data
    if near_duplicates.load(data, cache) is None:
        log.info("searching near duplicates among %d images, which takes a while once", len(data.labels))
    return (leaks.drop if policy == "drop" else leaks.refuse)(data, near_duplicates.find(data, cache).group_N)
