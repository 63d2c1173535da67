"""The data set that an audit examines, with its near duplicates and file headers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoexp.data.dataset import PARTS, Dataset
from emoexp.data.files import FileInfo
from emoexp.data.near_duplicates import NearDuplicates


@dataclass(frozen=True)
class AuditData:
    """A data set with its near duplicates and file headers.

    near: near duplicates, None if they were not searched. file_info: headers of the image files, None if images are no
    files (rows of a CSV, drawn images). folder: where figures are written. pictures: maximum number in a figure.
    """

    dataset: Dataset
    near: NearDuplicates | None
    file_info: FileInfo | None
    folder: Path
    pictures: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.class_names

    def figure(self, name: str) -> Path:
        """Path of the file of a figure."""
        return self.folder / "figures" / f"{name}.png"

    def caption(self, index: int) -> str:
        """An image's label and part."""
        part = self.dataset.part[index]
        return f"{self.class_names[self.dataset.labels[index]]} · {PARTS[part] if part >= 0 else 'left out'}"

    def sample(self, index_M: np.ndarray, limit: int) -> np.ndarray:
        """Sorted indices of at most `limit` of these images. The choice does not depend on the order of the files."""
        rank_N = np.argsort(self.dataset.digest, kind="stable").argsort()
        chosen = index_M[np.argsort(rank_N[index_M], kind="stable")][:limit]
        return np.sort(chosen)
