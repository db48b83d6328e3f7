import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas import analysis, genotypes, networks, train

NUM = 12


def linear_loss(params, constants, batch):
    """A mean over the batch whose gradients are `constants * x` and 1."""
    return (batch["x"] @ params["w"] * constants + params["b"]).mean()


def linear_case():
    x = jax.random.normal(jax.random.key(0), (NUM, 5))
    return {"w": jnp.ones(5), "b": jnp.zeros(())}, jnp.float32(3), {"x": x}


@pytest.mark.parametrize("chunk_size", [1, 5, 8, 12, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_a_linear_model_is_measured_exactly(batch_size, chunk_size):
    params, scale, examples = linear_case()
    num = NUM // batch_size
    x = np.asarray(examples["x"], np.float64)[: num * batch_size]
    gradients = 3 * x.reshape(num, batch_size, 5).mean(1)
    measure = jax.jit(
        analysis.gradient_variance(
            linear_loss, batch_size=batch_size, chunk_size=chunk_size
        )
    )
    found = measure(params, scale, examples)
    mean = gradients.mean(0)
    expected = {
        "gradient_variance": np.square(gradients - mean).sum(1).mean(),
        "squared_gradient_norm": np.square(mean).sum() + 1,  # the bias has 1
        "loss": 3 * x.sum(1).mean(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_equal_gradients_have_no_variance_however_large():
    params, scale, examples = linear_case()
    equal = {"x": jnp.tile(1e3 * examples["x"][:1], (NUM, 1))}
    found = analysis.gradient_variance(linear_loss, chunk_size=5)(params, scale, equal)
    assert found["gradient_variance"] < 1e-8 * found["squared_gradient_norm"]


def test_batches_vary_less_by_their_size():
    params, scale, _ = linear_case()
    examples = {"x": jax.random.normal(jax.random.key(1), (4000, 5))}
    one, ten = (
        analysis.gradient_variance(linear_loss, batch_size=size, chunk_size=64)(
            params, scale, examples
        )["gradient_variance"]
        for size in (1, 10)
    )
    assert one / ten == pytest.approx(10, rel=0.2)


def test_cells_against_one_gradient_after_another():
    network = networks.micro(genotypes.named("DARTS"), 2, 3, 4)
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(1), images, train=True))()
    examples = {"image": images, "label": jnp.arange(5, dtype=jnp.int32) % 4}
    step = train.network_evaluation_step(network, train.classification())

    def loss(params, batch_stats, batch):
        return step(params, batch_stats, batch)["loss"]

    measure = jax.jit(analysis.gradient_variance(loss, chunk_size=3))
    found = measure(variables["params"], variables["batch_stats"], examples)
    gradient = jax.jit(jax.grad(loss))
    gradients = np.stack(
        [
            np.concatenate(
                [
                    np.ravel(leaf)
                    for leaf in jax.tree.leaves(
                        gradient(
                            variables["params"],
                            variables["batch_stats"],
                            jax.tree.map(lambda a, i=i: a[i : i + 1], examples),
                        )
                    )
                ]
            ).astype(np.float64)
            for i in range(5)
        ]
    )
    expected = np.square(gradients - gradients.mean(0)).sum(1).mean()
    np.testing.assert_allclose(found["gradient_variance"], expected, rtol=1e-4)


def test_surfaces_of_variance():
    """Of `w**2 * x / 2` the gradients are `w * x`: the variance grows with w**2."""

    def loss(params, constants, batch):
        del constants
        return (jnp.square(params["w"]) * batch["x"]).mean() / 2

    x = jax.random.normal(jax.random.key(2), (NUM,))
    plane = analysis.Plane(*({"w": jnp.array([v])} for v in (1.0, 1.0, 0.5)))
    measurer = analysis.make_surface_fn(analysis.gradient_variance(loss))
    surface = measurer(plane, None, {"x": x}, [-1.0, 0.0, 2.0], [-2.0, 0.0])
    w = 1 + np.array([[-1.0, 0.0, 2.0]]) + 0.5 * np.array([[-2.0], [0.0]])
    np.testing.assert_allclose(
        surface.values["gradient_variance"],
        np.square(w) * np.var(np.asarray(x)),
        rtol=1e-5,
        atol=1e-7,
    )


def test_wrong_inputs():
    params, scale, examples = linear_case()
    measure = analysis.gradient_variance(linear_loss, batch_size=7)
    with pytest.raises(ValueError, match="there are 1 batches of 7 examples"):
        measure(params, scale, examples)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        analysis.gradient_variance(linear_loss, chunk_size=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        analysis.gradient_variance(linear_loss, batch_size=0)
