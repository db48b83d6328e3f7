"""Checks of arguments, and how their errors read."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import _checks


@pytest.mark.parametrize("value", [0, -3, np.int64(2), np.uint8(2), jnp.int32(2)])
def test_integers_of_every_library(value):
    assert _checks.is_integer(value)


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), jnp.asarray(True), 1.0, np.float32(1), "1", None]
)
def test_what_is_no_integer(value):
    assert not _checks.is_integer(value)
    with pytest.raises(ValueError, match=r"num is .*; expected an integer of at least"):
        _checks.check_integer("num", value)


def test_integers_have_a_least_value():
    _checks.check_integer("num", 3, least=3)
    with pytest.raises(ValueError, match="num is 2; expected an integer of at least 3"):
        _checks.check_integer("num", 2, least=3)
    with pytest.raises(ValueError, match="num is 0; expected an integer of at least 1"):
        _checks.check_integer("num", 0)


def test_sizes_are_at_least_1():
    _checks.check_sizes(channels=1, num_classes=2)
    with pytest.raises(ValueError, match="num_classes is 0; expected at least 1"):
        _checks.check_sizes(channels=1, num_classes=0)


def test_dropout_is_a_probability_below_1():
    for dropout in (0, 0.5):
        _checks.check_dropout(dropout)
    for dropout in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"dropout is {dropout}; expected 0 or"):
            _checks.check_dropout(dropout)
