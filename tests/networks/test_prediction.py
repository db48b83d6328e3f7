"""What trained networks say, here and as programs that need JAX only."""

import functools
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image
from trained import NETWORKS, RESTORER, trained

from jaxnas import data, networks
from jaxnas.data import streaming

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)


def split(images):
    return data.Split(images, np.zeros(len(images), np.int32))


def probabilities(found, images):
    """By the definition, of logits that the module computes."""
    pixels = images / np.float32(255)
    _, _, mean, std = found.image_format
    normalized = (pixels - np.float32(mean)) / np.float32(std)
    apply = jax.jit(functools.partial(found.network.apply, train=False))
    logits = np.asarray(apply(found.variables, normalized), np.float64)
    logits = logits if logits.ndim == 2 else logits[-1]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("family", NETWORKS)
def test_programs_say_what_modules_say(family):
    found = trained(family)
    program = jax.export.deserialize(bytearray(networks.export(found)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = probabilities(found, IMAGES)
    result = np.asarray(program.call(IMAGES))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3


def test_programs_take_images_of_their_size_only():
    found = trained()
    program = jax.export.deserialize(bytearray(networks.export(found, ["cpu"])))
    for wrong in (IMAGES[:, :4], IMAGES.astype(np.float32)):
        with pytest.raises(ValueError):
            program.call(wrong)


def test_predictions_are_in_the_order_of_the_split():
    found = trained()
    predicted = networks.predict(found, split(IMAGES), batch_size=2)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, probabilities(found, IMAGES), atol=1e-6)
    assert networks.predict(found, split(IMAGES[:0])).shape == (0, 3)


def test_predictions_of_a_stream(tmp_path):
    for index, image in enumerate(IMAGES):
        folder = tmp_path / ("train", "val")[index % 2] / "ab"[index // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    stream = data.stream(tmp_path, image_size=8).test
    found = trained()
    predicted = networks.predict(found, stream, batch_size=3)
    batch = next(streaming.in_order(stream, stream.num_images))
    expected = networks.predict(found, split(batch["image"]))
    np.testing.assert_allclose(predicted, expected, atol=1e-6)


def test_wrong_arguments():
    found = trained()
    with pytest.raises(
        ValueError, match=r"images are uint8 .* expected uint8 \(8, 8, 3"
    ):
        networks.predict(found, split(IMAGES[:, :4]))
    with pytest.raises(ValueError, match="at most 2 of them"):
        networks.make_predict_fn(found, batch_size=2)(IMAGES)
    with pytest.raises(ValueError, match="batch_size is 0"):
        networks.predict(found, split(IMAGES), batch_size=0)
    for wrong in ([], ["cpu", "gpu"]):
        with pytest.raises(ValueError, match=r"platforms are .*; expected some of cpu"):
            networks.export(found, wrong)
    restorer = found._replace(network=networks.autoencoder(RESTORER), class_names=())
    for function in (networks.make_predict_fn, networks.export):
        with pytest.raises(ValueError, match="AutoencoderNetwork has no classes"):
            function(restorer)


def test_the_consumer_of_the_guide_needs_jax_only(tmp_path):
    text = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(import json.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 20
    found = trained()
    networks.save(tmp_path / "network.safetensors", found)
    (tmp_path / "network.stablehlo").write_bytes(networks.export(found))
    np.save(tmp_path / "images.npy", IMAGES)
    # Nothing of the package, nor what it needs besides.
    blocked = ("jaxnas", "flax", "optax", "orbax", "PIL", "safetensors", "sklearn")
    block = "import sys\n" + "".join(
        f"sys.modules[{name!r}] = None\n" for name in blocked
    )
    pathlib.Path(tmp_path, "consumer.py").write_text(block + code)
    result = subprocess.run(
        [sys.executable, "consumer.py", ".", "images.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    best = probabilities(found, IMAGES)
    assert result.stdout.splitlines() == [
        f"{found.class_names[row.argmax()]} {row.max():.4f}" for row in best
    ]
