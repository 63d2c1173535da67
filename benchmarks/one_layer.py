"""What a step costs besides its arithmetic: a network of one layer in emoexp, in Lightning and in a bare loop.

All three take batches of 64 from images of 8×8 pixels held in memory, train a linear layer to 7 classes with a fused
AdamW, and count loss and accuracy. The bare loop slices tensors and adds up sums; Lightning reads the same tensors with
a DataLoader, as its users do, and logs as lightning_peer.py does. The overhead is what is left above the bare loop.
"""

from pathlib import Path

import numpy as np
import torch
from contestants import Orders, Setting, timed
from torch import Tensor, nn

from emoexp.data.normalisation import Normalisation
from emoexp.imbalance import strategy
from emoexp.models.network import Network
from emoexp.training import loop
from emoexp.training.augment import Policy
from emoexp.training.batches import TrainingSamples
from emoexp.training.setup import TrainSetup
from emoexp.training.step import StepSetup, TrainState

SIDE, CLASSES, BATCH, STEPS = 8, 7, 64, 400


class OneLayer(Network):
    """A linear classifier of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.classifier = nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES)

    def features(self, image_NCHW: Tensor) -> Tensor:
        """Pixels in a row."""
        flat: Tensor = self.flat(image_NCHW)
        return flat


class LogitsOf(nn.Module):
    """A network that gives logits alone, as Lightning's users have it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.network(image_NCHW).logits_BC
        return logits


def images() -> tuple[np.ndarray, Tensor]:
    """The images and their classes."""
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (STEPS * BATCH, 1, SIDE, SIDE), dtype=np.uint8)
    return image, torch.from_numpy(draw.integers(0, CLASSES, len(image)))


def emoexp_side(setting: Setting) -> Orders:
    """emoexp's loop and the bare one: `epoch`, `bare`."""
    torch.set_num_threads(1)
    image, label = images()
    everything = torch.arange(len(label))
    pixels, device = torch.from_numpy(image), torch.device("cpu")
    columns = strategy.Columns()
    samples = TrainingSamples(
        image_NCHW=pixels,
        original_N=everything,
        strategy=strategy.build(label, CLASSES, columns, epochs=1000, epoch_size="pool", seed=0),
        augmentation=Policy(),
        copy_augmentation=Policy(),
        redraw=False,
        seed=0,
        device=device,
    )
    setup = TrainSetup(
        samples=samples,
        step_setup=StepSetup(pixels, Normalisation(0.5, 0.25), device, "fp32", clip_norm=None, sharpness_rho=0.0),
        validation=(everything, label),
        num_classes=CLASSES,
        batch_size=BATCH,
        lr_schedule=lambda epochs_done, total_epochs, monitored: 1.0,
        epochs=1000,
        monitor="val/macro_f1",
        patience=None,
        seed=0,
    )
    model = OneLayer()
    state = TrainState(model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))

    def epoch() -> None:
        loop.train_epoch(setup, state, lambda step, steps: False)
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}

    value = Normalisation(0.5, 0.25)(torch.from_numpy(image))
    other = OneLayer()
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3, fused=True)

    def bare() -> None:
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        order = torch.randperm(len(value))
        for place in order.split(BATCH):
            target = label[place]
            optimizer.zero_grad()
            logits = other(value[place]).logits_BC
            loss = nn.functional.cross_entropy(logits, target)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(target)
            correct += (logits.argmax(1) == target).sum()

    return {"epoch": lambda: timed(epoch), "bare": lambda: timed(bare)}


def lightning_side(setting: Setting) -> Orders:
    """Lightning's: `epoch`."""
    import lightning_peer
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    image, label = images()
    value = Normalisation(0.5, 0.25)(torch.from_numpy(image))
    batches = DataLoader(TensorDataset(value, label), batch_size=BATCH, shuffle=True)
    model = lightning_peer.Classifier(LogitsOf(OneLayer()), CLASSES, fused=True)
    folder: Path = setting.place / "one_layer"
    return {"epoch": lightning_peer.fitting(model, batches, folder)}
