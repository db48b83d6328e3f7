"""Pure steps: means over architectures, the same on one device and on four."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy_steps import NET, PROVIDER, TASK

from jaxnas import spaces, supernets, train, weights
from jaxnas.data import Split
from jaxnas.train import batches
from jaxnas.types import Supernet, Task, WeightProvider

NUM_DEVICES = 4
ARCHS = np.array(
    [[0, 1], [2, 0], [1, 1], [0, 0], [2, 1], [1, 0], [1, 1], [0, 1]], np.int32
)


def images_and_labels(num=8, size=2):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(num, size, size, 3)), float),
        "label": jnp.asarray(rng.integers(3, size=num), jnp.int32),
    }


def pmapped(function, axis, sharded):
    """Run on four devices by `pmap`; only the arguments in `sharded` are divided."""

    def run(*args):
        divided = [
            jax.tree.map(lambda x: x.reshape(NUM_DEVICES, -1, *x.shape[1:]), arg)
            if index in sharded
            else arg
            for index, arg in enumerate(args)
        ]
        in_axes = tuple(0 if i in sharded else None for i in range(len(args)))
        return jax.pmap(function, axis_name=axis, in_axes=in_axes, out_axes=None)(
            *divided
        )

    return run


def sharded_mapped(function, axis, sharded):
    """The same by `shard_map`."""
    mesh = Mesh(np.array(jax.devices()), (axis,))

    def run(*args):
        in_specs = tuple(
            PartitionSpec(axis) if i in sharded else PartitionSpec()
            for i in range(len(args))
        )
        return jax.jit(
            jax.shard_map(
                function,
                mesh=mesh,
                in_specs=in_specs,
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        )(*args)

    return run


both_maps = pytest.mark.parametrize("mapped", [pmapped, sharded_mapped])

# Which argument of a step each axis divides: the batch, or the architectures.
BOTH_AXES = [
    pytest.param("batch_axis", 2, id="batch_axis"),
    pytest.param("arch_axis", 1, id="arch_axis"),
]


@jax.jit
def mean_gradient(params, archs, batch):
    """An independent reference: the gradient of the mean loss, in one piece."""

    def loss(params):
        results = [
            TASK.loss(NET.apply(params, arch, batch["image"], train=True), batch)
            for arch in archs
        ]
        losses, metrics = zip(*results, strict=True)
        means = jax.tree.map(lambda *m: sum(m) / len(m), *metrics)
        return sum(losses) / len(losses), means

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_gradient_is_the_mean_over_architectures(num, x64):
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    step = jax.jit(train.weight_gradient(NET, PROVIDER, TASK))
    result = step(params, jnp.asarray(ARCHS[:num]), batch, jax.random.key(1))
    chex.assert_trees_all_close(
        result, mean_gradient(params, ARCHS[:num], batch), rtol=1e-12, atol=1e-14
    )
    # Two of these architectures use both classifiers, one only the second.
    assert bool((result[0]["out"][0] != 0).any()) == (num > 1)


@pytest.mark.parametrize(("at_once", "num"), [(2, 4), (3, 3), (8, 5)])
def test_architectures_at_the_same_time(at_once, num, x64):
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    archs, key = jnp.asarray(ARCHS[:num]), jax.random.key(1)
    gradient, evaluate = (
        [make(NET, PROVIDER, TASK, archs_at_once=size) for size in (1, at_once)]
        for make in (train.weight_gradient, train.evaluation_step)
    )
    expected, actual = (jax.jit(f)(params, archs, batch, key) for f in gradient)
    chex.assert_trees_all_close(actual, expected, rtol=1e-12, atol=1e-14)
    expected, actual = (jax.jit(f)(params, archs, batch) for f in evaluate)
    chex.assert_trees_all_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_architectures_that_would_be_left_over():
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    step = train.weight_gradient(NET, PROVIDER, TASK, archs_at_once=2)
    with pytest.raises(ValueError, match="2, which does not divide 3 architectures"):
        step(params, jnp.asarray(ARCHS[:3]), batch, jax.random.key(1))


def test_every_architecture_has_a_key_of_its_own():
    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        del arch, batch_axis
        assert train and key is not None
        return weights["scale"] * jax.random.uniform(key) + 0 * inputs.sum()

    net = Supernet(NET.space, lambda key: {"scale": jnp.ones(())}, apply)
    task = Task(lambda outputs, batch: (outputs, {"out": outputs}))
    step = train.weight_gradient(net, weights.shared(net), task)
    archs, key = jnp.zeros((3, 2), jnp.int32), jax.random.key(7)
    gradient, metrics = step(net.init(key), archs, images_and_labels(), key)
    draws = [float(jax.random.uniform(key)) for key in jax.random.split(key, 3)]
    np.testing.assert_allclose(gradient["scale"], np.mean(draws), rtol=1e-6)
    np.testing.assert_allclose(metrics["out"], np.mean(draws), rtol=1e-6)


def test_gradient_passes_through_the_provider(x64):
    def apply(params, arch):
        scale = (arch[0] + 1).astype(float)
        return jax.tree.map(lambda leaf: leaf * scale, params)

    provider = WeightProvider(NET.init, apply)
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    arch = jnp.asarray(ARCHS[1:2])  # scales the weights by 3
    gradient = jax.jit(train.weight_gradient(NET, provider, TASK))
    result, _ = gradient(params, arch, batch, jax.random.key(1))
    scaled = jax.tree.map(lambda leaf: 3 * leaf, params)
    expected, _ = mean_gradient(scaled, arch, batch)
    chex.assert_trees_all_close(
        result, jax.tree.map(lambda leaf: 3 * leaf, expected), rtol=1e-12, atol=1e-14
    )


@both_maps
@pytest.mark.parametrize(("axis", "divided"), BOTH_AXES)
def test_gradient_is_the_same_on_four_devices(mapped, axis, divided, x64):
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    archs, key = jnp.asarray(ARCHS), jax.random.key(1)
    options: Any = {axis: "devices"}
    step = train.weight_gradient(NET, PROVIDER, TASK, **options)
    results = mapped(step, "devices", [divided])(params, archs, batch, key)
    chex.assert_trees_all_close(
        results, mean_gradient(params, ARCHS, batch), rtol=1e-12, atol=1e-14
    )


def test_weight_step_is_a_plain_optax_step(x64):
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.add_decayed_weights(0.1),
        optax.sgd(0.5, 0.9),
    )
    batch, key = images_and_labels(), jax.random.key(1)
    state = train.init_weights(PROVIDER, optimizer, jax.random.key(0))
    params = PROVIDER.init(jax.random.key(0))
    opt_state = optimizer.init(params)
    chex.assert_trees_all_equal(state, train.WeightState(params, opt_state))

    step = jax.jit(train.weight_step(NET, PROVIDER, TASK, optimizer))
    for archs in (ARCHS[:2], ARCHS[2:4]):
        gradient, expected_metrics = mean_gradient(params, archs, batch)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        state, metrics = step(state, jnp.asarray(archs), batch, key)
        chex.assert_trees_all_close(
            state, train.WeightState(params, opt_state), rtol=1e-12, atol=1e-14
        )
        chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-12)


def test_weight_step_is_the_same_on_four_devices(x64):
    optimizer = optax.sgd(0.5, 0.9)
    args = (
        train.init_weights(PROVIDER, optimizer, jax.random.key(0)),
        jnp.asarray(ARCHS),
        images_and_labels(),
        jax.random.key(1),
    )
    expected = jax.jit(train.weight_step(NET, PROVIDER, TASK, optimizer))(*args)
    step = train.weight_step(NET, PROVIDER, TASK, optimizer, batch_axis="devices")
    result = pmapped(step, "devices", [2])(*args)
    chex.assert_trees_all_close(result, expected, rtol=1e-12, atol=1e-14)


def expected_metrics(logits, labels, weight):
    """Loss and accuracy of the examples that count, in numpy."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    log_sum = np.log(np.exp(logits).sum(-1))
    losses = log_sum - logits[np.arange(labels.size), labels]
    return {
        "loss": np.average(losses, weights=weight),
        "accuracy": np.average(logits.argmax(-1) == labels, weights=weight),
    }


# The last three of eight are padding: on four devices, one has only padding.
PADDED = [1.0] * 5 + [0.0] * 3


@pytest.mark.parametrize("weight", [None, PADDED], ids=["all count", "padded"])
@pytest.mark.parametrize("mapped", [None, pmapped, sharded_mapped])
def test_evaluation_counts_every_example_once(mapped, weight, x64):
    params, batch = NET.init(jax.random.key(0)), images_and_labels()
    if weight is not None:
        batch["weight"] = jnp.array(weight)
    archs = jnp.asarray(ARCHS[:3])
    if mapped is None:
        step = jax.jit(train.evaluation_step(NET, PROVIDER, TASK))
    else:
        step = train.evaluation_step(NET, PROVIDER, TASK, batch_axis="devices")
        step = mapped(step, "devices", [2])
    result = step(params, archs, batch)
    expected = [
        expected_metrics(
            # Padding takes part in the statistics of the batch.
            NET.apply(params, arch, batch["image"], train=False),
            batch["label"],
            weight,
        )
        for arch in archs
    ]
    assert set(result) == {"loss", "accuracy"}
    for name, values in result.items():
        chex.assert_shape(values, (3,))
        np.testing.assert_allclose(
            values, [metrics[name] for metrics in expected], rtol=1e-12
        )


def test_evaluation_is_not_training():
    def apply(weights, arch, inputs, *, train, key=None, batch_axis=None):
        assert not train and key is None and batch_axis is None
        return NET.apply(weights, arch, inputs, train=train)

    net = Supernet(NET.space, NET.init, apply)
    step = train.evaluation_step(net, weights.shared(net), TASK)
    metrics = step(
        net.init(jax.random.key(0)), jnp.asarray(ARCHS[:1]), images_and_labels()
    )
    chex.assert_tree_all_finite(metrics)


# The micro supernet ---------------------------------------------------------------


def test_micro_supernet_is_the_same_on_four_devices(x64):
    space = spaces.MicroSpace(1, ("skip_connect", "avg_pool_3x3"))
    net = supernets.micro(space, channels=2, num_cells=3, num_classes=3)
    args = (
        # Double precision leaves no doubt about what differs.
        jax.tree.map(lambda w: w.astype(float), jax.jit(net.init)(jax.random.key(0))),
        jnp.array([[0, 1, 1, 0, 1, 0, 1, 1]], jnp.int32),
        images_and_labels(8, 8),
        jax.random.key(1),
    )
    expected = jax.jit(train.weight_gradient(net, weights.shared(net), TASK))(*args)
    step = train.weight_gradient(net, weights.shared(net), TASK, batch_axis="devices")
    result = pmapped(step, "devices", [2])(*args)
    chex.assert_trees_all_close(result, expected, rtol=1e-7, atol=1e-10)
    gradient, _ = result
    assert sum(bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient)) > 10


# The classification task ----------------------------------------------------------

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.0], [1.0, 3.0, -1.0], [0.0, 0.0, 4.0]])
LABELS = np.array([0, 2, 1, 0])


@pytest.mark.parametrize(
    "weight",
    [None, [1.0, 1.0, 0.0, 1.0], [2.0, 1.0, 0.0, 3.0], [0.5, 1.5, 0.25, 0.0]],
)
def test_classification_weighs_its_examples(weight):
    batch = {"label": jnp.asarray(LABELS, jnp.int32)}
    if weight is not None:
        batch["weight"] = jnp.array(weight)
    loss, metrics = train.classification().loss(jnp.asarray(LOGITS, jnp.float32), batch)
    expected = expected_metrics(LOGITS, LABELS, weight)
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert value.shape == () and value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)
    assert loss == metrics["loss"]


def test_classification_of_padding_alone_is_zero():
    batch = {"label": jnp.asarray(LABELS, jnp.int32), "weight": jnp.zeros(4)}
    loss, metrics = train.classification().loss(jnp.asarray(LOGITS, jnp.float32), batch)
    assert loss == metrics["loss"] == metrics["accuracy"] == 0


@pytest.mark.parametrize(
    ("options", "factor"), [({}, 0.4), ({"auxiliary_weight": 2}, 2)]
)
def test_auxiliary_loss_is_in_the_loss_and_not_in_the_metrics(options, factor):
    batch = {"label": jnp.asarray(LABELS, jnp.int32)}
    task = train.classification(**options)
    logits, auxiliary = (jnp.asarray(x, jnp.float32) for x in (LOGITS, -LOGITS))
    loss, metrics = task.loss((logits, auxiliary), batch)
    main = expected_metrics(LOGITS, LABELS, None)
    extra = expected_metrics(-LOGITS, LABELS, None)
    np.testing.assert_allclose(loss, main["loss"] + factor * extra["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], main["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], main["accuracy"], rtol=1e-6)


def test_classification_of_half_precision_is_computed_in_single():
    batch = {"label": jnp.asarray(LABELS, jnp.int32)}
    loss, _ = TASK.loss(jnp.asarray(LOGITS, jnp.bfloat16), batch)
    assert loss.dtype == jnp.float32
    expected = expected_metrics(LOGITS, LABELS, None)["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


# Batches --------------------------------------------------------------------------


def numbered(num):
    """Images that hold their own number, and labels that follow from it."""
    images = np.broadcast_to(np.arange(num)[:, None, None, None], (num, 2, 2, 1))
    return Split(images.astype(np.uint8), (np.arange(num) * 3).astype(np.int32))


def keep(key, images):
    del key
    return images.astype(jnp.float32)


def shuffled(key, split, epoch, position, batch_size, preprocess):
    order = batches.epoch_order(key, len(split.labels), epoch)
    return batches.shuffled(key, split, order, position, batch_size, preprocess, TASK)


draw = jax.jit(shuffled, static_argnums=(4, 5))


def epoch_of(epoch, num=10, size=3, preprocess=keep, seed=0):
    """One epoch, batch by batch."""
    return [
        draw(jax.random.key(seed), numbered(num), epoch, position, size, preprocess)
        for position in range(num // size)
    ]


def numbers(batch):
    return np.asarray(batch["image"])[:, 0, 0, 0]


def test_shuffled_covers_an_epoch_without_repetition():
    seen = []
    for batch in epoch_of(0, num=12):
        assert batch["image"].shape == (3, 2, 2, 1) and batch["label"].shape == (3,)
        np.testing.assert_array_equal(batch["label"], 3 * numbers(batch))
        seen.extend(numbers(batch))
    assert sorted(seen) == list(range(12)) and seen != list(range(12))


def test_shuffled_leaves_out_other_images_in_other_epochs():
    left_out = set()
    for epoch in range(8):
        seen = np.concatenate([numbers(batch) for batch in epoch_of(epoch)])
        assert len(set(seen)) == 9
        left_out |= set(range(10)) - set(seen)
    assert len(left_out) > 2


def test_shuffled_is_a_pure_function_of_key_epoch_and_position():
    split = Split(*map(jnp.asarray, numbered(10)))  # pyright: ignore[reportArgumentType]
    orders = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        compiled = epoch_of(epoch, seed=seed)
        for position, batch in enumerate(compiled):
            place = (jnp.int32(epoch), jnp.int32(position))
            eager = shuffled(jax.random.key(seed), split, *place, 3, keep)
            chex.assert_trees_all_equal(eager, batch)
        orders[seed, epoch] = tuple(np.concatenate([numbers(b) for b in compiled]))
    assert len(set(orders.values())) == 3


@pytest.mark.parametrize("num", [1, 2, 10, 45])
def test_the_order_of_an_epoch_is_the_permutation_of_its_key(num):
    key = jax.random.key(3)
    for epoch in (0, 1, 5):
        order = batches.epoch_order(key, num, epoch)
        order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
        expected = jax.random.permutation(order_key, num)
        np.testing.assert_array_equal(order.indices, expected)
        assert order.epoch == epoch


def test_an_order_is_handed_on_and_drawn_again_for_another_epoch():
    key = jax.random.key(3)
    draw = jax.jit(batches.epoch_order, static_argnums=1)
    order = batches.no_order(10)
    for epoch in (0, 0, 1, 4, 4, 0):
        order = jax.jit(batches.update_order)(order, key, jnp.int32(epoch))
        chex.assert_trees_all_equal(order, draw(key, 10, epoch))
    # What is known is not drawn: this is no permutation.
    known = batches.EpochOrder(jnp.int32(2), jnp.zeros(10, jnp.int32))
    chex.assert_trees_all_equal(batches.update_order(known, key, jnp.int32(2)), known)


@pytest.mark.parametrize("x64", [False, True])
def test_a_loop_draws_each_order_once(x64, monkeypatch):
    """Its batches are those of orders drawn for every step."""
    drawn = []
    draw_order = batches.epoch_order

    def spy(key, num_images, epoch):
        jax.debug.callback(lambda epoch: drawn.append(int(epoch)), epoch)
        return draw_order(key, num_images, epoch)

    monkeypatch.setattr(batches, "epoch_order", spy)
    key, split = jax.random.key(0), jax.tree.map(jnp.asarray, numbered(10))

    def one_step(step, carry):
        order, taken = carry
        order = batches.update_order(order, key, step // 3)
        batch = batches.shuffled(key, split, order, step % 3, 3, keep, TASK)
        return order, taken.at[step].set(batch["label"])

    @jax.jit
    def advance(start, end):
        carry = batches.no_order(10), jnp.zeros((12, 3), jnp.int32)
        return jax.lax.fori_loop(start, end, one_step, carry)[1]

    with jax.enable_x64(x64):
        taken = advance(jnp.int32(1), jnp.int32(11))
        jax.effects_barrier()
        assert sorted(drawn) == [0, 1, 2, 3]
        for step in range(1, 11):
            expected = shuffled(key, split, step // 3, step % 3, 3, keep)
            np.testing.assert_array_equal(taken[step], expected["label"])


def test_every_batch_is_preprocessed_with_a_key_of_its_own():
    def noise(key, images):
        return keep(key, images) * 0 + jax.random.uniform(key)

    values = [
        float(numbers(batch)[0])
        for epoch in (0, 1)
        for batch in epoch_of(epoch, preprocess=noise)
    ]
    assert len(set(values)) == 6


def test_share_divides_a_batch_among_the_devices():
    batch = images_and_labels()
    assert batches.local_batch(batch, None, 4) is batch
    assert batches.local_batch(batch, "devices", 1) is batch
    shares = jax.pmap(
        lambda _: batches.local_batch(batch, "devices", NUM_DEVICES),
        axis_name="devices",
    )(np.arange(NUM_DEVICES))
    whole = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), shares)
    chex.assert_shape(shares["label"], (4, 2))
    chex.assert_trees_all_equal(whole, batch)


RAGGED = [(6, 3), (7, 3), (3, 8), (1, 4), (5, 1)]


@pytest.mark.parametrize(("num", "size"), RAGGED)
def test_evaluation_batches_count_every_image_once(num, size):
    counted = []
    for batch in batches.evaluation_batches(numbered(num), size):
        assert batch["image"].shape == (size, 2, 2, 1)
        assert batch["image"].dtype == np.uint8
        assert batch["weight"].dtype == np.float32
        np.testing.assert_array_equal(batch["label"], 3 * numbers(batch))
        counted.extend(numbers(batch)[batch["weight"] == 1])
        assert set(batch["weight"]) <= {0, 1} and batch["weight"][0] == 1
    assert counted == batches.evaluation_order(num).tolist()
    assert sorted(counted) == list(range(num))


def test_a_subset_is_what_is_evaluated_first():
    order = batches.evaluation_order(50)
    assert batches.subset(numbered(50), 20).labels.tolist() == (3 * order[:20]).tolist()
    assert batches.subset(numbered(5), 20).labels.size == 5


@pytest.mark.parametrize(("num", "size"), RAGGED)
def test_mean_metrics_is_the_mean_over_all_images(num, size):
    @jax.jit
    def step(batch):
        def mean(values):
            return (values * batch["weight"]).sum() / batch["weight"].sum()

        values = batch["image"][:, 0, 0, 0].astype(jnp.float32)
        return {"mean": mean(values), "squares": mean(values**2)[None]}

    means = batches.mean_metrics(step, numbered(num), size)
    values = np.arange(num)
    np.testing.assert_allclose(means["mean"], values.mean(), rtol=1e-6)
    np.testing.assert_allclose(means["squares"], [np.square(values).mean()], rtol=1e-6)
