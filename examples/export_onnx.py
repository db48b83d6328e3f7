"""Write a network that cifar_train.py has trained as ONNX.

It runs in an environment of its own, see docs/deployment.md:
`python examples/export_onnx.py RUN_OR_FILE network.onnx`. The model takes uint8 images
`[batch, height, width, channels]`, any number of them, and returns probabilities. It is
compared with the network itself on random images before the command ends.
"""

import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from jax import lax
from jax2onnx import to_onnx

from jaxnas import data, networks

TOLERANCE = 1e-5
SHAPE = jnp.shape


def main(model: pathlib.Path, output: pathlib.Path) -> None:
    """Convert, write, compare."""
    trained = networks.load(model / networks.FILE_NAME if model.is_dir() else model)
    network = trained.network
    if hasattr(network, "unroll"):  # loops over cells would stay loops
        network = network.clone(unroll=True)
    _, _, mean, std = trained.image_format
    image_shape = trained.image_format.image_shape

    def probabilities(images: jax.Array) -> jax.Array:
        with (
            # ONNX has no platforms: operations are in the form that is for all of them.
            mock.patch.object(
                lax, "platform_dependent", lambda *args, default, **_: default(*args)
            ),
            # Flax asks for shapes while the converter makes them part of the graph.
            mock.patch.object(jnp, "shape", SHAPE),
        ):
            normalized = data.normalize(images, mean, std)
            logits = network.apply(trained.variables, normalized, train=False)
            return jax.nn.softmax(logits if logits.ndim == 2 else logits[-1])

    (batch,) = jax.export.symbolic_shape("batch")
    to_onnx(
        probabilities,
        [jax.ShapeDtypeStruct((batch, *image_shape), np.uint8)],
        input_names=["images"],
        output_names=["probabilities"],
        return_mode="file",
        output_path=output,
    )

    session = onnxruntime.InferenceSession(output)
    predict = networks.make_predict_fn(trained, batch_size=5)
    rng = np.random.default_rng(0)
    for num in (1, 5):
        images = rng.integers(0, 256, (num, *image_shape)).astype(np.uint8)
        (found,) = session.run(None, {"images": images})
        difference = np.abs(found - predict(images)).max()
        if not difference <= TOLERANCE:
            sys.exit(
                f"error: {output} differs from {model} by {difference:.1e}; expected "
                f"at most {TOLERANCE}"
            )
    print(f"wrote {output}; it differs by {difference:.1e} from the network")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
