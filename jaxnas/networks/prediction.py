"""What trained networks say of images, here and in programs that need JAX only."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data
from jaxnas._checks import check_sizes
from jaxnas.data import streaming
from jaxnas.networks.files import TrainedNetwork

PLATFORMS = ("cpu", "cuda", "tpu")
"""What `export` makes programs for, unless it is told otherwise."""


def make_predict_fn(
    trained: TrainedNetwork, *, batch_size: int = 64
) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that predicts the classes of a batch of images.

    Args:
      trained: a network with classes.
      batch_size: most images that it is called with; fewer take as long.

    Returns:
      `images -> probabilities`: uint8 `[num, height, width, channels]`, which are
      normalized, to float32 `[num, num_classes]`; of a network with exits, those of
      the last one. It is compiled once.

    Raises:
      ValueError: if the network has no classes; when called, if the images are too many
        or of another shape or type.
    """
    _check_classes(trained)
    check_sizes(batch_size=batch_size)
    compiled = jax.jit(functools.partial(_probabilities, trained))
    variables = jax.tree.map(jnp.asarray, dict(trained.variables))
    shape = trained.image_format.image_shape

    def predict(images: np.ndarray) -> np.ndarray:
        num = len(images)
        if images.shape[1:] != shape or images.dtype != np.uint8 or num > batch_size:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; expected uint8 {shape}, at "
                f"most {batch_size} of them"
            )
        padded = np.zeros((batch_size, *shape), np.uint8)
        padded[:num] = images
        return np.asarray(compiled(variables, padded))[:num]

    return predict


def predict(
    trained: TrainedNetwork,
    split: data.Split | data.Stream,
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Predict the classes of all images of a split.

    Args:
      trained: a network with classes.
      split: images of the size that it expects; their labels are not looked at.
      batch_size: images that are computed at once.

    Returns:
      Probabilities, float32 `[num_images, num_classes]`, in the order of the split.

    Raises:
      ValueError: if the network has no classes, or the images have another shape.
      DatasetError: if an image of a stream cannot be read.
    """
    predict_batch = make_predict_fn(trained, batch_size=batch_size)
    nothing = np.zeros((0, len(trained.class_names)), np.float32)
    batches = map(predict_batch, _in_batches(split, batch_size))
    return np.concatenate([nothing, *batches])[: split.num_images]


def export(trained: TrainedNetwork, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """Write a trained network as a program that needs JAX only.

    `jax.export.deserialize(bytearray(program)).call(images)` takes uint8 images
    `[batch, height, width, channels]`, any number of them, and returns probabilities,
    float32 `[batch, num_classes]`. The parameters and the normalization are inside, as
    StableHLO. JAX reads such programs for six months at least; a file of `save` lasts
    longer, and this can be made of it at any time.

    Args:
      trained: a network with classes.
      platforms: what it can run on, of `"cpu"`, `"cuda"`, `"rocm"` and `"tpu"`; none of
        them needs to be there.

    Returns:
      The program, as `jax.export` serializes it.

    Raises:
      ValueError: if the network has no classes, or there is no such platform.
    """
    from jax import export as jax_export

    _check_classes(trained)
    known = (*PLATFORMS, "rocm")
    if not platforms or not set(platforms) <= set(known):
        raise ValueError(
            f"platforms are {', '.join(platforms) or 'none'}; expected some of "
            f"{', '.join(known)}"
        )
    (batch,) = jax_export.symbolic_shape("batch")
    shape = (batch, *trained.image_format.image_shape)
    function = functools.partial(_probabilities, trained, trained.variables)
    exported = jax_export.export(jax.jit(function), platforms=platforms)
    return bytes(exported(jax.ShapeDtypeStruct(shape, jnp.uint8)).serialize())


def _check_classes(trained: TrainedNetwork) -> None:
    if not trained.class_names:
        raise ValueError(
            f"{type(trained.network).__name__} has no classes; expected a network that "
            "classifies"
        )


def _probabilities(trained: TrainedNetwork, variables: Any, images: Any) -> jax.Array:
    _, _, mean, std = trained.image_format
    images = data.normalize(images, mean, std)
    logits: Any = trained.network.apply(variables, images, train=False)
    return jax.nn.softmax(logits if logits.ndim == 2 else logits[-1])


def _in_batches(
    split: data.Split | data.Stream, batch_size: int
) -> Iterator[np.ndarray]:
    if isinstance(split, data.Stream):
        for batch in streaming.in_order(split, batch_size):
            yield batch["image"]
        return
    for start in range(0, split.num_images, batch_size):
        yield np.asarray(split.images[start : start + batch_size])
