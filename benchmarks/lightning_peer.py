"""The same training in PyTorch Lightning, as its users write it: a module, torchmetrics, a CSV logger.

It takes the plain script's loader and network, so that only the framework differs.
"""

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import plain
import torch
from contestants import Lap, Setting, cpu_seconds
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


class Classifier(lightning.LightningModule):
    """Cross-entropy, with loss, accuracy and F1 logged by step and epoch."""

    def __init__(self, network: nn.Module, classes: int, *, fused: bool = False) -> None:
        super().__init__()
        self.network, self.fused = network, fused
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.f1 = MulticlassF1Score(classes, average="macro")

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Loss of a batch."""
        image, target = batch
        logits = self.network(image)
        loss = nn.functional.cross_entropy(logits, target)
        self.accuracy(logits, target)
        self.f1(logits, target)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log("train/f1", self.f1, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=self.fused)


class Laps(Callback):
    """Seconds of each epoch, between its first and its last hook."""

    def __init__(self) -> None:
        self.laps: list[Lap] = []

    def on_train_epoch_start(self, *ignored: Any) -> None:
        """The first hook."""
        self.began = (time.perf_counter(), cpu_seconds())

    def on_train_epoch_end(self, *ignored: Any) -> None:
        """The last one."""
        self.laps.append(Lap(time.perf_counter() - self.began[0], cpu_seconds() - self.began[1]))


def epochs(setting: Setting) -> Callable[[], Lap]:
    """The plain script's training, one more epoch each time it is called."""
    torch.set_num_threads(setting.threads)
    folder = setting.folder / "train"
    classes = len(list(folder.iterdir()))
    batches = plain.loader(folder, batch_size=setting.batch_size, workers=0, draws=setting.draws)
    return fitting(Classifier(plain.network(classes, setting.side), classes), batches, setting.place)


def fitting(model: Classifier, batches: Any, folder: Path) -> Callable[[], Lap]:
    """A trainer on the CPU with a CSV logger and nothing on the screen, that trains one more epoch at each call."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    laps = Laps()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(folder / "lightning"),
        callbacks=[laps],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )

    def epoch() -> Lap:
        trainer.fit(model, batches)
        assert trainer.fit_loop.max_epochs == len(laps.laps), "one epoch a call"
        trainer.fit_loop.max_epochs += 1
        return laps.laps[-1]

    return epoch
