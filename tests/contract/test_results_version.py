"""Results change only together with RESULTS_VERSION: tiny trainings are compared with kept numbers.

    python tests/contract/test_results_version.py --write      after RESULTS_VERSION was raised, or a case was added

Every training has two epochs of about nine steps and goes the way of the command: one for each column of a strategy,
and some for what else decides a step. Kept are the losses of each epoch, the probabilities that the last model gives to
the test part, and the ledger's priors, all to a tolerance; and, exactly, how many images were drawn.

Floating-point results differ between processors, numbers of threads and versions of torch. The tolerance of the CPU,
1e-4 of the largest number of a list, stands between two measurements on a processor with AVX-512. Two threads in place
of one, ATEN_CPU_CAPABILITY=default or avx2, and ONEDNN_MAX_CPU_ISA=SSE41 or AVX2 move no number by more than 3e-5. One
percent of a constant of a loss, of mixing, of the learning rate, of sharpness-aware minimisation or of a second stage's
rate moves some number by 2e-4 at least (of weight decay by 5e-6: 18 steps are too few to see it). On CUDA the numbers
are the CPU's, to a looser tolerance; no layer drops units here, since each kind of device draws its own.
"""

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emoexp import figures
from emoexp.runs import files, manifest
from emoexp.training import run as training

HERE = Path(__file__).parent
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}

COMMON = (
    "data.size=420 data.test_per_class=12 image_size=16 batch_size=32 epochs=2 patience=null monitor=epoch "
    "architecture.widths=[4,8] architecture.dense=16 architecture.dropout=0.0 activation=relu threads=1 "
    "executor=auto tracking=none cache=null"
).split()
CASES = {
    "baseline": "activation=mish activation.kernel=native monitor=val/loss",
    "copies": "imbalance/copies=equalise imbalance.copies.redraw=epoch augmentation=strong",
    "sampling": "imbalance/sampling=inverse",
    "sampling_decks": "imbalance/sampling=class_aware scheduler=cosine",
    "weights": "imbalance/weights=effective_number",
    "loss": "imbalance/loss=focal",
    "loss_of_priors": "imbalance/loss=vs imbalance/sampling=sqrt optimizer=sgd clip_norm=1.0",
    "cosine_head_deferred": "imbalance=ldam_drw imbalance.schedule.start=0.5",
    "two_stages": "imbalance=mislas imbalance.schedule.start=0.5",
    "mixing": "imbalance/mix=remix",
    "pasting": "imbalance/mix=cmo imbalance.mix.edge=0.0",
    "posthoc": "imbalance/posthoc=nearest_class_mean",
    "sharpness": "optimizer=sam",
}
ADVICE = (
    "results have changed. If they were meant to, raise RESULTS_VERSION in emoexp/runs/manifest.py and run "
    "`python tests/contract/test_results_version.py --write`; else find the mistake"
)


def kept_path() -> Path:
    """Where the numbers of today's version are kept."""
    return HERE / f"results_v{manifest.RESULTS_VERSION}.json"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    assert kept_path().is_file(), "RESULTS_VERSION is new: run `python tests/contract/test_results_version.py --write`"
    return files.read_json(kept_path())


@contextlib.contextmanager
def without_figures() -> Iterator[None]:
    """Drawing takes several times as long as so small a training, and decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in figures.__all__:
            patch.setattr(figures, name, lambda *arguments, **keys: None)
        yield


def results(case: str, device: str, outputs: Path) -> dict[str, Any]:
    """Train a case, and take from its folder what is compared."""
    from composing import checked

    with without_figures():
        found = training.train(*checked(*COMMON, f"outputs={outputs}", f"device={device}", *CASES[case].split()))
    (run_folder,) = outputs.iterdir()
    history = files.read_json_lines(run_folder / "history.jsonl")
    predictions = np.load(run_folder / "predictions" / "test.npz")
    probability_NC, target_N = predictions["probability"].astype(np.float64), predictions["target"]
    return {
        "drawn": found["drawn"],
        "train_loss": [row["train/loss"] for row in history],
        "val_loss": [row["val/loss"] for row in history],
        "test_loss": float(-np.log(probability_NC[np.arange(len(target_N)), target_N]).mean()),
        "test_probability": probability_NC.mean(0).tolist(),
        "effective_prior": [row["effective_prior"] for row in files.read_json(run_folder / "ledger.json")["classes"]],
    }


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest difference of a number of two results, relative to the largest one of its list; infinite where whole
    numbers or keys differ."""
    if found["drawn"] != wanted["drawn"] or found.keys() != wanted.keys():
        return float("inf")
    pairs = [(np.atleast_1d(found[key]), np.atleast_1d(wanted[key])) for key in wanted if key != "drawn"]
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


@pytest.mark.parametrize("device", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_their_version(case, device, kept, tmp_path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    assert case in kept, f"{case} is new: run `python tests/contract/test_results_version.py --write`"
    found = results(case, device, tmp_path / "outputs")
    assert difference(found, kept[case]) <= TOLERANCE[device], f"{ADVICE}\nkept {kept[case]}\nnow  {found}"


def test_what_is_kept_is_of_this_version_alone(kept):
    assert list(HERE.glob("results_v*.json")) == [kept_path()] and list(kept) == sorted(CASES)


def write() -> None:
    """Keep the numbers of every case that has none yet in today's version; refuse to change one that has."""
    logging.getLogger("emoexp").disabled = True
    kept = files.read_json(kept_path())
    changed = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = results(case, "cpu", Path(folder) / "outputs")
        apart = difference(found, kept[case]) if case in kept else None
        print(f"{case:24} {'new' if apart is None else f'differs by {apart:.1e}'}", flush=True)
        if apart is not None and apart > TOLERANCE["cpu"]:
            changed.append(case)
        kept.setdefault(case, found)
    if changed:
        sys.exit(f"{', '.join(changed)}: {ADVICE}")
    files.write_json(kept_path(), {case: kept[case] for case in CASES})
    for path in HERE.glob("results_v*.json"):
        if path != kept_path():
            path.unlink()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    sys.path.insert(0, str(HERE.parent))
    write()
