"""What TensorFlow leaves behind where functions are traced."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

import numpy as np
import pytest

#: Traced in the command's own process, which takes its files away when it ends.
OWN_PROCESS = ("catdog/inference/formats.py",)


def test_a_model_that_predicts_leaves_no_file_in_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from catdog.models.saving import logits_of

    pixels = keras.Input((8, 8, 3), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(1, name="logit")(flat))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert logits_of(model)(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2,)
    # Ray ends workers without their exit handlers, so what is written there stays.
    assert list(tmp_path.iterdir()) == []


def test_what_workers_trace_is_traced_without_autograph(project: Path) -> None:
    without = []
    for file in sorted((project / "catdog").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tf.function":
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if keywords.get("autograph") != "False":
                    without.append(str(file.relative_to(project)))
    assert set(without) <= set(OWN_PROCESS), without
