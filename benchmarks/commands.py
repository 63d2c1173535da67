"""What is measured on whole commands: time to the first step, logging, packing, and the price of a sweep's cell."""

import json
import subprocess
import sys
import time
from pathlib import Path

from contestants import Setting

HERE = Path(__file__).parent
OPTIMIZER = "import torch; w = torch.zeros(1, requires_grad=True); torch.optim.AdamW([w])"


def seconds(*words: str, folder: Path) -> float:
    """Seconds of a Python command."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_step(folder: Path, threads: int) -> float:
    """Seconds from the start of `python -m emoexp.train` to its first optimizer step, with tracking as it comes."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(HERE / "first_step.py"), f"threads={threads}", "device=cpu", "resume=never"]
    started = time.time()
    done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    said = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("first step "))
    return float(said.split()[2]) - started


def startup(rounds: int, setting: Setting) -> dict[str, list[float]]:
    """Seconds of `import torch`, of that and an optimizer, and to emoexp's first step, in turns."""
    folder = setting.place / "startup"
    first_step(folder, setting.threads)  # packs the images
    found: dict[str, list[float]] = {"torch": [], "optimizer": [], "first step": []}
    for _ in range(rounds):
        found["torch"].append(seconds("-c", "import torch", folder=folder))
        found["optimizer"].append(seconds("-c", OPTIMIZER, folder=folder))
        found["first step"].append(first_step(folder, setting.threads))
    return found


def logging(setting: Setting) -> list[float]:
    """What logging costs, over the rest of an epoch; each of some epochs."""
    folder = setting.place / "logging"
    folder.mkdir()
    words = ["epochs=8", "imbalance.epoch_size=6144", f"threads={setting.threads}", "device=cpu"]
    asked = [sys.executable, str(HERE / "logged.py"), *words]
    said = subprocess.run(asked, cwd=folder, check=True, capture_output=True, text=True).stdout
    shares: list[float] = json.loads(said.rpartition("shares ")[2])
    return [1 + share for share in shares]


def packing(rounds: int, setting: Setting) -> dict[str, list[float]]:
    """Seconds to decode all images, to read and pack them, and to load them from the pack, in turns."""
    from emoexp.data import images
    from emoexp.data.readers import folder

    root = setting.folder / "train"
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    found: dict[str, list[float]] = {"decode": [], "pack": [], "load": []}
    for number in range(rounds + 1):
        cache = str(setting.place / f"pack-{number}")
        works = {
            "decode": lambda: [images.decode(path.read_bytes(), setting.side, 1) for path in paths],
            "pack": lambda cache=cache: _load(folder, setting, cache),
            "load": lambda cache=cache: _load(folder, setting, cache),
        }
        for name, work in works.items():
            started = time.perf_counter()
            work()  # type: ignore[no-untyped-call]
            found[name] += [time.perf_counter() - started] if number else []
    return found


def _load(folder: object, setting: Setting, cache: str) -> None:
    folder.load(  # type: ignore[attr-defined]
        image_size=setting.side,
        channels=1,
        cache=cache,
        root=str(setting.folder / "train"),
        identity=None,
        on_corrupt="refuse",
    )
