"""Batches of data sets that lie on the device."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas import parallel
from jaxnas.data import Split, Stream, streaming
from jaxnas.types import Batch, Device, Key, Task

Preprocess = Callable[[Key, jax.Array], jax.Array]
"""`(key, uint8 images) -> float images`: normalizes, and in training augments."""


# What tasks draw has keys that no preprocessing splits off.
_TASK_STREAM = 2**32 - 1


class InputPipeline(NamedTuple):
    """Preprocessing, batches and devices for the images of a split.

    Attributes:
      batch_size: images in a batch, over all devices.
      augment: `(key, uint8 images) -> float images`, for training.
      normalize: the same for evaluation; its key is constant.
      devices: what shares out the work; the first device if `None`.
    """

    batch_size: int
    augment: Preprocess
    normalize: Preprocess
    devices: Sequence[Device] | None = None

    def on_devices(self) -> list[Device]:
        """The devices, those of the default too.

        Raises:
          ValueError: if they cannot share a batch.
        """
        if self.devices is None:
            return [jax.local_devices()[0]]
        parallel.per_device_size(self.batch_size, len(self.devices), "batch_size")
        return list(self.devices)

    def steps_per_epoch(self, images: Split | Stream) -> int:
        """Whole batches among the images.

        Raises:
          ValueError: if there is none.
        """
        if images.num_images < self.batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size}, but there are only "
                f"{images.num_images} images"
            )
        return images.num_images // self.batch_size


class EpochOrder(NamedTuple):
    """The order in which an epoch takes its images.

    Attributes:
      epoch: int32 scalar, -1 if no order has been drawn.
      indices: int32 `[num_images]`, a permutation.
    """

    epoch: jax.Array
    indices: jax.Array


def no_order(num_images: int) -> EpochOrder:
    """Placeholder before the order of a first epoch; see `update_order`."""
    return EpochOrder(jnp.int32(-1), jnp.zeros(num_images, jnp.int32))


def epoch_order(key: Key, num_images: int, epoch: jax.Array | int) -> EpochOrder:
    """Draw the order of an epoch of a stream of batches.

    A pure function of its arguments, so that it need not be saved.

    Args:
      key: the stream of batches.
      num_images: size of the split.
      epoch: int32 scalar.

    Returns:
      The order.
    """
    epoch = jnp.asarray(epoch, jnp.int32)
    order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
    numbers = jnp.arange(num_images, dtype=jnp.int32)
    return EpochOrder(epoch, jax.random.permutation(order_key, numbers))


def update_order(order: EpochOrder, key: Key, epoch: jax.Array) -> EpochOrder:
    """`epoch_order` of the same split for an epoch, drawn only if it is another one.

    Drawing sorts as many numbers as there are images, which is too much for every step.
    """
    return lax.cond(
        order.epoch == epoch,
        lambda: order,
        lambda: epoch_order(key, order.indices.shape[0], epoch),
    )


def shuffled(
    key: Key,
    split: Split,
    order: EpochOrder,
    position: jax.Array,
    batch_size: int,
    preprocess: Preprocess,
    task: Task,
) -> Batch:
    """One batch of a freshly shuffled epoch.

    A pure function of its arguments, so that a resumed run sees the same batches. The
    images that do not fill a last batch are left out, others in each epoch.

    Args:
      key: the stream of batches.
      split: the images, on the device.
      order: `epoch_order` of the stream and the split.
      position: int32 scalar, number of the batch within the epoch.
      batch_size: images in a batch.
      preprocess: applied to the uint8 images.
      task: prepares the batch.

    Returns:
      `image` float `[batch_size, H, W, C]`, `label` int32 `[batch_size]`, and what the
      task adds.
    """
    _, image_key = jax.random.split(jax.random.fold_in(key, order.epoch))
    chosen = lax.dynamic_slice_in_dim(order.indices, position * batch_size, batch_size)
    image_key = jax.random.fold_in(image_key, position)
    batch = {"image": split.images[chosen], "label": split.labels[chosen]}
    return prepared(image_key, batch, preprocess, task)


def prepared(key: Key, batch: Batch, preprocess: Preprocess, task: Task) -> Batch:
    """A batch of uint8 images as a network takes it and a task judges it.

    Args:
      key: determines what preprocessing and the task draw.
      batch: uint8 `image` `[B, H, W, C]` and what else there is.
      preprocess: applied to the images.
      task: prepares what this makes.
    """
    image = preprocess(key, batch["image"])
    keys = jax.random.split(jax.random.fold_in(key, _TASK_STREAM), image.shape[0])
    return task.prepare(keys, {**batch, "image": image})


def prepared_for_evaluation(batch: Batch, normalize: Preprocess, task: Task) -> Batch:
    """A batch of `evaluation_batches` as a network takes it and a task judges it.

    What the task draws for an image depends on its `index` only, so that evaluations
    agree, in batches of any size.
    """
    key = jax.random.key(0)
    image = normalize(key, batch["image"])
    stream = jax.random.fold_in(key, _TASK_STREAM)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, batch["index"])
    return task.prepare(keys, {**batch, "image": image})


def next_batch(
    order: EpochOrder,
    key: Key,
    split: Split,
    epoch: jax.Array,
    position: jax.Array,
    batch_size: int,
    preprocess: Preprocess,
    task: Task,
    *,
    batch_axis: str | None = None,
    num_devices: int = 1,
) -> tuple[EpochOrder, Batch]:
    """The order of an epoch, and this device's part of one of its batches.

    Args:
      order: of this or another epoch of the stream.
      key: the stream of batches.
      split: the images, on the device.
      epoch: int32 scalar.
      position: int32 scalar, number of the batch within the epoch.
      batch_size: images in a batch, over all devices.
      preprocess: applied to the uint8 images.
      task: prepares the batch.
      batch_axis: mapped axis over which batches are shared out, if any.
      num_devices: size of that axis.
    """
    order = update_order(order, key, epoch)
    batch = shuffled(key, split, order, position, batch_size, preprocess, task)
    return order, local_batch(batch, batch_axis, num_devices)


def local_batch(batch: Batch, batch_axis: str | None, num_devices: int) -> Batch:
    """This device's part of a batch that all devices hold."""
    if batch_axis is None or num_devices == 1:
        return batch
    index = lax.axis_index(batch_axis)

    def slice_leaf(leaf):
        size = leaf.shape[0] // num_devices
        return lax.dynamic_slice_in_dim(leaf, index * size, size)

    return {name: slice_leaf(leaf) for name, leaf in batch.items()}


def evaluation_order(num_images: int) -> np.ndarray:
    """The permutation in which images are evaluated, the same in every process.

    Supernets normalize by the batch, and many data sets are sorted by class: in that
    order a batch would be of one class, whose mean normalization takes away.

    Returns:
      int64 `[num_images]`.
    """
    return np.random.default_rng(0).permutation(num_images)


def subset(split: Split, num_images: int) -> Split:
    """The images of a split that are evaluated first; all, if there are fewer."""
    chosen = evaluation_order(len(split.labels))[:num_images]
    return Split(np.asarray(split.images)[chosen], np.asarray(split.labels)[chosen])


def evaluation_batches(
    split: Split | Stream, batch_size: int
) -> Iterator[dict[str, Any]]:
    """All images once, in batches of one size, in `evaluation_order`.

    The last batch is filled up with images from the beginning, whose `weight` is 0:
    they take part in batch statistics and in nothing else; `index` is their place in
    the split. Streams, which serve networks with running statistics only, are read in
    the order of their files.
    """
    if isinstance(split, Stream):
        yield from streaming.in_order(split, batch_size)
        return
    num = split.labels.shape[0]
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    order = evaluation_order(num)
    for start in range(0, num, batch_size):
        position = np.arange(start, start + batch_size)
        index = order[position % num]
        batch = chosen_for_evaluation(Split(images, labels), index)
        yield batch | {"weight": (position < num).astype(np.float32)}


def chosen_for_evaluation(split: Split, index: np.ndarray) -> dict[str, Any]:
    """The images at some places of a split, as `prepared_for_evaluation` takes them."""
    return {
        "image": np.asarray(split.images)[index],
        "label": np.asarray(split.labels)[index],
        "index": index.astype(np.int32),
    }


def mean_metrics(
    step: Callable[[Batch], Any], split: Split | Stream, batch_size: int
) -> Any:
    """Mean of a step's metrics over all images of a split.

    Args:
      step: `batch -> metrics`, means over the batch by its `weight`.
      split: the images.
      batch_size: images in a batch.

    Returns:
      The metrics, numpy arrays.
    """
    totals, count = None, 0.0
    for batch in evaluation_batches(split, batch_size):
        weight = float(batch["weight"].sum())
        metrics = jax.tree.map(lambda m, w=weight: m * w, step(batch))
        totals = metrics if totals is None else jax.tree.map(jnp.add, totals, metrics)
        count += weight
    return jax.tree.map(lambda total: np.asarray(total) / count, totals)
