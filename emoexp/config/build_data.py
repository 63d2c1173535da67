"""From a configuration to images: read, split, without the leaks and with the long tail that it asks for."""

import logging

from emoexp.config.data import LongTail
from emoexp.config.schema import Experiment, Machine
from emoexp.config.sources import folder_of, read_source
from emoexp.data import leaks, long_tail, near_duplicates
from emoexp.data.dataset import Dataset
from emoexp.training import leaky_protocol

log = logging.getLogger(__name__)


def load_data(experiment: Experiment, machine: Machine) -> Dataset:
    """The images of a configuration, split, with the leaks between the parts and the long tail that it asks for."""
    cache = folder_of(machine.cache)
    source = read_source(experiment.data, experiment.image_size, experiment.channels, cache)
    if experiment.protocol == "leaky":
        copies = experiment.imbalance.copies
        data = leaky_protocol.split(
            source,
            target=copies.build(),
            policy=copies.policy(),
            divide=experiment.split.build,
            seed=experiment.split.seed,
        )
    else:
        data = experiment.split.build(source)
    data = without_leaks(data, experiment.data.leaks, cache)
    return with_long_tail(data, experiment.data.long_tail)  # last: its counts are those that training has


def with_long_tail(data: Dataset, tail: LongTail) -> Dataset:
    """The data with a long tail in the training part."""
    return long_tail.cut(data, profile=tail.profile, factor=tail.factor, seed=tail.seed)


def without_leaks(data: Dataset, policy: str, cache: str | None) -> Dataset:
    """The data as data.leaks wants it. To drop or refuse leaks, near duplicates are searched where nobody has yet."""
    if policy == "warn":
        return data
    if near_duplicates.load(data, cache) is None:
        log.info("searching near duplicates among %d images, which takes a while once", len(data.labels))
    return (leaks.drop if policy == "drop" else leaks.refuse)(data, near_duplicates.find(data, cache).group_N)
