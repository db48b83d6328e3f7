import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import analysis, genotypes, networks, train
from jaxnas.analysis import landscape

X, Y = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), np.array([-2.0, 0.0, 2.0])


def quadratic(params, constants, batch):
    """`|w - target|^2`, the same for every example but for a factor."""
    distance = jnp.square(params["w"] - constants).sum() + jnp.square(params["b"]).sum()
    weight = batch["weight"]
    return {"loss": (weight * batch["factor"]).sum() / weight.sum() * distance}


def quadratic_case():
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.25])}
    directions = {"w": jnp.array([[1.0, 0.0], [2.0, -1.0]]), "b": jnp.zeros(1)}
    others = {"w": jnp.array([[0.0, 1.0], [0.0, 1.0]]), "b": jnp.zeros(1)}
    plane = analysis.Plane(params, directions, others)
    target = jnp.array([[1.0, 1.0], [1.0, 1.0]])
    examples = {"factor": jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])}
    return plane, target, examples


def quadratic_values():
    plane, target, _ = quadratic_case()
    w, d, e = (np.asarray(part["w"], np.float64) for part in plane)
    return (
        np.array(
            [[3.0 * ((w + a * d + b * e - target) ** 2).sum() for a in X] for b in Y]
        )
        + 3 * 0.25**2
    )


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("point_batch_size", [1, 2, 7])
def test_a_quadratic_is_measured_exactly(num_devices, point_batch_size):
    measurer = analysis.make_surface_fn(
        analysis.mean_metrics(quadratic, batch_size=2),
        point_batch_size=point_batch_size,
        devices=jax.local_devices()[:num_devices],
    )
    surface = measurer(*quadratic_case(), X, Y)
    assert surface.values["loss"].shape == (3, 5)
    np.testing.assert_allclose(surface.values["loss"], quadratic_values(), rtol=1e-6)
    assert surface.at_center("loss") == pytest.approx(quadratic_values()[1, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_every_example_counts_once(batch_size):
    plane, target, examples = quadratic_case()
    measure = jax.jit(analysis.mean_metrics(quadratic, batch_size))
    found = measure(plane.center, target, examples)["loss"]
    np.testing.assert_allclose(found, quadratic_values()[1, 2], rtol=1e-6)


def test_the_center_of_a_plane_is_its_weights_to_the_bit():
    params = {"w": jax.random.normal(jax.random.key(0), (7, 5))}
    plane = analysis.random_plane(jax.random.key(1), params)
    point = jax.jit(plane.point)(jnp.float32(0), jnp.float32(0))
    np.testing.assert_array_equal(point["w"], params["w"])


def test_filters_of_directions_have_the_norms_of_the_weights():
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "conv": jax.random.normal(keys[0], (3, 3, 4, 6)),
        "stacked": 5 * jax.random.normal(keys[1], (2, 4, 6)),
        "scale": jax.random.normal(keys[2], (6,)),
        "stacked_scale": jax.random.normal(keys[3], (2, 6)),
    }
    stacks = {"conv": 0, "stacked": 1, "scale": 0, "stacked_scale": 1}
    plane = analysis.random_plane(keys[4], params, stacks)
    for direction in plane[1:]:
        for name, axes in (("conv", (0, 1, 2)), ("stacked", (1,))):
            np.testing.assert_allclose(
                np.square(direction[name]).sum(axes),
                np.square(params[name]).sum(axes),
                rtol=1e-5,
            )
        assert not direction["scale"].any() and not direction["stacked_scale"].any()
    first, second = (part["conv"].ravel() for part in plane[1:])
    cosine = first @ second / jnp.linalg.norm(first) / jnp.linalg.norm(second)
    assert 0 < abs(cosine) < 0.3


def test_directions_depend_on_the_key_alone():
    params = {"w": jnp.ones((4, 3))}
    one, same, other = (
        analysis.random_plane(jax.random.key(seed), params) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.first["w"], same.first["w"])
    assert not np.array_equal(one.first["w"], other.first["w"])


def test_zero_filters_do_not_move():
    weights = jnp.array([[0.0, 1.0], [0.0, 2.0]])
    direction = analysis.filter_normalized(jnp.ones((2, 2)), weights)
    np.testing.assert_allclose(direction, [[0, 2.5**0.5]] * 2, rtol=1e-6)


@functools.cache
def trained_network():
    """A tiny network of cells, with running statistics that are not its first."""
    network = networks.micro(genotypes.named("DARTS"), 2, 3, 4)
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
    variables = network.init(jax.random.key(1), images, train=True)
    _, updated = jax.jit(
        lambda v: network.apply(v, images, train=True, mutable=["batch_stats"])
    )(variables)
    examples = {"image": images, "label": jnp.arange(6, dtype=jnp.int32) % 4}
    return network, variables["params"], updated["batch_stats"], examples


def test_the_center_has_the_loss_of_the_network():
    network, params, batch_stats, examples = trained_network()
    step = train.network_evaluation_step(network, train.classification())
    stacks = networks.num_batch_dims(params)
    plane = analysis.random_plane(jax.random.key(2), params, stacks)
    measurer = analysis.make_surface_fn(analysis.mean_metrics(step, batch_size=6))
    grid = analysis.coordinates(0.5, 3)
    surface = measurer(plane, batch_stats, examples, grid, grid)
    expected = jax.jit(step)(params, batch_stats, examples)
    assert surface.at_center("loss") == float(expected["loss"])
    assert surface.at_center("accuracy") == float(expected["accuracy"])
    assert np.ptp(surface.values["loss"]) > 0


def test_interrupted_measurements_go_on(tmp_path, monkeypatch):
    measured = []

    def measure(params, constants, examples):
        jax.debug.callback(lambda: measured.append(0))
        return analysis.mean_metrics(quadratic, 2)(params, constants, examples)

    measurer = analysis.make_surface_fn(measure)
    write_rows = landscape._write_rows

    def write_two_rows(*args):
        write_rows(*args)
        if len(args[-1]) == 2:
            raise KeyboardInterrupt

    file = tmp_path / "surface.npz"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(landscape, "_write_rows", write_two_rows)
        measurer(*quadratic_case(), X, Y, file)
    half = analysis.load_surface(file).values["loss"]
    np.testing.assert_array_equal(np.isnan(half).all(axis=1), [False, False, True])
    jax.effects_barrier()
    assert len(measured) == 10
    surface = measurer(*quadratic_case(), X, Y, file)
    jax.effects_barrier()
    assert len(measured) == 15  # the last row only
    measurer(*quadratic_case(), X, Y, file)
    jax.effects_barrier()
    assert len(measured) == 15
    whole = measurer(*quadratic_case(), X, Y)
    for found in (surface, analysis.load_surface(file)):
        np.testing.assert_array_equal(found.values["loss"], whole.values["loss"])
        np.testing.assert_array_equal(found.alphas, X)
        np.testing.assert_array_equal(found.betas, Y)


@pytest.mark.parametrize("what", ["weights", "constants", "examples", "places"])
def test_a_file_of_another_surface_is_refused(tmp_path, what):
    measurer = analysis.make_surface_fn(analysis.mean_metrics(quadratic, 2))
    file = tmp_path / "surface.npz"
    plane, target, examples = quadratic_case()
    measurer(plane, target, examples, X, Y, file)
    places = X
    if what == "weights":
        center = plane.center | {"b": plane.center["b"] + 1}
        plane = plane._replace(center=center)
    elif what == "constants":
        target = target + 1
    elif what == "examples":
        examples = {"factor": examples["factor"][::-1]}
    else:
        places = X / 2
    with pytest.raises(ValueError, match="of other weights, directions, examples"):
        measurer(plane, target, examples, places, Y, file)


def test_damaged_files_are_told(tmp_path):
    file = tmp_path / "surface.npz"
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no surface"):
        analysis.load_surface(file)
    good: dict[str, Any] = {
        "alphas": X,
        "betas": Y,
        "loss": np.zeros((3, 5)),
        "fingerprint": "a",
    }
    for changes, message in (
        (
            {"loss": np.zeros((5, 3))},
            r"'loss' is \(5, 3\) of float64; expected \(3",
        ),
        ({"loss": np.ones((3, 5), bool)}, "'loss' is .* of bool; expected"),
        ({"alphas": X[None]}, r"'alphas' is \(1, 5\) of float64; expected \(5,\)"),
        ({"num_rows": 1.0}, "'num_rows' is .* of float64"),
        ({"num_rows": 4}, "num_rows is 4; expected 0 to 3"),
        ({"fingerprint": np.array(["a"])}, r"'fingerprint' is \(1,\) of"),
        ({"x": np.array({})}, "is no surface: 'x' is of type '|O'"),
    ):
        arrays: dict[str, Any] = {"num_rows": 1} | good | changes
        np.savez(file, **arrays)
        with pytest.raises(analysis.SurfaceError, match=message):
            analysis.load_surface(file)
    np.savez(tmp_path / "other.npz", alphas=X)
    with pytest.raises(ValueError, match="lacks betas, num_rows, fingerprint"):
        analysis.load_surface(tmp_path / "other.npz")


def test_a_row_that_is_not_a_number_has_been_measured(tmp_path, monkeypatch):
    """A surface is complete when all rows were measured, whatever they hold."""

    def broken(params, constants, batch):
        del constants, batch
        beta = params["w"][0]
        return {"loss": jnp.where(beta > 0, jnp.nan, 1.0)}

    plane = analysis.Plane(*({"w": jnp.full((1,), x)} for x in (0.0, 0.0, 1.0)))
    examples, file = {"factor": jnp.ones(1)}, tmp_path / "surface.npz"
    measurer = analysis.make_surface_fn(analysis.mean_metrics(broken, 1))

    def interrupt(num_rows):
        if num_rows == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measurer(plane, None, examples, X, Y, file, interrupt)
    half = analysis.load_surface(file)
    assert not half.is_complete
    np.testing.assert_array_equal(half.is_measured, [True, True, False])
    for surface in (
        measurer(plane, None, examples, X, Y, file),
        analysis.load_surface(file),
    ):
        assert surface.is_complete
        assert np.isnan(surface.values["loss"][Y > 0]).all()
        assert not np.isnan(surface.values["loss"][Y <= 0]).any()


def test_walls_that_are_not_finite_are_kept():
    def steep(params, constants, batch):
        loss = jnp.exp(1e3 * jnp.abs(params["w"]).sum())
        return {"loss": loss * batch["factor"].mean()}

    plane = analysis.Plane(*({"w": jnp.full((1,), x)} for x in (0.0, 1.0, 0.0)))
    measurer = analysis.make_surface_fn(analysis.mean_metrics(steep, 1))
    surface = measurer(plane, None, {"factor": jnp.ones(1)}, X, [0.0])
    np.testing.assert_array_equal(
        np.isinf(surface.values["loss"]), [[True, True, False, True, True]]
    )
    assert analysis.basin_share(surface) == 0.2


def test_basin_share():
    loss = np.array([[3.0, 1.5, 9.0], [2.1, 1.0, 2.0], [np.nan, np.inf, 0.5]])
    axis = np.array([-1.0, 0.0, 1.0])
    surface = analysis.Surface(axis, axis, {"loss": loss})
    assert analysis.basin_share(surface) == pytest.approx(4 / 9)
    assert analysis.basin_share(surface, rise=2.0) == pytest.approx(6 / 9)
    with pytest.raises(ValueError, match="no point at"):
        analysis.basin_share(surface._replace(alphas=axis + 0.5))
    loss[1, 1] = np.nan
    with pytest.raises(ValueError, match="loss of the center is nan"):
        analysis.basin_share(surface)


def test_grids_have_a_center():
    np.testing.assert_allclose(analysis.coordinates(1.0, 5), X)
    assert 0.0 in analysis.coordinates(0.3, 51)
    with pytest.raises(ValueError, match="resolution is 4; expected an odd number"):
        analysis.coordinates(1.0, 4)
    with pytest.raises(ValueError, match="radius is nan"):
        analysis.coordinates(float("nan"), 5)


def test_wrong_inputs():
    measure = analysis.mean_metrics(quadratic, 2)
    measurer = analysis.make_surface_fn(measure)
    plane, target, examples = quadratic_case()
    with pytest.raises(ValueError, match=r"alphas has shape \[0\]"):
        measurer(plane, target, examples, [], Y)
    wrong = {"factor": jnp.ones(2), "other": jnp.ones(3)}
    with pytest.raises(ValueError, match="expected as many of each"):
        measurer(plane, target, wrong, X, Y)
    with pytest.raises(ValueError, match="batch_size is 0"):
        analysis.mean_metrics(quadratic, 0)
    with pytest.raises(ValueError, match="point_batch_size is 0"):
        analysis.make_surface_fn(measure, point_batch_size=0)


def test_one_compilation_serves_all_planes():
    num_traces = 0

    def measure(params, constants, examples):
        nonlocal num_traces
        num_traces += 1
        return analysis.mean_metrics(quadratic, 2)(params, constants, examples)

    measurer = analysis.make_surface_fn(measure)
    plane, target, examples = quadratic_case()
    measurer(plane, target, examples, X, Y)
    first = num_traces
    measurer(plane._replace(center=plane.first), target + 1, examples, 2 * X, Y[:1])
    assert num_traces == first
