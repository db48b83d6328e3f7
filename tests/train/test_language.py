"""Reading of texts: windows, states that are carried, what is skipped, perplexity."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_language import DROPOUT, GENOTYPE, NUM_WORDS, texts

from jaxnas import networks, ops, train
from jaxnas.train import language

NETWORK = networks.recurrent(GENOTYPE, NUM_WORDS, 5)
MODEL = train.language_model_of(NETWORK)
TEXT = texts().test


@pytest.fixture(scope="module")
def params():
    inputs = (jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 5), jnp.float32))
    params = NETWORK.init(jax.random.key(0), inputs, train=False)["params"]
    return jax.tree.map(lambda x: 4 * x, params)


def log_probs(params, words, state):
    """Log-probability of each word but the first, and the states after each."""
    outputs = MODEL(params, None, (jnp.asarray(words)[:, :-1], state))
    table = jax.nn.log_softmax(outputs.logits)
    chosen = jnp.take_along_axis(table, jnp.asarray(words)[:, 1:, None], axis=2)
    return np.asarray(chosen[..., 0]), outputs


@pytest.mark.parametrize("window", [1, 4, 50, 200])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_word_but_the_first_counts_once(params, batch_size, window):
    evaluate = train.make_language_eval_fn(MODEL, batch_size=batch_size, window=window)
    found = evaluate(params, TEXT)
    rows = np.array_split(np.arange(TEXT.size - 1), batch_size)
    longest = len(rows[0])  # rows are as long as the first, but for the last
    starts = range(0, TEXT.size - 1, longest)
    nats = np.concatenate(
        [
            log_probs(
                params, TEXT[None, s : s + longest + 1], jnp.zeros((1, 5), jnp.float32)
            )[0][0]
            for s in starts
        ]
    )
    assert nats.size == TEXT.size - 1
    assert found["loss"] == pytest.approx(-nats.mean(), rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))


def test_a_text_that_is_too_short_for_its_rows(params):
    evaluate = train.make_language_eval_fn(MODEL, batch_size=4)
    with pytest.raises(ValueError, match="the text has 4 tokens; expected more than"):
        evaluate(params, TEXT[:4])
    with pytest.raises(ValueError, match="word of the number 7; expected 0 to 6, the"):
        evaluate(params, TEXT + 1)


def test_an_infinite_loss_has_an_infinite_perplexity():
    assert language.with_perplexity(1e4)["perplexity"] == np.inf
    assert np.isnan(language.with_perplexity(float("nan"))["perplexity"])


def make_step(settings, optimizer=None, model=MODEL):
    optimizer = optax.sgd(1.0) if optimizer is None else optimizer
    step = jax.jit(language.reading_step(model, optimizer, settings))

    def run(state, rows, position, seed=0):
        key = jax.random.key(seed)
        return step(state, None, jnp.asarray(rows), jnp.int32(position), key)

    return run


def rows_of(num, length):
    rng = np.random.default_rng(1)
    return rng.integers(NUM_WORDS, size=(num, length)).astype(np.int32)


def test_windows_follow_each_other_and_states_are_carried(params):
    settings = train.ReadingSettings(batch_size=2, window=4)
    optimizer = optax.sgd(0.0)
    run, rows = make_step(settings, optimizer), rows_of(2, 14)
    state = language.init_reader(params, optimizer, 2)
    zeros = jnp.zeros((2, 5), jnp.float32)
    _, whole = log_probs(params, rows, zeros)
    for i in range(3):
        state, metrics = run(state, rows, i)
        assert int(state.position) == 4 * (i + 1)
        np.testing.assert_allclose(state.hidden, whole.hidden[:, 4 * i + 3], rtol=1e-5)
        nats, _ = log_probs(params, rows, zeros)
        expected = -nats[:, 4 * i : 4 * i + 4].mean()
        assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    # Words 12 and 13 make no window: the text begins anew, and so do the states.
    state, _ = run(state, rows, 3)
    assert int(state.position) == 4
    np.testing.assert_allclose(state.hidden, whole.hidden[:, 3], rtol=1e-5)
    # As they do with an epoch.
    state, _ = run(state._replace(hidden=state.hidden + 1), rows, 0)
    assert int(state.position) == 4
    np.testing.assert_allclose(state.hidden, whole.hidden[:, 3], rtol=1e-5)


def test_the_gradient_is_that_of_loss_and_penalties(params):
    settings = train.ReadingSettings(
        batch_size=2, window=4, activation_penalty=0.5, slowness_penalty=0.25
    )
    rows, key = rows_of(2, 9), jax.random.key(0)
    model = train.language_model_of(
        networks.recurrent(GENOTYPE, NUM_WORDS, 5, dropout=DROPOUT)
    )
    state = language.init_reader(params, optax.sgd(1.0), 2)
    state = state._replace(position=jnp.int32(4), hidden=0.3 + state.hidden)
    new, metrics = make_step(settings, model=model)(state, rows, 1)

    def loss(params):
        words = jnp.asarray(rows[:, 4:9])
        outputs = model(
            params,
            None,
            (words[:, :-1], state.hidden),
            train=True,
            key=key,
        )
        nats = optax.softmax_cross_entropy_with_integer_labels(
            outputs.logits, words[:, 1:]
        ).mean()
        changes = jnp.diff(outputs.hidden, axis=1)
        kept = outputs.dropped != 0
        assert not np.array_equal(outputs.dropped[:, 0], outputs.hidden[:, 0])
        assert np.array_equal(kept[:, 0], kept[:, 1])  # one mask for all time
        penalty = 0.5 * (outputs.dropped**2).mean() + 0.25 * (changes**2).mean()
        return nats + penalty, nats

    with jax.disable_jit():
        gradient, nats = jax.grad(loss, has_aux=True)(params)
    assert float(metrics["loss"]) == pytest.approx(float(nats), rel=1e-5)
    for name, before in params.items():
        np.testing.assert_allclose(
            before - new.params[name], gradient[name], rtol=1e-4, atol=1e-6
        )


def fragile(params, arch, inputs, *, train=False, key=None, batch_axis=None):
    """A model of single words, whose loss is not a number after word 0."""
    del arch, train, key, batch_axis
    tokens, state = inputs
    logits = params["embedding"][tokens]
    logits = jnp.where((tokens == 0)[..., None], jnp.nan, logits)
    return ops.LanguageOutputs(logits, state + 1, state[:, None], state[:, None])


def test_a_step_that_is_not_finite_is_skipped():
    settings = train.ReadingSettings(batch_size=1, window=2, max_skipped=2)
    run = make_step(settings, model=fragile)
    rows = np.array([[1, 2, 0, 1, 2, 0, 1, 1, 2, 2, 2]], np.int32)
    params = {"embedding": jnp.ones((3, 3), jnp.float32)}
    state = language.init_reader(params, optax.sgd(1.0), 1)
    means = {name: jnp.float32(9) for name in language.TRAIN_METRICS}
    seen, losses = [], []
    for i in range(5):
        before = state
        state, metrics = run(state, rows, i)
        means = language.mean_of_taken(means, metrics, jnp.int32(i))
        is_skipped = bool(metrics["is_skipped"])
        before, after = before.params["embedding"], state.params["embedding"]
        assert np.array_equal(before, after) == is_skipped
        if not is_skipped:
            losses.append(float(metrics["loss"]))
        assert float(means["train/num_skipped"]) == i + 1 - len(losses)
        is_hopeless = bool(metrics["is_hopeless"])
        seen.append((is_skipped, is_hopeless, float(state.hidden[0, 0])))
        # What is hopeless stays so until the host looks.
        mean = np.nan if i >= 2 else np.mean(losses)
        np.testing.assert_allclose(means["train/loss"], mean, rtol=1e-6)
        np.testing.assert_allclose(means["train/perplexity"], np.exp(mean), rtol=1e-6)
    # States are 1 after the first window, and begin anew after what is skipped.
    assert seen == [
        (False, False, 1.0),
        (True, False, 0.0),
        (True, True, 0.0),
        (False, False, 1.0),
        (False, False, 2.0),
    ]


def test_the_first_step_of_an_epoch_may_be_skipped():
    means = {name: jnp.float32(9) for name in language.TRAIN_METRICS}
    for position, loss in enumerate([np.nan, 2.0, 4.0]):
        metrics = {
            "loss": jnp.float32(loss),
            "is_skipped": jnp.isnan(loss),
            "is_hopeless": jnp.bool_(False),
        }
        means = language.mean_of_taken(means, metrics, jnp.int32(position))
    assert float(means["train/loss"]) == 3
    assert float(means["train/num_skipped"]) == 1


@pytest.mark.parametrize("window", [35, 20])
def test_random_lengths_are_those_of_awd_lstm(window):
    settings = train.ReadingSettings(window=window, random_windows=True)
    lengths = settings.lengths()
    assert sum(lengths.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    means = np.where(rng.random(400_000) < 0.95, window, window / 2)
    drawn = np.clip(rng.normal(means, 5), 5, window + 20)
    rounded = np.clip(5 * np.round(drawn / 5), min(lengths), max(lengths))
    for length, prob in lengths.items():
        assert prob == pytest.approx((rounded == length).mean(), abs=2e-3)
    assert settings.words_per_step() == pytest.approx(64 * rounded.mean(), rel=1e-3)
    assert train.ReadingSettings(window=window).lengths() == {window: 1.0}


def test_the_learning_rate_follows_the_length():
    """A model whose gradient is the same in every step."""

    def model(params, arch, inputs, *, train=False, key=None, batch_axis=None):
        tokens, state = inputs
        logits = jnp.zeros((*tokens.shape, 2), jnp.float32)
        logits = logits.at[..., 0].add(jnp.log(params["embedding"][0, 0]))
        return ops.LanguageOutputs(logits, state, state[:, None], state[:, None])

    settings = train.ReadingSettings(batch_size=1, window=10, random_windows=True)
    run = make_step(settings, model=model)
    state = language.init_reader(
        {"embedding": jnp.ones((1, 1), jnp.float32)}, optax.sgd(1e-3), 1
    )
    rows, moved = np.zeros((1, 40), np.int32), {}
    for seed in range(40):
        new, _ = run(state, rows, 0, seed)
        moved[int(new.position)] = float(new.params["embedding"][0, 0]) - 1
    assert moved.keys() <= settings.lengths().keys() and len(moved) > 2
    for length, distance in moved.items():
        assert distance == pytest.approx(0.5 * length / 10, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"window": 0}, "window is 0"),
        ({"max_skipped": 0}, "max_skipped is 0"),
        ({"slowness_penalty": -1.0}, "slowness_penalty is -1.0; expected 0 or more"),
        ({"activation_penalty": float("nan")}, "activation_penalty is nan"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        train.ReadingSettings(**options).check()


def test_a_text_without_a_window_in_each_row():
    settings = train.ReadingSettings(batch_size=4, window=6)
    assert settings.steps_per_epoch(28) == 1
    with pytest.raises(ValueError, match="27 tokens, which are 6 in each of 4 rows"):
        settings.steps_per_epoch(27)
    # Steps of Penn Treebank as the official code of ENAS counts them.
    counts = {64: 414, 20: 1327}
    for batch_size, expected in counts.items():
        reading = train.ReadingSettings(batch_size=batch_size)
        assert reading.steps_per_epoch(929_589) == expected


def test_the_reward_of_enas():
    metrics = {"loss": jnp.log(jnp.array([80.0, 160.0]))}
    losses = train.inverse_perplexity()(metrics)
    np.testing.assert_allclose(losses, [0, 0.5], atol=1e-6)


def test_a_mask_of_dropout_is_shared_out_with_the_rows():
    outputs = []
    for devices in (1, 2):
        net = networks.recurrent(GENOTYPE, NUM_WORDS, 5, dropout=DROPOUT)
        model = train.language_model_of(net)
        inputs = (jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 5), jnp.float32))
        params = net.init(jax.random.key(0), inputs, train=False)["params"]
        words = jnp.asarray(rows_of(4, 3)).reshape(devices, -1, 3)
        states = jnp.ones((devices, 4 // devices, 5), jnp.float32)

        def run(words, state, model=model, params=params, devices=devices):
            axis = "batch" if devices > 1 else None
            return model(
                params,
                None,
                (words, state),
                train=True,
                key=jax.random.key(3),
                batch_axis=axis,
            ).dropped

        mapped = jax.vmap(run, axis_name="batch") if devices > 1 else jax.vmap(run)
        outputs.append(np.asarray(mapped(words, states)).reshape(4, 3, 5))
    np.testing.assert_allclose(*outputs, rtol=1e-6)
    assert 0 < (outputs[0] == 0).mean() < 1
