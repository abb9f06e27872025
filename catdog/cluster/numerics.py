"""Turn on TensorFlow's oneDNN kernels. Must be called before TensorFlow is imported."""

from __future__ import annotations

import os


def use_onednn() -> None:
    """Turn oneDNN on in this process and its children, unless the user set the variable.

    TensorFlow leaves it off on CPUs without AVX512_VNNI, and the convolutions of its other path
    give a row other bits in a batch of another size; see :mod:`catdog.training.reproducible`.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
