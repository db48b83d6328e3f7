"""Checkpoints: bitwise round trips, retention, and damage."""

import errno
import os
import pathlib
import random
import shutil
import warnings
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import small_disk

from jaxnas import _files, parallel
from jaxnas.checkpoint import CheckpointError, Checkpoints


class State(NamedTuple):
    step: jax.Array
    key: jax.Array
    params: Any
    opt_state: optax.OptState
    metrics: dict[str, jax.Array]


OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.sgd(lambda count: 0.1, momentum=0.9)
)


def make_state(step: int) -> State:
    """A state whose every leaf of some size depends on the step."""
    key = jax.random.fold_in(jax.random.key(1), step)
    params = {
        "kernel": jax.random.normal(key, (4, 3)),
        "half": (jnp.arange(5) + step).astype(jnp.bfloat16) / 3,
        "mask": jnp.arange(6).reshape(2, 3) % 2 == step % 2,
        "bytes": jnp.arange(7, dtype=jnp.uint8) + jnp.uint8(step),
        "none": jnp.zeros((0, 3)),
        "nested": ({"special": jnp.array([jnp.nan, -0.0, jnp.inf, step])},),
    }
    trained = {"kernel": params["kernel"], "none": params["none"]}
    _, opt_state = OPTIMIZER.update(
        jax.tree.map(jnp.ones_like, trained), OPTIMIZER.init(trained), trained
    )
    state = State(jnp.int32(step), key, params, opt_state, {"loss": jnp.float32(step)})
    return parallel.device_put(state, jax.devices()[:1])


def assert_bitwise_equal(actual, expected):
    chex.assert_trees_all_equal_structs(actual, expected)
    for one, other in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype and one.shape == other.shape
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def restore(folder: pathlib.Path, like: Any) -> Any:
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(like)


def steps_in(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_round_trip_is_bitwise(tmp_path, impl):
    state = make_state(3)._replace(key=jax.random.key(7, impl=impl))
    like = make_state(0)._replace(key=jax.random.key(0, impl=impl))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    restored = restore(tmp_path, like)
    assert_bitwise_equal(restored, state)
    assert jax.random.bits(restored.key) == jax.random.bits(state.key)


def test_the_newest_is_restored_in_the_same_process(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(9, make_state(9))
        checkpoints.save(10, make_state(10))
        assert_bitwise_equal(checkpoints.restore(make_state(0)), make_state(10))


@pytest.mark.parametrize(("num_before", "num_after"), [(1, 4), (4, 2), (2, 1)])
def test_restores_onto_other_devices(tmp_path, num_before, num_after):
    before, after = jax.devices()[:num_before], jax.devices()[:num_after]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, parallel.device_put(make_state(5), before))
    restored = restore(tmp_path, parallel.device_put(make_state(0), after))
    assert_bitwise_equal(restored, make_state(5))
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.device_set == set(after)
        assert leaf.is_fully_replicated


def test_without_a_checkpoint(tmp_path):
    assert restore(tmp_path / "new" / "folder", make_state(0)) is None


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
        for step in range(4):
            checkpoints.save(step, make_state(step))
    assert steps_in(tmp_path) == {"2", "3"}


def test_a_saved_step_is_left_alone(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, make_state(2))
        checkpoints.save(2, make_state(3))
    assert_bitwise_equal(restore(tmp_path, make_state(0)), make_state(2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2; tests copy it."""
    folder = tmp_path_factory.mktemp("whole")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, make_state(1))
        checkpoints.save(2, make_state(2))
    return folder


def array_file(step: pathlib.Path) -> pathlib.Path:
    """The file that holds the arrays' bytes, the largest one."""
    files = (step / "state" / "d").iterdir()
    return max(files, key=lambda file: file.stat().st_size)


def delete_arrays(step):
    array_file(step).unlink()


def truncate_arrays(step):
    content = array_file(step).read_bytes()
    array_file(step).write_bytes(content[: len(content) // 2])


def flip_a_bit(step):
    content = bytearray(array_file(step).read_bytes())
    content[len(content) // 2] ^= 1
    array_file(step).write_bytes(bytes(content))


def delete_index(step):
    (step / "state" / "manifest.ocdbt").unlink()


def truncate_tree(step):
    content = (step / "state" / "_METADATA").read_bytes()
    (step / "state" / "_METADATA").write_bytes(content[:50])


def no_state(step):
    shutil.rmtree(step / "state")


def no_digest(step):
    shutil.rmtree(step / "digest")


def delete_digest(step):
    (step / "digest" / "metadata").unlink()


def other_digest(step):
    (step / "digest" / "metadata").write_text('{"sha256": "0123"}')


def digest_without_sum(step):
    (step / "digest" / "metadata").write_text("{}")


def digest_of_another_kind(step):
    (step / "digest" / "metadata").write_text("[3]")


def garbage_digest(step):
    (step / "digest" / "metadata").write_bytes(b"\xff\x00garbage")


def digest_of_numbers(step):
    (step / "digest" / "metadata").write_text('{"sha256": [1], "leaves": 3}')


def other_name_in_digest(step):
    file = step / "digest" / "metadata"
    file.write_text(file.read_text().replace("0", "1", 1))


def other_name_in_tree(step):
    file = step / "state" / "_METADATA"
    file.write_text(file.read_text().replace(".step", ".stem"))


def other_type_in_tree(step):
    file = step / "state" / "_METADATA"
    file.write_text(file.read_text().replace("np.ndarray", "np.ndarrax"))


def list_for_tree(step):
    (step / "state" / "_METADATA").write_text("[3]")


def other_arrays(step):
    """Undamaged files, but of another step: only the digest can tell."""
    shutil.rmtree(step / "state")
    shutil.copytree(step.parent / "1" / "state", step / "state")


def empty_folder(step):
    shutil.rmtree(step)
    step.mkdir()


DAMAGE = [
    delete_arrays,
    truncate_arrays,
    flip_a_bit,
    delete_index,
    truncate_tree,
    no_state,
    no_digest,
    delete_digest,
    other_digest,
    digest_without_sum,
    digest_of_another_kind,
    garbage_digest,
    digest_of_numbers,
    other_name_in_digest,
    other_name_in_tree,
    other_type_in_tree,
    list_for_tree,
    other_arrays,
    empty_folder,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, whole, damage):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    damage(folder / "2")
    with Checkpoints(folder) as checkpoints:
        with pytest.warns(UserWarning, match=f"checkpoint {folder / '2'} is damaged"):
            restored = checkpoints.restore(make_state(0))
        assert_bitwise_equal(restored, make_state(1))
        checkpoints.save(2, make_state(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_bitwise_equal(restore(folder, make_state(0)), make_state(2))


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, rng: b"",
        lambda content, rng: content[: rng.randrange(len(content))],
        lambda content, rng: rng.choice([b"[3]", b"null", b"3", b'"x"', b"[" * 99_999]),
        flipped,
        None,
    ],
    ids=["emptied", "truncated", "other JSON", "flipped", "removed"],
)
def test_every_file_may_be_damaged(tmp_path, whole, damage, capfd):
    rng = random.Random(0)
    num_damaged = 0
    names = [file.relative_to(whole) for file in (whole / "2").rglob("*")]
    for name in sorted(name for name in names if (whole / name).is_file()):
        folder = tmp_path / str(name).replace("/", "_")
        shutil.copytree(whole, folder)
        if damage is None:
            (folder / name).unlink()
        else:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(damage(content, rng))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            restored = restore(folder, make_state(0))
        # Some files are of no use once a checkpoint has been written.
        assert_bitwise_equal(restored, make_state(1 if told else 2))
        for warning in told:
            assert f"checkpoint {folder / '2'} is damaged" in str(warning.message)
            assert "\n" not in str(warning.message)
        num_damaged += len(told)
    assert num_damaged >= 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name",
    ["[a]", "a*b?", "a\\b", "gs:", "gs:/a", "s3:", "a b", "{a}$x", "\udce9", "a%b"],
)
def test_folders_may_have_any_name(tmp_path, name):
    folder = tmp_path / name
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, make_state(7))
    assert_bitwise_equal(restore(folder, make_state(0)), make_state(7))
    assert steps_in(folder) == {"7"}


def test_a_full_disk_is_told_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(_files, "check_room", full)
            checkpoints.save(2, make_state(2))
            with pytest.raises(OSError, match=f"No space left.*{tmp_path / '2'}"):
                checkpoints.save(3, make_state(3))
        assert_bitwise_equal(checkpoints.restore(make_state(0)), make_state(1))
        checkpoints.save(3, make_state(3))
    assert steps_in(tmp_path) == {"1", "3"}


def test_what_orbax_says_of_a_full_disk(tmp_path, monkeypatch):
    def full(*args, **options):
        (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: ... No space left on device [28]")

    with (
        pytest.raises(OSError, match="No space left") as error,
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(1, make_state(1))
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._checkpointer, "save", full)
        checkpoints.save(2, make_state(2))
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "2"))
    assert steps_in(tmp_path) == {"1"}


@pytest.mark.parametrize("options", ["size=400k", "size=9m,nr_inodes=60"])
def test_a_small_disk(tmp_path, options, capfd):
    with small_disk(tmp_path, options):
        with Checkpoints(tmp_path / "run") as checkpoints:
            checkpoints.save(1, make_state(1))
            checkpoints.wait()
            with pytest.raises(OSError, match=f"No space left.*{tmp_path / 'run'}"):
                for step in range(2, 9):
                    (tmp_path / str(step)).write_bytes(bytes(20_000))
                    for i in range(9):
                        (tmp_path / f"{step}-{i}").touch()
                    checkpoints.save(step, make_state(step))
                    checkpoints.wait()
        with Checkpoints(tmp_path / "run") as checkpoints:
            restored = checkpoints.restore(make_state(0))
        assert restored is not None
        assert_bitwise_equal(restored, make_state(int(restored.step)))
    assert capfd.readouterr() == ("", "")


def test_all_damaged(tmp_path, whole):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    flip_a_bit(folder / "1")
    delete_arrays(folder / "2")
    with (
        pytest.warns(UserWarning, match="2 is damaged"),
        pytest.warns(UserWarning, match="1 is damaged"),
        pytest.raises(CheckpointError, match=f"none of the checkpoints in {folder}"),
    ):
        restore(folder, make_state(0))
    # Nothing is deleted that a person might still want to look at.
    assert steps_in(folder) == {"1", "2"}


@pytest.mark.parametrize(
    "change",
    [
        lambda params: {**params, "more": jnp.zeros(2)},
        lambda params: {k: v for k, v in params.items() if k != "half"},
        lambda params: {**params, "kernel": params["kernel"].astype(jnp.bfloat16)},
        lambda params: {**params, "kernel": params["kernel"][:1]},
    ],
    ids=["more leaves", "fewer leaves", "another dtype", "another shape"],
)
def test_a_state_of_another_structure_is_an_error(tmp_path, whole, change):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    like = make_state(0)
    with pytest.raises(CheckpointError, match=r"2 was saved from another state: "):
        restore(folder, like._replace(params=change(like.params)))
    assert steps_in(folder) == {"1", "2"}


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path, whole):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    # What Orbax leaves behind when it is killed while writing.
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")
    assert_bitwise_equal(restore(folder, make_state(0)), make_state(1))
