"""What the data are belongs to a run: two sets of images are two runs, whatever their paths are called."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from composing import TINY, checked, planned
from PIL import Image

from emoexp.config import naming, sources
from emoexp.sweep import compose
from emoexp.training import run as training

WORDS = [word for word in TINY if not word.startswith("data.")] + ["data=folder", "epochs=1"]


def pictures(root: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name in ("happy", "sad"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("sets")
    pictures(base / "a" / "faces", 0)
    pictures(base / "b" / "faces", 1)
    shutil.copytree(base / "a" / "faces", base / "copy" / "faces")
    return base


def test_a_sweep_over_roots_has_as_many_runs_as_sets(base):
    roots = [base / "a" / "faces", base / "b" / "faces"]
    plan = planned(*WORDS, f"data.root={','.join(map(str, roots))}", f"cache={base / 'cache'}")
    assert len({cell.name for cell in plan.cells}) == 2 and plan.duplicates == 0
    assert all(cell.name.startswith("faces-emotion_cnn-") for cell in plan.cells)
    assert plan.name.startswith("data.root-faces-")
    same = planned(*WORDS, f"data.root={roots[0]},{base / 'copy' / 'faces'}", f"cache={base / 'cache'}")
    assert len(same.cells) == 1 and same.duplicates == 1, "the same images are the same experiment"


def test_training_names_a_run_as_its_sweep_does(base, tmp_path, blank_figures):
    words = [*WORDS, f"data.root={base / 'a' / 'faces'}", f"cache={base / 'cache'}", f"outputs={tmp_path / 'outputs'}"]
    training.train(*checked(*words))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert [cell.name for cell in planned(*words).cells] == [folder.name]


def test_changed_images_are_another_run(base, tmp_path):
    root = pictures(tmp_path / "faces", 2)
    (before,) = planned(*WORDS, f"data.root={root}", "cache=null").cells
    shutil.copy(root / "happy" / "0.png", root / "sad" / "new.png")
    (after,) = planned(*WORDS, f"data.root={root}", "cache=null").cells
    assert before.name != after.name
    content = before.experiment.data.plain()["content"]
    with pytest.raises(ValueError, match=f"data.content={content} names other images"):
        sources.read_source(before.experiment.data, 16, 1, None)


def test_data_are_called_by_their_folder_or_archive_or_by_name(base):
    def name(*words: str) -> str:
        return naming.name(checked(*WORDS, *words)[0])

    assert name(f"data.root={base}/a/faces").startswith("faces-")
    assert name("data.root=somewhere/CK+.tar.gz").startswith("CK_-")
    assert name("data.root=somewhere/x", "data.dataset=jaffe").startswith("jaffe-")
    by_path, by_name = name(f"data.root={base}/a/faces"), name(f"data.root={base}/a/faces", "data.dataset=faces")
    assert by_path == by_name


def test_the_copies_of_kept_results_keep_their_names():
    """Runs of benchmarks/results were named before content belonged to a name."""
    fer = checked("data=fer2013")[0].data
    assert fer.identified("bbbcf4bc4250").plain()["content"] is None
    assert fer.identified("0123456789ab").plain()["content"] == "0123456789ab"


def test_a_report_without_the_images_says_what_to_name_instead(base):
    with pytest.raises(ValueError, match=r"finds nothing at .*'runs=\[outputs/<run>"):
        compose.sweep_request([*WORDS, f"data.root={base / 'missing'}", "seed=range(2)"])
    by_content = [*WORDS, f"data.root={base / 'missing'}", "data.content=0123456789ab", "seed=range(2)"]
    assert len(compose.sweep_request(by_content).cells) == 2
