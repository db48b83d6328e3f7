"""The network of convolutional cells that is trained from scratch."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas.genotypes import Genotype
from jaxnas.types import Key

CellOutput = Literal["concat", "projection"]
_NUM_CELL_INPUTS = 2

NewNorm = Callable[[], Callable[[jax.Array], jax.Array]]


class _Parametrized(nn.Module):
    """An operation with weights of its own."""

    op: ops.Op
    stride: int
    new_norm: NewNorm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        specs = self.op.specs(x.shape[-1], self.stride)
        weights = {
            name: self.param(name, ops.draw, spec) for name, spec in specs.items()
        }
        return self.op.apply(x, weights, self.stride, lambda y: self.new_norm()(y))


class _ReluConvNorm(nn.Module):
    """ReLU, 1x1 convolution (halving the image if `shrink`), normalisation."""

    channels: int
    shrink: bool
    new_norm: NewNorm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels_in, x = x.shape[-1], jax.nn.relu(x)
        if self.shrink:
            spec = ops.factorized_reduce_spec(channels_in, self.channels)
            kernel = self.param("kernel", ops.draw, spec)
            return self.new_norm()(ops.factorized_reduce(x, kernel))
        spec = ops.WeightSpec((channels_in, self.channels), channels_in)
        kernel = self.param("kernel", ops.draw, spec)
        return self.new_norm()(ops.pointwise_conv(x, kernel))


def _drop_path(key: Key, x: jax.Array, prob: jax.Array) -> jax.Array:
    """Zero whole examples with probability `prob` and scale up the others."""
    keep = 1 - prob
    mask = jax.random.bernoulli(key, keep, (x.shape[0], 1, 1, 1))
    return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


class _Cell(nn.Module):
    """One cell; see `micro` for the two kinds of output."""

    pairs: tuple[genotypes.Edge, ...]
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    shrink_first_input: bool
    cell_output: CellOutput
    count_include_pad: bool
    new_norm: NewNorm

    @nn.compact
    def __call__(
        self, inputs: tuple[jax.Array, jax.Array], drop_path_prob: jax.Array | None
    ) -> jax.Array:
        states = [
            _ReluConvNorm(
                self.channels,
                shrink=self.shrink_first_input and i == 0,
                new_norm=self.new_norm,
                name=f"preprocess_{i}",
            )(x)
            for i, x in enumerate(inputs)
        ]
        vocabulary = ops.vocabulary(count_include_pad=self.count_include_pad)
        for first in range(0, len(self.pairs), 2):
            node, terms = first // 2 + _NUM_CELL_INPUTS, []
            modules: dict[Any, nn.Module] = {}
            for side, (name, source) in enumerate(self.pairs[first : first + 2]):
                strided = self.reduction and source < _NUM_CELL_INPUTS
                # With a projection, equal edges of a node share their weights, as in
                # the supernet.
                shared = self.cell_output == "projection"
                slot = (name, source) if shared else side
                if slot not in modules:
                    modules[slot] = _Parametrized(
                        vocabulary[name],
                        stride=2 if strided else 1,
                        new_norm=self.new_norm,
                        name=f"node_{node}_edge_{side}_{name}",
                    )
                y = modules[slot](states[source])
                is_identity = name == "skip_connect" and not strided
                if drop_path_prob is not None and not is_identity:
                    y = _drop_path(self.make_rng("drop_path"), y, drop_path_prob)
                terms.append(y)
            states.append(terms[0] + terms[1])
        nodes = jnp.concatenate([states[n] for n in self.concat], axis=-1)
        if self.cell_output == "concat":
            return nodes
        return _ReluConvNorm(
            self.channels, shrink=False, new_norm=self.new_norm, name="projection"
        )(nodes)


class _AuxiliaryHead(nn.Module):
    """The classifier at two thirds of the depth, used in training only."""

    num_classes: int
    new_norm: NewNorm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if min(x.shape[1:3]) < 8:
            raise ValueError(
                f"the auxiliary head needs a feature map of 8x8 or larger after the "
                f"second reduction, not {x.shape[1]}x{x.shape[2]}; train images of "
                f"32x32 or larger, or without the auxiliary head"
            )
        # Not `nn.avg_pool`, which divides by an integer array.
        x = nn.pool(jax.nn.relu(x), 0.0, jax.lax.add, (5, 5), (3, 3), "VALID") / 25
        x = _Conv(128, (1, 1), padding="VALID", name="conv_1")(x)
        x = jax.nn.relu(self.new_norm()(x))
        x = _Conv(768, (2, 2), padding="VALID", name="conv_2")(x)
        x = jax.nn.relu(self.new_norm()(x))
        return _Classifier(self.num_classes, name="classifier")(x)


def _draw(key: Key, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
    spec = ops.WeightSpec(shape, math.prod(shape[:-1]))
    return ops.draw(key, spec).astype(dtype)


_Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=_draw)


class _Classifier(nn.Module):
    """Global average pooling and a linear layer."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.mean((1, 2))
        fan_in = x.shape[-1]
        bias_spec = ops.WeightSpec((self.num_classes,), fan_in)
        kernel = self.param("kernel", ops.draw, bias_spec.stack(fan_in))
        bias = self.param("bias", ops.draw, bias_spec)
        return x @ kernel + bias[None]


class MicroNetwork(nn.Module):
    """A network of normal and reduction cells; made by `micro`, which documents it."""

    genotype: Genotype
    channels: int
    num_cells: int
    num_classes: int
    auxiliary: bool
    cell_output: CellOutput
    count_include_pad: bool
    batch_axis: str | None
    unroll: bool

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        drop_path_prob: jax.Array | None = None,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Return logits, and in training with an auxiliary head its logits too."""

        def new_norm() -> nn.BatchNorm:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                axis_name=self.batch_axis if train else None,
            )

        def new_cell(name: str, channels: int, reduction=False, shrink=False) -> _Cell:
            genotype = self.genotype
            return _Cell(
                genotype.reduce if reduction else genotype.normal,
                genotype.reduce_concat if reduction else genotype.normal_concat,
                channels,
                reduction,
                shrink,
                self.cell_output,
                self.count_include_pad,
                new_norm,
                name=name,
            )

        def run(cell: _Cell, outputs, drop_path_prob):
            return (outputs[1], cell(outputs, drop_path_prob)), None

        def run_alike(cell: _Cell, outputs, drop_path_prob, num: int):
            """Run `num` cells of one shape as a scan, which keeps programs small."""
            scan = nn.scan(
                run,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True, "drop_path": True},
                # Flax documents this value and annotates `int`.
                in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
                length=num,
                unroll=num if self.unroll else 1,
            )
            return scan(cell, outputs, drop_path_prob)

        x = _Conv(3 * self.channels, (3, 3), name="stem")(images)
        x = new_norm()(x)
        outputs, auxiliary_logits = (x, x), None
        drop_path_prob = drop_path_prob if train else None
        reductions = (self.num_cells // 3, 2 * self.num_cells // 3)
        starts = (0, *reductions)
        for stage, end in enumerate((*reductions, self.num_cells)):
            channels = self.channels * 2**stage
            for index in range(starts[stage], end):
                position = index - starts[stage]
                if position >= 2 and outputs[0].shape == outputs[1].shape:
                    cell = new_cell(f"cells_{index}_to_{end - 1}", channels)
                    outputs, _ = run_alike(cell, outputs, drop_path_prob, end - index)
                    break
                cell = new_cell(
                    f"cell_{index}",
                    channels,
                    reduction=index in reductions,
                    shrink=index - 1 in reductions,
                )
                outputs, _ = run(cell, outputs, drop_path_prob)
                # The head is made even in evaluation: initialisation must make it.
                if self.auxiliary and index == reductions[1]:
                    head = _AuxiliaryHead(self.num_classes, new_norm, name="auxiliary")
                    if train:
                        auxiliary_logits = head(outputs[1])
        logits = _Classifier(self.num_classes, name="classifier")(outputs[1])
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)


def micro(
    genotype: Genotype,
    channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    *,
    auxiliary: bool = False,
    cell_output: CellOutput = "concat",
    count_include_pad: bool = False,
    batch_axis: str | None = None,
    unroll: bool = False,
) -> MicroNetwork:
    """Make the network of a genotype, as DARTS and ASNG-NAS train it from scratch.

    A stem (3x3 convolution to `3 * channels`), `num_cells` cells, global average
    pooling and a linear classifier. Cells `num_cells // 3` and `2 * num_cells // 3`
    reduce: they halve the image and double the channels. Initialise it with
    `train=True`, so that an auxiliary head gets its parameters.

    Args:
      genotype: the two cells.
      channels: channels of the first stage, before concatenation.
      num_cells: at least 3.
      num_classes: size of the output.
      auxiliary: add a second classifier after the second reduction cell (training
        only; images of 32x32 or larger).
      cell_output: `"concat"`: the output of a cell is the concatenation of the
        genotype's concat nodes (DARTS, Shu et al.); `"projection"`: a 1x1 convolution
        of it, to as many channels as the nodes have, and equal edges of a node share
        their weights (ENAS's search, ASNG-NAS).
      count_include_pad: whether average pools count the padding (ASNG-NAS does).
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.
      unroll: compile every cell on its own instead of as a scan over alike cells.

    Returns:
      A Flax module over float images `[B, H, W, C]`, with collections `params` and
      `batch_stats` and, for drop path, the PRNG stream `drop_path`.

    Raises:
      ValueError: if the genotype is malformed or a number is out of range.
    """
    if num_cells < 3:
        raise ValueError(f"num_cells is {num_cells}; two reductions need at least 3")
    if channels < 1:
        raise ValueError(f"channels is {channels}; expected at least 1")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; expected at least 1")
    if cell_output not in ("concat", "projection"):
        raise ValueError(
            f"cell_output is {cell_output!r}; expected 'concat' or 'projection'"
        )
    return MicroNetwork(
        genotypes.check(genotype),
        channels,
        num_cells,
        num_classes,
        auxiliary,
        cell_output,
        count_include_pad,
        batch_axis,
        unroll,
    )


def _shapes(network: MicroNetwork, image_shape: tuple[int, int, int]) -> Any:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(network.init, train=True)
    return jax.eval_shape(init, jax.random.key(0), image)


def count_params(
    genotype: Genotype,
    channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    auxiliary: bool = False,
    cell_output: CellOutput = "concat",
    image_channels: int = 3,
) -> int:
    """Number of trainable parameters of the network `micro` makes of a genotype.

    Nothing is computed but shapes. Nodes without a path to the output count, as in
    the official codes.

    Args:
      genotype: the two cells.
      channels: as for `micro`.
      num_cells: as for `micro`.
      num_classes: as for `micro`.
      auxiliary: whether to count the auxiliary head.
      cell_output: as for `micro`.
      image_channels: channels of the images.

    Returns:
      The count, without running statistics.
    """
    network = micro(
        genotype,
        channels,
        num_cells,
        num_classes,
        auxiliary=auxiliary,
        cell_output=cell_output,
    )
    return _num_params(_shapes(network, (32, 32, image_channels)))


class Cost(NamedTuple):
    """Size of a network.

    Attributes:
      num_params: trainable parameters, an auxiliary head's included.
      flops: floating-point operations of one image's evaluation; a multiplication
        and an addition are two.
    """

    num_params: int
    flops: float


def cost(network: MicroNetwork, image_shape: tuple[int, int, int]) -> Cost:
    """Count the parameters of a network, and XLA's own count of its operations.

    Args:
      network: from `micro`.
      image_shape: `(height, width, channels)`.

    Returns:
      Both counts; nothing is computed but shapes.
    """
    # The count of a loop would not say how often it runs.
    unrolled = network.clone(unroll=True)
    variables = _shapes(unrolled, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    evaluate = jax.jit(functools.partial(unrolled.apply, train=False))
    analysis = evaluate.lower(variables, image).cost_analysis() or {}
    return Cost(_num_params(variables), float(analysis["flops"]))


def _num_params(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def largest_channels(
    genotype: Genotype,
    params_limit: int,
    num_cells: int = 20,
    num_classes: int = 10,
    cell_output: CellOutput = "concat",
    image_channels: int = 3,
) -> int:
    """The most channels with which a network has at most `params_limit` parameters.

    The auxiliary head is not counted (ASNG-NAS, official `main_classification.py`).

    Args:
      genotype: the two cells.
      params_limit: upper limit of `count_params`.
      num_cells: as for `micro`.
      num_classes: as for `micro`.
      cell_output: as for `micro`.
      image_channels: channels of the images.

    Returns:
      Channels, at least 1.

    Raises:
      ValueError: if even one channel has more parameters.
    """

    def count(channels: int) -> int:
        return count_params(
            genotype,
            channels,
            num_cells,
            num_classes,
            cell_output=cell_output,
            image_channels=image_channels,
        )

    # Every layer has C_in * C_out, C or constant parameters: a polynomial of degree 2.
    one, two, three = count(1), count(2), count(3)
    curvature = three - 2 * two + one

    def polynomial(channels: int) -> int:
        n = channels - 1
        return one + n * (two - one) + n * (n - 1) // 2 * curvature

    if one > params_limit:
        raise ValueError(
            f"params_limit is {params_limit}; with a single channel the network "
            f"already has {one} parameters"
        )
    channels = 1
    while polynomial(channels + 1) <= params_limit:
        channels += 1
    return channels
