"""What is fitted after training goes wherever the model goes: results, checkpoint, evaluation, exported program."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import composed, tiny

from emoexp.config import best_model, build_data, build_model, checks
from emoexp.inference import evaluate
from emoexp.models import heads
from emoexp.training import run as training

pytestmark = pytest.mark.usefixtures("blank_figures")

FITS = {  # words, and whether the fit may change a decision
    "logit_adjustment": (("imbalance/posthoc=logit_adjustment", "imbalance.posthoc.tau=1.0"), True),
    "offsets": (("imbalance/posthoc=offsets", "imbalance=ldam"), True),
    "temperature": (("imbalance/posthoc=temperature", "imbalance=lws"), False),
    "tau_norm": (("imbalance/posthoc=tau_norm",), True),
    "nearest_class_mean": (("imbalance/posthoc=nearest_class_mean",), True),
}


def run_of(base: Path, *words: str) -> Path:
    training.train(*tiny(base, *words))
    (folder,) = (base / "outputs").iterdir()
    return folder


def probability(folder: Path, part: str = "test") -> np.ndarray:
    return np.load(folder / "predictions" / f"{part}.npz")["probability"]


@pytest.fixture(scope="module", params=FITS)
def fitted(request, tmp_path_factory) -> tuple[str, Path]:
    """A run with a fit."""
    return request.param, run_of(tmp_path_factory.mktemp(request.param), *FITS[request.param][0])


def test_a_fit_stands_in_the_results(fitted):
    name, folder = fitted
    told = json.loads((folder / "metrics.json").read_text())["posthoc"]
    assert told["name"] == name and {"metric", "before", "after"} <= told.keys()
    assert f"fitted {name} on validation" in (folder / "run.log").read_text()


def test_it_is_the_trained_model_that_was_fitted(fitted):
    """Without the fit, best.pt is what training left, and the fit changes what it says."""
    name, folder = fitted
    best = best_model.read(folder / "best.pt")
    with_fit = build_model.trained_model(best, []).eval()
    bare = build_model.trained_model(dataclasses.replace(best, fit=None), []).eval()
    image = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = with_fit(image).logits_BC.softmax(1), bare(image).logits_BC.softmax(1)
    assert not torch.allclose(one, other, atol=1e-4)
    assert FITS[name][1] or torch.equal(one.argmax(1), other.argmax(1))


def test_evaluation_uses_it(fitted):
    _, folder = fitted
    words = ("data=faces", "data.size=420", "data.test_per_class=12", "part=test", f"run={folder}")
    plain = checks.plain(composed(*words, f"cache={folder.parents[1] / 'cache'}", name="evaluate"))
    found = evaluate.evaluate(plain)["test"]
    there = json.loads((folder / "metrics.json").read_text())["test"]
    assert found["confusion"] == there["confusion"] and found["macro_f1"] == there["macro_f1"]


def test_a_conclusion_that_was_cut_short_is_fitted_once_more_and_not_twice(tmp_path, monkeypatch):
    whole = run_of(tmp_path / "whole", "imbalance/posthoc=offsets")
    original = training.results.write

    def dies(folder, predictions, *others):
        if predictions.part == "test":
            raise KeyboardInterrupt
        original(folder, predictions, *others)

    with monkeypatch.context() as patch:
        patch.setattr(training.results, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            run_of(tmp_path / "cut", "imbalance/posthoc=offsets")
    cut = run_of(tmp_path / "cut", "imbalance/posthoc=offsets")
    assert (cut / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert np.array_equal(probability(cut), probability(whole))


@pytest.mark.slow
@pytest.mark.parametrize("words", [("imbalance/posthoc=offsets", "imbalance=lws"), ("imbalance=ldam",)])
def test_the_exported_program_says_the_same(words, tmp_path):
    folder = run_of(tmp_path, *words, "activation=relu", "tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/m.db")
    program = torch.export.load(folder / "model.pt2").module()
    experiment, place = tiny(tmp_path, *words)
    data = build_data.load_data(experiment, place)
    image = torch.from_numpy(np.array(data.images[data.where("test")]))
    np.testing.assert_allclose(program(image).detach().numpy(), probability(folder), atol=2e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("imbalance=ldam", "imbalance/posthoc=tau_norm"), "tau_norm rescales the weights of a linear last layer"),
        (
            ("imbalance/posthoc=logit_adjustment", "imbalance.posthoc.metric=f1"),
            r"posthoc\.metric is one of macro_f1",
        ),
        (
            ("imbalance/posthoc=logit_adjustment", "imbalance.posthoc.tau=-1"),
            r"posthoc\.tau is a number from 0 on",
        ),
        (("imbalance=crt", "epochs=1"), "take 2 epochs or more"),
        (("imbalance=drw", "imbalance.schedule.late=[wieghts]"), "words among sampling, weights, loss, mix"),
        (("imbalance=sqrt_sampler", "imbalance.sampling.exponent=5"), "from -4 to 4; it is 5"),
        (("optimizer=sam_tail", "optimizer.tail=0.001"), "no class has fewer images"),
        (("optimizer.rho=0.1", "optimizer.tail=rare"), r"optimizer\.tail is a number above 0, or null; it is rare"),
        (("imbalance=repeat_factor", "imbalance.sampling.threshold=a"), "above 0 to 1, or null; it is a"),
        (("imbalance=influence_balanced", "imbalance.loss.alpha=0"), r"alpha is a number above 0; it is 0"),
        (("imbalance=vs", "imbalance.loss.gamma=-1"), r"gamma is a number from 0 on; it is -1"),
        (("imbalance=drw", "imbalance.schedule.late=[]"), "nothing is late, early or retrained"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(words, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        training.train(*tiny(tmp_path, *words))
    assert not list((tmp_path / "outputs").glob("*/last.pt"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("imbalance=sampler", "imbalance/schedule=deferred"),
            "names weights, but imbalance/weights=none does nothing",
        ),
        (("imbalance=drw", "imbalance.schedule.early=[mix]"), "early names mix, but imbalance/mix=none does nothing"),
    ],
)
def test_a_deferral_of_nothing_is_refused(words, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        tiny(tmp_path, *words)


@pytest.mark.slow
def test_mixing_tells_what_it_read(tmp_path):
    drawn = {}
    for name in ("none", "mixup", "cmo"):
        run = run_of(tmp_path / name, f"imbalance/mix={name}", "epochs=1")
        drawn[name] = json.loads((run / "metrics.json").read_text())["drawn"]
    assert "mixed" not in drawn["none"] and drawn["none"]["images"] == drawn["mixup"]["images"]
    assert drawn["mixup"]["mixed"] == drawn["mixup"]["images"] and drawn["cmo"]["mixed"] < 0.6 * drawn["cmo"]["images"]


def test_ldams_head_is_a_cosine_and_lws_learns_factors(tmp_path):
    words = {"ldam": heads.CosineClassifier, "lws": heads.LearnableWeightScaling, "none": torch.nn.Linear}
    for row, kind in words.items():
        experiment, _ = tiny(tmp_path, f"imbalance={row}")
        card = {"head": experiment.imbalance.head().plain(), "class_names": ["a", "b"], "channels": 1, "image_size": 16}
        card |= {"architecture": experiment.architecture.plain(), "activation": experiment.activation.plain()}
        assert type(build_model.build_model(card, []).classifier) is kind
