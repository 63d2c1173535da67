"""Reports from made-up runs whose numbers are known."""

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from run_folders import CLASSES, write_run

from emoexp import report as entry
from emoexp.config.tracking import NoTracking
from emoexp.metrics import classification, compare
from emoexp.pages import markdown
from emoexp.reporting import arms as comparing
from emoexp.reporting import collect, folds, pages, report
from emoexp.runs import kept
from emoexp.runs.files import json_values
from emoexp.runs.records import RunRecord
from emoexp.sweep.cells import CellRequest

pytestmark = pytest.mark.usefixtures("blank_figures")

OPTIONS = {
    "baseline": None,
    "metric": "macro_f1",
    "class_name": None,
    "level": 0.95,
    "resamples": 60,
    "mixed": False,
    "runs": None,
    "filter": None,
    "outputs": "outputs",
    "out": None,
    "tracking": NoTracking(name="none", kind="none"),
}


def requests(outputs: Path, *arms: str, seeds: int = 4) -> list[tuple[CellRequest, list[RunRecord]]]:
    names = [(arm, seed, f"run-{arm}-s{seed}-0000000") for arm in arms for seed in range(seeds)]
    return [(CellRequest(name, {"activation": arm}, seed), kept.find(outputs, name)) for arm, seed, name in names]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "outputs"
    for seed in range(4):
        write_run(folder, "mish", seed, 0.8)
        write_run(folder, "relu", seed, 0.5)
        write_run(folder, "swish", seed, 0.8)
    return folder


def test_arms_are_put_together_by_hand(outputs):
    found = collect.collect(requests(outputs, "mish", "relu"), mixed=False)
    arms = comparing.group_by_arm(found.runs)
    assert [arm.label for arm in arms] == ["mish", "relu"] and found.left_out == []
    for arm in arms:
        values = [
            json.loads((outputs / f"run-{arm.label}-s{seed}-0000000" / "metrics.json").read_text())["test"]["macro_f1"]
            for seed in range(4)
        ]
        spread = arm.spread("macro_f1", "test", 0.95)
        assert spread.mean == pytest.approx(np.mean(values)) and spread.sd == pytest.approx(np.std(values, ddof=1))
    compared = comparing.compare_arms(arms, arms[0], "test", 0.95, 50)
    assert {one.metric for one in compared} == set(compare.METRICS) and len(compared) == 5
    one = next(one for one in compared if one.metric == "macro_f1")
    oracle = compare.paired_difference(*(list(arm.values("macro_f1", "test").values()) for arm in (arms[1], arms[0])))
    assert one.over_seeds == oracle and one.verdict == "worse" and one.holm == oracle.p  # of one comparison
    assert one.both[0] <= 1e-9 + one.images[0] < one.images[1] < 0


def test_holm_counts_the_arms_of_a_metric(outputs):
    arms = comparing.group_by_arm(collect.collect(requests(outputs, "mish", "relu", "swish"), mixed=False).runs)
    compared = [one for one in comparing.compare_arms(arms, arms[0], "test", 0.95, 20) if one.metric == "accuracy"]
    assert [one.holm for one in compared] == pytest.approx(compare.holm([one.over_seeds.p for one in compared]))
    assert [one.verdict for one in compared] == ["worse", "cannot tell"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "FAILED"}, "failed: ValueError: why"),
        ({"status": "KILLED"}, "was interrupted"),
        ({"status": "RUNNING"}, "is running, or its process died"),
        ({"results_version": 2}, "not comparable: results_version 2 instead of 1"),
        ({"packages": {"own": "abc"}}, "not comparable: packages.own"),
        ({"threads": 2}, "not comparable: threads 2 instead of 1"),
        ({"versions": {"torch": "3"}}, "not comparable: versions.torch"),
        (
            {"data": {"content": "d" * 64, "classes": CLASSES, "counts": {"train": [400, 600, 9]}}},
            "not comparable: data.images",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_left_out(tmp_path, change, why):
    for seed in range(3):
        write_run(tmp_path, "mish", seed, 0.8)
    write_run(tmp_path, "mish", 3, 0.8, **change)
    found = collect.collect(requests(tmp_path, "mish", seeds=5), mixed=False)
    assert [cell.seed for cell in found.runs] == [0, 1, 2]
    assert dict(found.left_out) == {"run-mish-s3-0000000": why, "run-mish-s4-0000000": "not run"}


def test_of_several_provenances_the_one_that_covers_most_counts(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "mish", seed, 0.8, results_version=1)
    for seed in range(2):
        write_run(tmp_path, "mish", seed, 0.8, suffix=".2", results_version=2)
    found = collect.collect(requests(tmp_path, "mish", seeds=3), mixed=False)
    assert [cell.record.name[-2:] for cell in found.runs] == ["00"] * 3 and not found.left_out
    write_run(tmp_path, "mish", 2, 0.8, suffix=".2", results_version=2)  # as many, and newer
    assert {
        cell.record.location.suffix for cell in collect.collect(requests(tmp_path, "mish", seeds=3), mixed=False).runs
    } == {".2"}


def test_runs_of_before_results_had_a_version_count_as_version_1(tmp_path):
    """They hold a digest of the code of their day instead: two of them, and a newer run, are compared as they are."""
    write_run(tmp_path, "mish", 0, 0.8)
    for seed, code in ((1, "abc"), (2, "def")):
        path = write_run(tmp_path, "mish", seed, 0.8, code=code) / "manifest.json"
        older = json.loads(path.read_text())
        del older["results_version"], older["packages"]
        path.write_text(json.dumps(older))
    found = collect.collect(requests(tmp_path, "mish", seeds=3), mixed=False)
    assert [cell.seed for cell in found.runs] == [0, 1, 2] and not found.left_out
    assert {cell.manifest["results_version"] for cell in found.runs} == {1}


def test_a_tie_of_provenances_goes_to_the_one_with_the_newest_run(tmp_path):
    folders = [
        write_run(tmp_path, "mish", seed, 0.8, suffix=s, results_version=v)
        for v, s in ((1, ""), (2, ".2"))
        for seed in (0, 1)
    ]
    for folder, started in zip(folders, (400, 100, 300, 200), strict=True):  # the newest of all is of version 1
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"started": started}))
    found = collect.collect(requests(tmp_path, "mish", seeds=2), mixed=False)
    assert {cell.manifest["results_version"] for cell in found.runs} == {1}


def test_a_cell_that_is_there_twice_counts_once_and_says_so(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "mish", seed, 0.8, results_version=1)
    again = write_run(tmp_path, "mish", 1, 0.8, suffix=".2", results_version=2)
    found = collect.collect(collect.requests_of(kept.records_at(sorted(tmp_path.iterdir()))), mixed=True)
    assert [cell.record.name[-2:] for cell in found.runs] == ["00", ".2"] and found.runs[1].record.location == again
    assert [(Path(what).name, why) for what, why in found.left_out] == [
        ("run-mish-s1-0000000", f"the same cell as {again}, which was started later")
    ]
    listed = collect.collect(collect.requests_of(kept.records_at(sorted(tmp_path.iterdir()))), mixed=False)
    assert listed.left_out == [(again.name, "not comparable: results_version 2 instead of 1")]


def test_a_provenance_with_more_or_fewer_keys_says_which(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "mish", seed, 0.8, kernels={"mish": "x"})
    write_run(tmp_path, "mish", 2, 0.8)
    found = collect.collect(requests(tmp_path, "mish", seeds=3), mixed=False)
    assert found.left_out == [("run-mish-s2-0000000", "not comparable: kernels.mish")]


def test_what_is_left_out_makes_no_axis(tmp_path):
    for arm in ("mish", "relu"):
        write_run(tmp_path, arm, 0, 0.8)
    write_run(tmp_path, "gelu", 0, 0.8, "FAILED", params={"activation": "gelu", "seed": 0, "epochs": 9})
    found = collect.without_constant_axes(
        collect.collect(collect.requests_of(kept.records_at(sorted(tmp_path.iterdir()))), mixed=False)
    )
    assert [cell.axes for cell in found.runs] == [{"activation": "mish"}, {"activation": "relu"}]
    assert len(found.left_out) == 1


def test_images_in_another_order_are_not_paired(tmp_path):
    for arm in ("mish", "relu"):
        folder = write_run(tmp_path, arm, 0, 0.8)
    path = folder / "predictions" / "test.npz"
    with np.load(path) as kept:
        other = dict(kept)
    other["target"] = other["target"][::-1]
    np.savez_compressed(path, **other)
    arms = comparing.group_by_arm(collect.collect(requests(tmp_path, "mish", "relu", seeds=1), mixed=False).runs)
    assert all(
        one.images is None and one.both is None for one in comparing.compare_arms(arms, arms[0], "test", 0.95, 20)
    )


def test_what_could_have_been_seen_counts_the_comparisons(outputs):
    arms = comparing.group_by_arm(collect.collect(requests(outputs, "mish", "relu", "swish"), mixed=False).runs)
    for one in comparing.compare_arms(arms, arms[0], "test", 0.95, 20):
        seeds = one.over_seeds
        assert one.detectable == pytest.approx(compare.detectable(seeds.sd, seeds.n, 0.025))
        assert one.detectable > seeds.detectable


def test_a_searched_value_stands_in_its_own_column(outputs):
    from emoexp.reporting import tables

    found = collect.collect(requests(outputs, "mish", "relu"), mixed=False).runs
    found = [
        dataclasses.replace(c, chosen={"optimizer.lr": 0.003}) if c.axes["activation"] == "relu" else c for c in found
    ]
    rows = tables.costs_table(comparing.group_by_arm(found)).rows
    assert [list(row) for row in rows] == [list(rows[0])] * 2
    assert [row["optimizer.lr"] for row in rows] == [None, 0.003]


def test_a_baseline_may_be_a_number():
    arms = [comparing.Arm(text, {"batch_size": text}, {}) for text in ("32", "64")]
    assert comparing.baseline_arm(arms, 64) is arms[1]


def test_mixed_puts_provenances_together_but_never_data(tmp_path):
    write_run(tmp_path, "mish", 0, 0.8, results_version=1)
    write_run(tmp_path, "mish", 1, 0.8, results_version=2)
    assert len(collect.collect(requests(tmp_path, "mish", seeds=2), mixed=False).runs) == 1
    assert len(collect.collect(requests(tmp_path, "mish", seeds=2), mixed=True).runs) == 2
    write_run(tmp_path, "mish", 2, 0.8, data={"content": "d", "classes": CLASSES, "counts": {}})
    assert len(collect.collect(requests(tmp_path, "mish", seeds=3), mixed=True).runs) == 2


def test_listed_runs_differ_along_their_params(outputs):
    rows = collect.requests_of(kept.records_at(sorted(outputs.iterdir())))
    assert {tuple(row.axes.items()) for row, _ in rows} == {(("activation", arm),) for arm in ("mish", "relu", "swish")}
    with pytest.raises(ValueError, match="is no run"):
        collect.requests_of(kept.records_at([outputs]))


def reported(tmp_path: Path, monkeypatch, **options) -> tuple[pages.Report, Path]:
    monkeypatch.chdir(tmp_path)
    page = report.report(OPTIONS | {"out": "out"} | options, [])
    return page, tmp_path / "out"


class Reader(HTMLParser):
    """Collects tags, text, and addresses that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.words, self.loads, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for key, value in attrs if key in ("src", "href") and value]
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_whole(outputs, tmp_path, monkeypatch, capsys):
    page, out = reported(tmp_path, monkeypatch, runs=[str(outputs / "run-*")], baseline="relu")
    assert {path.name for path in (out / "figures").iterdir()} == {
        "seeds.png", "differences.png", "confusions.png", "tradeoff.png", "recalls.png", "precision_recall.png"
    }  # fmt: skip
    with (out / "tables" / "arms_test.csv").open() as text:
        rows = {row["activation"]: row for row in csv.DictReader(text)}
    arms = comparing.group_by_arm(collect.collect(requests(outputs, "mish", "relu", "swish"), mixed=False).runs)
    for arm in arms:
        assert float(rows[arm.label]["macro_f1"]) == pytest.approx(arm.spread("macro_f1", "test", 0.95).mean)
    with (out / "tables" / "differences_test.csv").open() as text:
        mish = next(row for row in csv.DictReader(text) if (row["activation"], row["metric"]) == ("mish", "macro_f1"))
    assert float(mish["points"]) > 10 and mish["verdict"] == "better" and mish["seeds"] == "4"
    with (out / "tables" / "costs.csv").open() as text:
        assert {(row["seconds"], row["images_drawn"], row["originals_seen"]) for row in csv.DictReader(text)} == {
            ("7.5", "3000.0", "901.5")
        }
    text = (out / "report.md").read_text()
    assert "mish against relu: macro-F1 +" in text and "better." in text and "Arms, clean test images" in text
    assert capsys.readouterr().out.count("| mish |") == 1
    assert [name for name, _ in page.facts][:2] == ["command", "runs"]


def test_the_summary_says_which_runs_and_all_numbers(outputs, tmp_path, monkeypatch):
    page, out = reported(tmp_path, monkeypatch, runs=str(outputs / "run-*"))
    content = json.loads((out / "summary.json").read_text())
    assert set(content["tables"]) == {path.stem for path in (out / "tables").iterdir()}
    rows = content["tables"]["runs"]
    assert {row["folder"] for row in rows} == {str(path) for path in outputs.iterdir()} and len(rows) == 12
    mean = np.mean([row["test_macro_f1"] for row in rows if row["activation"] == "relu"])
    assert mean == pytest.approx(
        next(r for r in content["tables"]["arms_test"] if r["activation"] == "relu")["macro_f1"]
    )
    assert content["facts"]["results version"] == "1" and content["sentences"] == page.sentences


def test_a_report_takes_away_what_an_earlier_one_left(outputs, tmp_path, monkeypatch):
    reported(tmp_path, monkeypatch, runs=str(outputs / "run-*"))
    _, out = reported(tmp_path, monkeypatch, runs=str(outputs / "run-mish-*"))
    assert {path.name for path in (out / "figures").iterdir()} == {"seeds.png", "recalls.png", "precision_recall.png"}
    assert {path.stem for path in (out / "tables").iterdir()} == {"arms_test", "arms_test_clean", "costs", "runs"}


def test_mixed_runs_say_everything_that_made_them(tmp_path, monkeypatch):
    for arm, threads, version in (("mish", 1, 1), ("relu", 4, 2)):
        write_run(tmp_path / "outputs", arm, 0, 0.8, threads=threads, results_version=version)
    page, _ = reported(tmp_path, monkeypatch, runs="outputs/*", mixed=True)
    assert dict(page.facts)["made on"] == "cpu x, 1 threads, torch 2; cpu x, 4 threads, torch 2"
    assert dict(page.facts)["results version"] == "1, 2"


def test_the_page_needs_nothing_and_shows_names_as_they_are(outputs, tmp_path, monkeypatch):
    _, out = reported(tmp_path, monkeypatch, runs=str(outputs / "run-*"))
    reader = Reader()
    reader.feed((out / "report.html").read_text())
    assert reader.open == [] and "script" not in reader.tags and "b" not in reader.tags
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in reader.loads)
    assert reader.tags.count("img") == 6 and "rare <b>" in " ".join(reader.words)


def test_latex_is_escaped_and_balanced(outputs, tmp_path, monkeypatch):
    _, out = reported(tmp_path, monkeypatch, runs=str(outputs / "run-*"))
    text = (out / "report.tex").read_text()
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 5
    assert (
        re.search(r"(?<!\\)[_&%#](?! )", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
        is None
    )
    assert "±" not in text and "$\\pm$" in text
    for line in text.splitlines():
        if line.endswith("\\\\"):
            assert line.count(" & ") >= 4


@pytest.mark.parametrize("odd", ["a|b", "a_b*c*", "<script>", "=cmd()", "[4, 8]", "50 % & $x$ #1 {y} \\z ~^"])
def test_odd_labels_break_no_page(tmp_path, odd):
    from emoexp.reporting.tables import Table

    table = Table("t", odd, odd, [{"arm": odd, "x": 1}], [{"arm": odd, "x": "1"}])
    page = pages.Report(odd, [(odd, odd)], [odd], [table], [], [(odd, odd)])
    pages.write(tmp_path, page)
    assert markdown.write_table(table).splitlines()[2].replace("\\|", "").count("|") == 3
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text())
    assert reader.open == [] and "script" not in reader.tags
    cell = (tmp_path / "tables" / "t.csv").read_text().splitlines()[1]
    assert not cell.lstrip('"').startswith("=")
    body = [line for line in (tmp_path / "report.tex").read_text().splitlines() if line.endswith("\\\\")][1]
    assert body.count(" & ") == 1 and not re.search(r"(?<!\\)[%#_]", body.replace(" & ", ""))
    assert not body.startswith("[")


def test_one_arm_and_one_seed_say_so(tmp_path, monkeypatch, outputs):
    page, _ = reported(tmp_path, monkeypatch, runs=str(outputs / "run-mish-*"))
    assert page.sentences == ["There is one arm: nothing to compare."] and len(page.tables) == 3
    page, _ = reported(tmp_path, monkeypatch, runs=str(outputs / "run-*-s0-*"), out="again")
    assert all("at one seed: cannot tell" in text for text in page.sentences[:-1]) and len(page.sentences) == 3
    assert "±" not in page.tables[0].text_rows[0]["macro-F1"]


def test_what_was_not_kept_is_said(tmp_path, monkeypatch):
    for arm in ("mish", "relu"):
        for seed in range(2):
            folder = write_run(tmp_path / "outputs", arm, seed, 0.7)
            (folder / "predictions" / "test.npz").unlink()
            (folder / "times.jsonl").unlink()
    page, out = reported(tmp_path, monkeypatch, runs="outputs/run-*")
    assert page.tables[-1].text_rows[0]["seconds of training"] == "not kept"
    assert page.tables[2].text_rows[0]["over images"] == "–" and not (out / "figures" / "precision_recall.png").exists()
    assert page.left_out == [
        ("figure of precision and recall", "the probabilities of rare <b> were not kept for 4 of 4 runs")
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"baseline": "gelu"}, "baseline=gelu is no arm; there are mish; relu; swish"),
        ({"metric": "f1"}, "metric is one of macro_f1"),
        ({"level": 1.0}, "level lies between"),
        ({"level": None}, "level lies between"),
        ({"resamples": 1.5}, "resamples is a whole number"),
        ({"class_name": 3}, "class_name=3 is no class"),
        ({"class_name": "joy"}, "class_name=joy is no class"),
        ({"runs": "nothing/*"}, "finds no folder"),
        ({"filter": "x"}, "either runs or filter"),
        ({"runs": None}, "say which runs"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, monkeypatch, outputs, options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        reported(tmp_path, monkeypatch, **({"runs": str(outputs / "run-*")} | options))


def test_nothing_finished_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from emoexp import cli

    cli.register_sweeper()
    with pytest.raises(
        ValueError, match=r"no cell is finished; run\n  python -m emoexp.train --multirun ablation=smoke"
    ):
        report.report(OPTIONS, ["ablation=smoke"])


def test_words_are_split():
    words = ["ablation=activation", "seed=0,1", "baseline=relu", "outputs=there", "--cfg=job", "tracking.uri=x", "+a=b"]
    own, sweep = entry.split_words(words)
    assert own == ["baseline=relu", "outputs=there", "--cfg=job", "tracking.uri=x"]
    assert sweep == ["ablation=activation", "seed=0,1", "outputs=there", "+a=b"]
    assert entry.split_words(["--multirun", "ablation=smoke"]) == ([], ["ablation=smoke"])
    assert entry.split_words(["outputs=there", "runs=a"]) == (["outputs=there", "runs=a"], [])


def test_a_filter_finds_the_runs_of_mlflow(tmp_path, monkeypatch, outputs):
    from emoexp.tracking import Settings, mirror
    from emoexp.tracking.search import search

    monkeypatch.chdir(tmp_path)
    settings = Settings(kind="mlflow", uri=f"sqlite:///{tmp_path / 'm.db'}", log_model=False)
    for seed in range(2):
        for arm in ("mish", "relu"):
            mirror(write_run(tmp_path / "outputs", arm, seed, 0.6), settings)
    found = search(settings, "params.activation = 'relu'")
    assert {path.name for path in found} == {"run-relu-s0-0000000", "run-relu-s1-0000000"}
    with pytest.raises(ValueError, match="is not one that MLflow understands"):
        search(settings, "params.activation is relu")
    with pytest.raises(ValueError, match="tracking=none has none"):
        search(Settings(kind="none"), "x")


def fold(outputs: Path, arm: str, seed: int, number: int, right: float = 0.7, **manifest) -> Path:
    """A fifth of the images, tested by the run of one fold of five."""
    folder = write_run(outputs, arm, seed, right, suffix=f".{number + 1}" if number else "", **manifest)
    content = json.loads((folder / "manifest.json").read_text())
    content["params"] |= {"split": "kfold", "split.folds": 5, "split.fold": number, "split.seed": 0}
    content["data"] |= {"content": str(number) * 64, "images": "i" * 64}
    (folder / "manifest.json").write_text(json.dumps(content))
    mine = np.arange(120) % 5 == number
    with np.load(folder / "predictions" / "test.npz") as kept:
        part = {name: kept[name][mine] for name in kept}
    np.savez_compressed(folder / "predictions" / "test.npz", **part)
    found = json.loads((folder / "metrics.json").read_text())
    found["test"] = json_values(classification.summarise(part["probability"], part["target"], CLASSES))
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def test_folds_of_a_seed_are_pooled_and_an_incomplete_seed_is_left_out(tmp_path):
    folders = [fold(tmp_path, "mish", seed, number) for seed in (0, 1) for number in range(5)]
    folders += [fold(tmp_path, "relu", 0, number) for number in range(5)]
    folders += [fold(tmp_path, "relu", 1, number) for number in (0, 1, 3)]
    found = folds.pool_folds(collect.collect(collect.requests_of(kept.records_at(folders)), mixed=False))
    assert [(cell.axes, cell.seed) for cell in found.runs] == [
        ({"activation": "mish"}, 0),
        ({"activation": "mish"}, 1),
        ({"activation": "relu"}, 0),
    ]
    assert [why for _, why in found.left_out] == [
        "fold 2, 4 of its seed is not finished, or its predictions were not kept whole"
    ]
    one = found.runs[0]
    together = [np.load(folder / "predictions" / "test.npz") for folder in folders[:5]]
    probability, target = (np.concatenate([part[name] for part in together]) for name in ("probability", "target"))
    for part in together:
        part.close()
    oracle = classification.summarise(probability.astype(float), target, CLASSES)
    assert one.metrics["test"]["n"] == 120 and one.metrics["test"]["macro_f1"] == pytest.approx(oracle["macro_f1"])
    assert one.metrics["test"]["confusion"] == np.asarray(oracle["confusion"]).tolist()
    assert one.metrics["test_clean"]["n"] == 108
    assert one.seconds == pytest.approx(5 * 7.5) and one.metrics["drawn"]["images"] == 15000


def test_a_report_of_folds_compares_arms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        for number in range(5):
            fold(tmp_path / "outputs", "mish", seed, number, 0.9)
            fold(tmp_path / "outputs", "relu", seed, number, 0.4)
    page = report.report(OPTIONS | {"runs": "outputs/*", "out": "found"}, [])
    (arms,) = [table for table in page.tables if table.name == "arms_test"]
    assert [row["activation"] for row in arms.rows] == ["mish", "relu"] and [row["n"] for row in arms.rows] == [3, 3]
    assert "120 images" in arms.note and "worse" in page.sentences[0] and page.left_out == []


def test_a_seed_of_the_split_that_goes_with_the_runs_is_no_axis(tmp_path):
    folders = [write_run(tmp_path, arm, seed, 0.7) for arm in ("mish", "relu") for seed in range(3)]
    for folder in folders:
        content = json.loads((folder / "manifest.json").read_text())
        content["params"]["split.seed"] = content["params"]["seed"]
        content["data"] |= {"images": "i" * 64, "content": f"{content['params']['seed']}" * 64}
        (folder / "manifest.json").write_text(json.dumps(content))
    found = collect.collect(collect.requests_of(kept.records_at(folders)), mixed=False)
    assert found.left_out == [] and {tuple(cell.axes) for cell in found.runs} == {("activation",)}
    content["params"]["split.seed"] = 7
    (folder / "manifest.json").write_text(json.dumps(content))
    assert "split.seed" in collect.requests_of(kept.records_at(folders))[0][0].axes


def protocol(outputs: Path, name: str, seed: int, right: float) -> Path:
    """A run of a protocol; leaky ones hold twenty images more of the rare class."""
    folder = write_run(outputs, name, seed, right)
    content = json.loads((folder / "manifest.json").read_text())
    content["params"] |= {"activation": "relu", "activation.kernel": "r", "protocol": name}
    rare = 29 if name == "leaky" else 9
    content["data"] |= {
        "images": "i" * 64,
        "counts": {"train": [400, 600, rare], "val": [40, 60, 2], "test": [40, 60, 20]},
    }
    content["tags"] = {"protocol": "LEAKY PROTOCOL"} if name == "leaky" else {}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_what_a_leaky_protocol_is_worth_stands_beside_guessing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        protocol(tmp_path / "outputs", "leaky", seed, 0.9)
        protocol(tmp_path / "outputs", "clean", seed, 0.6)
    page = report.report(OPTIONS | {"runs": "outputs/*", "out": "found"}, [])
    (table,) = [table for table in page.tables if table.name == "protocols"]
    rows = {row["arm"]: row for row in table.rows}
    assert rows["leaky"]["majority"] == pytest.approx(0.5) and rows["leaky"]["two"] == pytest.approx(100 / 120)
    confusions = [
        np.array(json.loads((folder / "metrics.json").read_text())["test"]["confusion"])
        for folder in sorted((tmp_path / "outputs").glob("*leaky*"))
    ]
    by_hand = np.mean([confusion[[0, 1], [0, 1]].sum() / 100 for confusion in confusions])
    assert rows["leaky"]["without"] == pytest.approx(by_hand)
    assert rows["leaky"]["accuracy"] > rows["clean"]["accuracy"] and "Copied classes: rare <b>" in table.note
    (classes,) = [table for table in page.tables if table.name == "protocols_per_class"]
    assert classes.rows[2]["leaky n"] == 60 and classes.rows[2]["leaky recall"] > classes.rows[2]["clean recall"]
    assert ("protocol", "LEAKY PROTOCOL: copies were made before the split") in page.facts
    assert (tmp_path / "found" / "figures" / "leak_worth.png").is_file()
    (differences,) = [table for table in page.tables if table.name == "differences_test"]
    assert {row["verdict"] for row in differences.rows} == {"leaky"} and "a difference of protocols" in page.sentences[
        0
    ]


def test_reports_of_clean_runs_do_not_speak_of_protocols(outputs, tmp_path, monkeypatch):
    page, _ = reported(tmp_path, monkeypatch, runs=f"{outputs}/*", out=str(tmp_path / "found"))
    assert not any("protocol" in table.name for table in page.tables) and "protocol" not in dict(page.facts)


def keep(out: Path, folders: list[Path], classes: tuple[int, ...] = (0, 1, 2)) -> Path:
    """The table of kept results of run folders."""
    records = kept.records_at(folders)
    return kept.write(out, "made_up", records, {record.name: classes for record in records})


def contents(out: Path) -> dict[str, object]:
    """What a report wrote, by file; the table of runs without the column that says where each lies."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in out.rglob("*.csv") if path.stem != "runs"}
    with (out / "tables" / "runs.csv").open() as text:
        found["runs"] = [{key: value for key, value in row.items() if key != "folder"} for row in csv.DictReader(text)]
    return found | {path.name: path.read_bytes() for path in out.rglob("*.png")}


def test_kept_results_make_the_same_report(outputs, tmp_path, monkeypatch):
    table = keep(tmp_path, sorted(outputs.iterdir()), (2,))
    before, _ = reported(tmp_path, monkeypatch, runs=str(outputs / "run-*"), out="before")
    after, _ = reported(tmp_path, monkeypatch, runs=str(table), out="after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")
    assert "precision_recall.png" in contents(tmp_path / "after")
    assert (before.tables, before.sentences, before.left_out) == (after.tables, after.sentences, after.left_out)
    assert after.runs[0]["folder"] == f"{table}:run-mish-s0-0000000"
    page, _ = reported(tmp_path, monkeypatch, runs=str(table), class_name="happy", out="other")
    assert page.left_out == [
        ("figure of precision and recall", "the probabilities of happy were not kept for 12 of 12 runs")
    ]


def test_a_sweeps_words_find_kept_results_among_the_outputs(tmp_path, monkeypatch):
    from emoexp import cli
    from emoexp.sweep import compose

    cli.register_sweeper()
    monkeypatch.chdir(tmp_path)
    words = ["activation=relu,mish", "seed=0,1", "tracking=none"]
    folders = []
    for cell in compose.sweep_request(words).cells:
        folder = write_run(tmp_path / "outputs", cell.axes["activation"], cell.seed, 0.5 + 0.1 * cell.seed)
        folders.append(folder.rename(tmp_path / "outputs" / cell.name))
    report.report(OPTIONS | {"out": "before"}, words)
    keep(tmp_path / "results", folders)
    page = report.report(OPTIONS | {"out": "after", "outputs": "results"}, words)
    assert contents(tmp_path / "before") == contents(tmp_path / "after") and page.left_out == []
    write_run(tmp_path, "mish", 7, 0.9).rename(tmp_path / "results" / folders[0].name)  # and was begun later
    page = report.report(OPTIONS | {"out": "after", "outputs": "results"}, words)
    label, why = page.left_out[0]
    assert label == f"results/made_up.runs.csv.gz:{folders[0].name}"
    assert why == f"the same cell as results/{folders[0].name}, which was started later"


def test_folds_whose_probabilities_were_not_all_kept_are_not_pooled(tmp_path):
    folders = [fold(tmp_path / "outputs", "mish", seed, number) for seed in (0, 1) for number in range(5)]
    tables = [keep(tmp_path / str(len(classes)), folders, classes) for classes in ((0, 1, 2), (2,))]
    all_classes, one_class, not_kept = (
        folds.pool_folds(collect.collect(collect.requests_of(kept.records_at(paths)), mixed=False))
        for paths in (tables[:1], tables[1:], folders)
    )
    confusions = [[cell.metrics["test"]["confusion"] for cell in found.runs] for found in (all_classes, not_kept)]
    assert confusions[0] == confusions[1] and len(confusions[0]) == 2
    assert one_class.runs == []
    assert [why.partition(" of ")[0] for _, why in one_class.left_out] == ["fold 0, 1, 2, 3, 4"] * 2
