"""Exports a trained model as a program that torch runs without this package."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoexp.models.network import Network
from emoexp.runs import files


class _Program(nn.Module):
    """A model with its normalisation: from raw pixels to probabilities."""

    def __init__(self, model: Network, mean: float, std: float) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """uint8 images to float32 probabilities."""
        image = (image_NCHW.to(torch.float32) * (1 / 255) - self.mean) / self.std
        return torch.softmax(self.model(image).logits_BC, 1)


def export_program(path: Path, model: Network, spec: dict[str, Any]) -> None:
    """Write a model with torch.export, as a program from raw uint8 images N×C×H×W to probabilities.

    `spec` gives class_names, channels, image_size, mean and std. The file also holds emoexp.json with the names of the
    classes and the shape of an image.
    """
    shape = (spec["channels"], spec["image_size"], spec["image_size"])
    image_to_probabilities = _Program(model.cpu().eval(), spec["mean"], spec["std"])
    batch = {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own modules warn of each other
        program = torch.export.export(
            image_to_probabilities, (torch.zeros(2, *shape, dtype=torch.uint8),), dynamic_shapes=(batch,)
        )
        buffer = io.BytesIO()
        description = json.dumps({"class_names": spec["class_names"], "shape": shape})
        torch.export.save(program, buffer, extra_files={"emoexp.json": description})
    files.write_bytes(path, buffer.getvalue())
