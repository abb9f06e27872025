"""An ONNX file with uint8 pixels as its input (the extra ``export``)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog.data.labels import CLASSES
from catdog.errors import UserError, install_command
from catdog.inference.portable import INPUT, OUTPUT

if TYPE_CHECKING:
    import keras


def check_onnx() -> None:
    """Raises UserError where the packages are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--formats onnx needs the package {error.name}: {install_command('export')} "
            "(or leave onnx out)"
        ) from error


def write_onnx(network: keras.Model, file: Path, temperature: float) -> None:
    """Write ``network`` (of :func:`catdog.inference.portable.portable`) to ``file``.

    Input ``pixels``: uint8 (batch, side, side, 3). Output ``probability_dog``: float32 (batch, 1).
    The file's metadata name the classes and the temperature.
    """
    import onnx

    with warnings.catch_warnings():
        # Keras' copy of tf2onnx asks NumPy for names that went away, and silences nothing.
        warnings.simplefilter("ignore")
        network.export(file, format="onnx", verbose=False)
    model = onnx.load(file)
    _rename_output(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    facts = {"classes": ",".join(CLASSES), "temperature": repr(temperature)}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _rename_output(graph: Any) -> None:
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
        node.input[:] = [OUTPUT if name == output.name else name for name in node.input]
    output.name = OUTPUT


def load_onnx(file: Path, threads: int = 0) -> Any:
    """A function from pixels to probabilities of dog (n,) on the CPU; ``threads`` 0: all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run([OUTPUT], {INPUT: pixels})[0][:, 0]
