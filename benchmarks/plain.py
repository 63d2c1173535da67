"""A training script as one would write it with torchvision alone; what speed.py compares emoexp with.

Run alone: python benchmarks/plain.py --data images/train --epochs 3
Nothing is slowed down on purpose and nothing is tuned: ImageFolder, PIL transforms, DataLoader,
WeightedRandomSampler, torch's own Mish, AdamW as it comes, loss and accuracy read after every step.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from emoexp.models.emotion_cnn import EmotionCNN

Batches = DataLoader[tuple[Tensor, Tensor]]


def loader(folder: Path, *, batch_size: int, workers: int, draws: int | None = None) -> Batches:
    """Batches of `folder`/<class>/<images>, every class drawn equally often; `draws` images an epoch (None: as many
    as there are)."""
    transform = transforms.Compose(
        [
            transforms.Grayscale(),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(5, translate=(0.05, 0.05), scale=(0.95, 1.05)),
            transforms.ToTensor(),
            transforms.Normalize((0.5,), (0.25,)),
        ]
    )
    images = ImageFolder(str(folder), transform)
    count = Counter(images.targets)
    weights = [1.0 / count[target] for target in images.targets]
    sampler = WeightedRandomSampler(weights, draws or len(images))
    return DataLoader(
        images, batch_size=batch_size, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )


def network(num_classes: int, image_size: int) -> nn.Module:
    """The network of emoexp's default run with torch's own Mish."""
    return EmotionCNN(num_classes=num_classes, channels=1, image_size=image_size, activation=nn.Mish)


def train_epoch(
    model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer, device: str = "cpu"
) -> tuple[float, float]:
    """One epoch: mean loss and accuracy."""
    model.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for image, target in batches:
        image, target = image.to(device), target.to(device)
        optimizer.zero_grad()
        logits = model(image)
        loss = nn.functional.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(target)
        correct += (logits.argmax(1) == target).sum().item()
        seen += len(target)
    return loss_sum / seen, correct / seen


def in_memory(folder: Path) -> Batches:
    """All images of `folder`, decoded and normalised once, for an evaluation without a loader's cost."""
    once = transforms.Compose([transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize((0.5,), (0.25,))])
    images = ImageFolder(str(folder), once)
    stacked = torch.stack([image for image, _ in images])
    return DataLoader(TensorDataset(stacked, torch.tensor(images.targets)), batch_size=128)


def evaluate(model: nn.Module, batches: Batches, device: str = "cpu") -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss_sum, correct, seen = 0.0, 0, 0
    with torch.no_grad():
        for image, target in batches:
            image, target = image.to(device), target.to(device)
            logits = model(image)
            loss_sum += nn.functional.cross_entropy(logits, target).item() * len(target)
            correct += (logits.argmax(1) == target).sum().item()
            seen += len(target)
    return loss_sum / seen, correct / seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batches = loader(options.data, batch_size=128, workers=options.workers)
    model = network(len(list(options.data.iterdir())), options.image_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(1, options.epochs + 1):
        started = time.perf_counter()
        loss, accuracy = train_epoch(model, batches, optimizer)
        rate = len(batches.sampler) / (time.perf_counter() - started)  # type: ignore[arg-type]
        print(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}, {rate:.0f} images/s")


if __name__ == "__main__":
    main()
