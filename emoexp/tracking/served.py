"""Predicts with a logged model: from raw images to probabilities.

A copy of this file is stored with the model as its code. So it needs only torch and numpy, not emoexp.
"""

import json
from typing import Any

import numpy as np

DESCRIPTION = "emoexp.json"  # an extra file in the program: {"class_names": [...], "shape": [C, H, W]}
BATCH = 512  # images at a time, which limits the memory of a large call


class Classifier:
    """Probabilities of emotions for uint8 images of the training's size, channels first.

    Attributes: class_names (the order of the columns), shape (channels, height, width).
    """

    def __init__(self, program: Any, class_names: list[str], shape: tuple[int, int, int]) -> None:
        self._program = program
        self.class_names = class_names
        self.shape = shape

    def predict(self, image_NCHW: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Probabilities, float32 N x C, of images uint8 N,C,H,W; N,H,W will do where the training was grey.

        Raises ValueError for other shapes, and for numbers that are not whole or not within 0..255.
        """
        import torch

        image_NCHW = _checked(np.asarray(image_NCHW), self.shape)
        parts = [np.empty((0, len(self.class_names)), np.float32)]
        with torch.no_grad():
            for start in range(0, len(image_NCHW), BATCH):
                batch = torch.from_numpy(np.ascontiguousarray(image_NCHW[start : start + BATCH]))
                parts.append(self._program(batch).numpy())
        return np.concatenate(parts)

    def get_raw_model(self) -> "Classifier":
        """The classifier itself, which is less strict than the signature (N,H,W; other kinds of integers).

        It is what `mlflow.pyfunc.load_model(...).get_raw_model()` returns.
        """
        return self


def _checked(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if image.ndim == 3 and shape[0] == 1:
        image = image[:, None]
    if image.shape[1:] != shape:
        raise ValueError(f"images of shape N,C,H,W = N,{','.join(map(str, shape))} are needed, not {image.shape}")
    if image.dtype != np.uint8:
        if image.size and (image.min() < 0 or image.max() > 255 or np.any(image != np.round(image))):
            raise ValueError(f"raw pixels, whole numbers in 0..255, are needed; these are {image.dtype}")
        image = image.astype(np.uint8)
    return image


def _load_pyfunc(path: str) -> Classifier:
    """Called by mlflow.pyfunc with the exported program's path."""
    import torch

    extra = {DESCRIPTION: ""}
    program = torch.export.load(path, extra_files=extra)
    described = json.loads(extra[DESCRIPTION])
    return Classifier(program.module(), described["class_names"], tuple(described["shape"]))
