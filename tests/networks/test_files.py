"""Trained networks in files: bit for bit, or refused."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors
from trained import NETWORKS, RESTORER, trained, variables_of

from jaxnas import data, networks
from jaxnas.networks import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


def assert_same_variables(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("family", NETWORKS)
def test_networks_return_bit_for_bit(path, family):
    saved = trained(family)
    odd = jax.tree.leaves(saved.variables)[0].reshape(-1)
    odd[:1] = np.float32(-0.0)
    networks.save(path, saved)
    found = networks.load(path)
    assert found._replace(variables={}) == saved._replace(variables={})
    assert_same_variables(found.variables, saved.variables)
    contents = path.read_bytes()
    networks.save(path, found)
    assert path.read_bytes() == contents


def test_networks_without_classes_return(path):
    network = networks.autoencoder(RESTORER)
    image_format = data.ImageFormat((8, 8, 1), "fit", (0.0,), (1.0,))
    saved = networks.TrainedNetwork(
        network, variables_of(network, (8, 8, 1)), image_format
    )
    networks.save(path, saved)
    assert networks.load(path).network == network


def test_what_depends_on_the_devices_is_not_saved(path):
    saved = trained(batch_axis="batch")
    networks.save(path, saved)
    assert networks.load(path).network == saved.network.clone(batch_axis=None)


def test_the_header_is_for_people_too(path):
    networks.save(path, trained())
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    about = json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["jaxnas"])
    assert about["class_names"] == ["ant", "bee", "Käfer"]
    assert about["genotype"]["type"] == "macro"
    assert about["image_format"]["mean"] == [0.4, 0.4, 0.4]
    assert about["test"]["accuracy"] == 0.75
    assert "params/stem/kernel" in safetensors.load(header)


def test_metrics_that_are_no_numbers_are_left_out(path):
    networks.save(path, trained()._replace(test={"accuracy": 0.5, "loss": np.inf}))
    assert networks.load(path).test == {"accuracy": 0.5}


def rewritten(path, change):
    """Change the description in a file."""
    contents = path.read_bytes()
    length = int.from_bytes(contents[:8], "little")
    text = json.loads(contents[8 : 8 + length])["__metadata__"]["jaxnas"]
    path.write_bytes(
        safetensors.save(safetensors.load(contents), {"jaxnas": change(text)})
    )


def flip(path, place):
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)


DAMAGE = {
    "missing": (lambda path: path.unlink(), "cannot be read: No such file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
    "empty": (
        lambda path: path.write_bytes(b""),
        "it is damaged, or not safetensors: ",
    ),
    "text": (
        lambda path: path.write_text("x" * 99),
        "it is damaged, or not safetensors: ",
    ),
    "cut off": (
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "it is damaged, or not safetensors: ",
    ),
    "a bit of a parameter": (lambda path: flip(path, -1), "does not match its digest"),
    "a name of a class": (
        lambda path: rewritten(path, lambda text: text.replace("ant", "owl")),
        "does not match its digest",
    ),
    "foreign": (
        lambda path: path.write_bytes(safetensors.save({"a": np.zeros(2)})),
        "its header has no key 'jaxnas'; expected a file that networks.save",
    ),
    "no JSON": (lambda path: rewritten(path, lambda text: "{"), "this is not JSON"),
    "no object": (lambda path: rewritten(path, lambda text: "[1]"), "version None of"),
    "newer": (
        lambda path: rewritten(path, lambda text: '{"version": 2}'),
        "was written in version 2 of its format; jaxnas 0.1.0 reads version 1",
    ),
    "older": (
        lambda path: rewritten(path, lambda text: '{"version": 0}'),
        "was written in version 0 of its format",
    ),
    "other keys": (
        lambda path: rewritten(path, lambda text: text.replace('"source"', '"from"')),
        "its header has other keys: from, source",
    ),
    "double": (
        lambda path: path.write_bytes(
            safetensors.save({"a": np.zeros(2)}, {"jaxnas": header_of(path)})
        ),
        "a is F64; expected F32",
    ),
}


def header_of(path):
    contents = path.read_bytes()
    length = int.from_bytes(contents[:8], "little")
    return json.loads(contents[8 : 8 + length])["__metadata__"]["jaxnas"]


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused(path, name):
    networks.save(path, trained())
    damage, words = DAMAGE[name]
    damage(path)
    with pytest.raises(ValueError) as error:
        networks.load(path)
    text = str(error.value)
    assert text.startswith(f"the network file {path} cannot be ")
    assert words in text and "\n" not in text


# What a digest does not tell, since another program may have made it.
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "family",
            "transformer",
            "its family is 'transformer'; expected one of anytime, ",
        ),
        ("genotype", {"type": "cells"}, "the key 'normal' is missing"),
        (
            "genotype",
            {"type": "dag", "ops": ["conv_1x1"], "inputs": [[0]]},
            "found a DagGenotype; expected a MacroGenotype",
        ),
        ("settings", {"width": 2}, "unexpected keyword argument 'width'"),
        ("settings", [], "describes no network: "),
        ("class_names", ["ant"], "there are 1 class_names; expected 3"),
        ("class_names", 3, "describes no network: "),
        ("test", [], "describes no network: "),
        ("image_format", {"cut": "fit"}, "describes no network: "),
        (
            "image_format",
            {"image_shape": [8, 8, 1], "cut": "fit", "mean": [0.5], "std": [1.0]},
            "params/stem/kernel is float32 (3, 3, 3, 2); expected float32 (3, 3, 1, 2)",
        ),
        (
            "image_format",
            {"image_shape": [8, 9, 1], "cut": "fit", "mean": [0.5], "std": [1.0]},
            "cut is 'fit' for 9x8 pixels; expected square images, or 'exact'",
        ),
    ],
)
def test_what_describes_no_network_is_refused(path, monkeypatch, key, value, words):
    networks.save(path, trained())
    rewritten(path, lambda text: json.dumps(json.loads(text) | {key: value}))
    monkeypatch.setattr(files, "_digest", lambda about, _: about["sha256"])
    with pytest.raises(ValueError) as error:
        networks.load(path)
    text = str(error.value)
    assert words in text and str(path) in text and "\n" not in text


class Unknown(nn.Module):
    genotype: tuple = ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": Unknown()}, "Unknown cannot be saved; expected one of Anytime"),
        ({"class_names": ()}, "there are 0 class_names; expected 3"),
        ({"variables": {}}, "is missing; expected float32"),
        (
            {"image_format": data.ImageFormat((8, 8, 3), "cut", (0.0,), (1.0,))},  # pyright: ignore
            "cut is 'cut'; expected one of fit, central_crop, exact",
        ),
        (
            {"image_format": data.ImageFormat((8, 8, 3), "fit", (0.0,), (1.0,))},
            "mean is (0.0,); expected a finite number for each of 3 channels",
        ),
        (
            {"image_format": data.ImageFormat((8, 8, 1), "fit", (0.0,), (-1.0,))},
            "std is (-1.0,); expected 0 or more",
        ),
    ],
)
def test_what_cannot_be_loaded_is_not_saved(path, change, words):
    with pytest.raises(ValueError) as error:
        networks.save(path, trained()._replace(**change))
    assert words in str(error.value)
    assert not path.exists()


def test_a_tag_is_that_of_one_class():
    networks.register("macro", networks.MacroNetwork, networks.macro)
    with pytest.raises(ValueError, match="'macro' is that of MacroNetwork"):
        networks.register("macro", Unknown, Unknown)
