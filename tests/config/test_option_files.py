"""Option files cannot run programs: what they may set is checked before Hydra reads them."""

import subprocess
import sys

import pytest

from emoexp.config import option_files

EVIL = {
    "callbacks": "hydra:\n  callbacks:\n    a: {_target_: subprocess.Popen, args: [touch, PWNED]}\n",
    "formatter": "# @package _global_\nhydra:\n  job_logging:\n    formatters: {a: {'()': os.system}}\n",
    "environment": "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: evil.so}}}\n",
    "beside an ablation": "hydra: {sweeper: {params: {seed: 1}}, job: {env_set: {A: b}}}\n",
    "sweeper": "hydra: {sweeper: {_target_: os.system}}\n",
    "dotted": "hydra.job.env_set.LD_PRELOAD: evil.so\n",
    "package": "# @package hydra.job\nenv_set: {LD_PRELOAD: evil.so}\n",
    "package after a comment": "# An experiment\n#@package  hydra\njob: {}\n",
    "override": "# @package _global_\ndefaults:\n  - override /hydra/job_logging: evil\n",
    "defaults": "defaults:\n  - hydra/callbacks: evil\n",
    "package of defaults": "defaults:\n  - /group@hydra.job: evil\n",
    "package of a value": "defaults:\n  - /group/evil@hydra\n",
    "allow": "# @package _global_\nallow: [os]\n",
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize(
    "words", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"], ["hydra.searchpath=[file://{}]"]]
)
def test_what_could_run_a_program_is_refused(name, words, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text(EVIL[name])
    with pytest.raises(ValueError, match=r"experiment/evil\.yaml sets .* by which a file could run any program"):
        option_files.check([word.format(tmp_path) for word in words])


@pytest.mark.parametrize(
    "text",
    [
        "# Sine\nname: sine\n_target_: my_package.Sine\n_partial_: true\n",
        "# @package _global_\nhydra:\n  sweeper:\n    params: {imbalance: 'none,sampler', seed: range(3)}\n",
        "# @package _global_\ndefaults:\n  - override /imbalance: sampler\n  - _self_\nepochs: 3\n",
        "",
    ],
)
def test_options_and_ablations_are_let_through(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    option_files.check(["--config-dir", str(tmp_path), "activation=sine"])


def test_an_alias_bomb_is_refused_at_once(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bomb\.yaml is no YAML: aliases \(\*name\) are not read"):
        option_files.check(["--config-dir", str(tmp_path)])


def test_the_command_refuses_before_hydra_acts(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "evil.yaml").write_text("# @package _global_\n" + EVIL["callbacks"])
    command = [sys.executable, "-m", "emoexp.train", "--config-dir", "conf", "experiment=evil"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: conf/experiment/evil.yaml sets hydra, by which")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
