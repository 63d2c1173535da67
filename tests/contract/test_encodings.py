"""Every text file is read and written in UTF-8, whatever the locale is."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("emoexp", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


def without_encoding(tree: ast.AST) -> list[int]:
    """Lines of calls that open a text file in the locale's encoding."""
    lines = []
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        named = ast.unparse(call.func)
        if re.search(r"(?<!\bfiles)\.(read_text|write_text)$", named):
            lines.append(call.lineno)
        mode = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if (
            re.search(r"(?<!tarfile\.)\bopen$", named)
            and mode
            and "b" not in mode[-1]
            and set(mode[-1]) <= set("rwa+x")
        ):
            lines.append(call.lineno)
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_utf_8(path: Path) -> None:
    assert without_encoding(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_the_search_finds_them() -> None:
    text = (
        "p.read_text()\np.open('w')\nopen(p, 'r')\np.open('rb')\np.read_text(encoding='utf-8')\nfiles.write_text(p, t)"
    )
    assert without_encoding(ast.parse(text)) == [1, 2, 3]


def test_a_training_in_the_c_locale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("colère", "joie", "怒り"):
        (tmp_path / "émotions" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "émotions" / name / f"{number}.png")
    small = [
        "epochs=1",
        "image_size=16",
        "architecture.widths=[4]",
        "architecture.dense=4",
        "tracking=none",
        "threads=1",
    ]
    words = ["data=folder", "data.root=émotions", "outputs=résultats", "cache=null", *small]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "emoexp.train", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "résultats").iterdir()
    assert "colère" in (folder / "tables" / "test_per_class.csv").read_text(encoding="utf-8")
    assert "root: émotions" in (folder / "config.yaml").read_text(encoding="utf-8")
    assert "colère" in done.stdout.decode()
