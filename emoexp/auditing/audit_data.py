"""The data set that an audit examines, with what is known about it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoexp.data.dataset import PARTS, Dataset
from emoexp.data.files import FileInfo
from emoexp.data.near_duplicates import NearDuplicates


@dataclass(frozen=True)
class AuditData:
    """A data set with what is known about it.

    near: its near duplicates, None where they were not searched. facts: of its files, None where images are no files
    (rows of a CSV, drawn images). folder: where figures are written. pictures: how many a figure shows at most.
    """

    dataset: Dataset
    near: NearDuplicates | None
    file_info: FileInfo | None
    folder: Path
    pictures: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.dataset.class_names

    def figure(self, name: str) -> Path:
        """The file of a figure."""
        return self.folder / "figures" / f"{name}.png"

    def caption(self, index: int) -> str:
        """An image's label and part."""
        part = self.dataset.part[index]
        return f"{self.class_names[self.dataset.labels[index]]} · {PARTS[part] if part >= 0 else 'left out'}"

    def sample(self, index_M: np.ndarray, most: int) -> np.ndarray:
        """At most this many of some images, the same ones whatever the order of the files: sorted indices."""
        rank_N = np.argsort(self.dataset.digest, kind="stable").argsort()
        chosen = index_M[np.argsort(rank_N[index_M], kind="stable")][:most]
        return np.sort(chosen)
