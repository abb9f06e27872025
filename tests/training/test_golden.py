"""Three training steps of every model on eight fixed pictures, held against written losses.

It tells when another version of TensorFlow, Keras or NumPy changes the numbers. A change on
purpose writes them anew: ``python -m tests.training.test_golden`` prints the table.
"""

from __future__ import annotations

import numpy as np
import pytest

from catdog.config import ScratchSettings
from catdog.config.architectures import MODELS, ModelName
from catdog.models import registry

from .steps import make_step

SIDES: dict[ModelName, int] = {
    "base_cnn": 96,
    "resnet50v2": 64,
    "inception_v3": 75,
    "efficientnet_lite0": 64,
}
#: Loss of each step, in nats.
LOSSES: dict[ModelName, tuple[float, float, float]] = {
    "base_cnn": (0.93627, 0.87116, 0.82178),
    "resnet50v2": (0.76319, 0.6227, 0.50987),
    "inception_v3": (0.95987, 0.27931, 0.09476),
    "efficientnet_lite0": (0.67215, 0.62221, 0.57704),
}
#: With oneDNN's kernels for SSE4.1 and for AVX2 the losses of three models differed by 1e-5, those
#: of InceptionV3 by 3.5e-3: its last activations are 1 x 1, so that batch normalisation sees eight
#: values. Another seed, initialiser or optimizer changes them by a hundred times as much.
TOLERANCE: dict[ModelName, float] = {"inception_v3": 1e-2}
DEFAULT_TOLERANCE = 5e-4


def losses(name: ModelName) -> tuple[float, ...]:
    """The model's losses over three steps from seeded weights, without dropout."""
    import keras

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    side = SIDES[name]
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    labels = np.arange(8, dtype=np.float32) % 2
    model = registry.build(registry.Architecture(name, side, side, MODELS[name].scale, 0.0))
    network = keras.Model(model.input, model.get_layer("logit").output)
    settings = ScratchSettings(epochs=1, learning_rate=1e-6, warmup_epochs=0)
    step = make_step(network, settings, row_dtype=np.uint8)
    weights = np.ones(8, np.float32)
    sums = [step.train(pixels, labels, weights, 8, step=number) for number in range(3)]
    return tuple(float(each[0]) / 8 for each in sums)


@pytest.mark.parametrize(
    "name",
    [
        "base_cnn",
        *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "base_cnn"),
    ],
)
def test_three_steps_give_the_written_losses(name: ModelName) -> None:
    found = losses(name)
    assert found == pytest.approx(LOSSES[name], abs=TOLERANCE.get(name, DEFAULT_TOLERANCE)), (
        "the numbers of training have changed: if an upgrade or an edit was meant to change them, "
        f"write {tuple(round(loss, 5) for loss in found)} here and say so in the CHANGELOG"
    )


if __name__ == "__main__":
    for model in MODELS:
        print(f'    "{model}": {tuple(round(loss, 5) for loss in losses(model))},')
