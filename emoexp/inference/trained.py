"""Loads the best model of a run from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoexp.config import best_model, build_model
from emoexp.data.normalisation import Normalisation
from emoexp.inference import predict
from emoexp.models import mish
from emoexp.models.network import Network
from emoexp.runs import files
from emoexp.runs import machine as machines


@dataclass(frozen=True)
class TrainedModel:
    """The best model of a run, on a device and ready for predictions."""

    folder: Path
    spec: dict[str, Any]
    model: Network
    device: torch.device

    def probabilities(self, image_MCHW: np.ndarray, index_N: np.ndarray) -> np.ndarray:
        """Class probabilities N×C (float32) of the rows `index_N` of uint8 images."""
        normalisation = Normalisation(self.spec["mean"], self.spec["std"])
        images = predict.batches(torch.from_numpy(image_MCHW), torch.from_numpy(index_N), normalisation, self.device)
        return predict.probabilities(predict.logits(self.model, images, self.spec["precision"])).astype(np.float32)


def load(run: str, device: str, threads: int | None, cache: str | None, allow: list[str]) -> TrainedModel:
    """The best model of a run folder.

    Raises:
        ValueError: there is no such run, or it has not finished an epoch.
    """
    folder = Path(run)
    if not (folder / "best.pt").is_file():
        other_runs = (
            sorted(path.parent.name for path in folder.parent.glob("*/best.pt"))[:8] if folder.parent.is_dir() else []
        )
        raise ValueError(f"run={run} holds no best.pt; run folders beside it: {', '.join(other_runs) or 'none'}")
    files.refuse_links(folder)
    best = best_model.read(folder / "best.pt", allow)
    torch_device = machines.choose(device)
    machines.prepare(torch_device, threads, best.spec["precision"], deterministic=False)
    mish.prepare(cache)
    try:
        model = build_model.trained_model(best, allow)
    except ValueError as error:
        raise ValueError(f"{folder / 'best.pt'}: {error}") from error
    return TrainedModel(folder, best.spec, model.to(torch_device).to(memory_format=torch.channels_last), torch_device)
