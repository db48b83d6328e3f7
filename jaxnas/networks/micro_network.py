"""The network of convolutional cells that is trained from scratch."""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas._checks import check_dropout, check_sizes
from jaxnas.genotypes import Genotype
from jaxnas.networks import _counts, files, layers
from jaxnas.networks.layers import AuxiliaryHead, Classifier, ConvNorm
from jaxnas.networks.micro_cells import (
    CellOutput,
    EnasCell,
    NasnetCell,
    num_enas_params,
    num_nasnet_params,
)
from jaxnas.networks.size import count_params

Skeleton = Literal["nasnet", "enas"]


class MicroNetwork(nn.Module):
    """A network of normal and reduction cells; made by `micro`, which documents it."""

    genotype: Genotype
    channels: int
    num_cells: int
    num_classes: int
    skeleton: Skeleton
    auxiliary: bool
    dropout: float
    cell_output: CellOutput
    count_include_pad: bool
    batch_axis: str | None
    unroll: bool
    stem_stride: int

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        drop_path_prob: jax.Array | None = None,
        sources: tuple[jax.Array, jax.Array] | None = None,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Return logits, and in training with an auxiliary head its logits too.

        Args:
          images: float `[B, H, W, C]`.
          train: whether to normalize by the statistics of the batch, and drop.
          drop_path_prob: probability of dropping an edge, if any are dropped.
          sources: connections in place of the genotype's, see `edge_sources`: traced,
            so that one compiled program serves all that differ in them alone.

        Raises:
          ValueError: if sources are given together with drop path, or to a network
            whose parameters depend on them: of ENAS's skeleton, or with projections.
        """
        enas = self.skeleton == "enas"
        if sources is not None and (
            enas or self.cell_output == "projection" or drop_path_prob is not None
        ):
            raise ValueError(
                "sources go with skeleton 'nasnet', cell_output 'concat' and no drop "
                f"path; found {self.skeleton!r}, {self.cell_output!r} and drop path "
                f"{'off' if drop_path_prob is None else 'on'}"
            )
        initializer = layers.init_he_normal if enas else ops.init
        new_norm = layers.batch_norm(train=train, batch_axis=self.batch_axis)
        reductions = _reductions(self.num_cells)

        def new_cell(name: str, index: int, channels: int) -> NasnetCell | EnasCell:
            reduction = index in reductions
            genotype = self.genotype
            kind: Callable[..., NasnetCell | EnasCell] = EnasCell
            if not enas:
                kind = functools.partial(
                    NasnetCell,
                    shrink_first_input=index - 1 in reductions,
                    cell_output=self.cell_output,
                )
            return kind(
                pairs=genotype.reduce if reduction else genotype.normal,
                concat=genotype.reduce_concat if reduction else genotype.normal_concat,
                channels=channels,
                reduction=reduction,
                count_include_pad=self.count_include_pad,
                new_norm=new_norm,
                initializer=initializer,
                name=name,
            )

        def run(cell: NasnetCell | EnasCell, outputs, drop_path_prob):
            options = {}
            if sources is not None:
                normal, reduce = sources
                options = {"sources": reduce if cell.reduction else normal}
            return (outputs[1], cell(outputs, drop_path_prob, **options)), None

        def scan_cells(cell: NasnetCell | EnasCell, outputs, drop_path_probs, num: int):
            """Run `num` cells of one shape as a scan, which keeps programs small."""
            scan = nn.scan(
                run,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True, "drop_path": True},
                length=num,
                unroll=num if self.unroll else 1,
            )
            return scan(cell, outputs, drop_path_probs)

        def classifier(name: str) -> Classifier:
            return Classifier(
                self.num_classes, not enas, self.dropout, initializer, name=name
            )

        stem = ConvNorm(
            3 * self.channels, 3, new_norm, initializer, self.stem_stride, name="stem"
        )
        x = stem(images)
        outputs, auxiliary_logits = (x, x), None
        probs = None
        if train and drop_path_prob is not None:
            probs = _drop_path_probs(drop_path_prob, self.num_cells, growing=enas)
        auxiliary_index = _auxiliary_index(self)
        starts = (0, *reductions)
        for stage, end in enumerate((*reductions, self.num_cells)):
            channels = self.channels * 2**stage
            for index in range(starts[stage], end):
                position = index - starts[stage]
                if position >= 2 and outputs[0].shape == outputs[1].shape:
                    cell = new_cell(f"cells_{index}_to_{end - 1}", index, channels)
                    alike = None if probs is None else probs[index:end]
                    outputs, _ = scan_cells(cell, outputs, alike, end - index)
                    break
                cell = new_cell(f"cell_{index}", index, channels)
                prob = None if probs is None else probs[index]
                outputs, _ = run(cell, outputs, prob)
                # The head is made even in evaluation: initialization must make it.
                if self.auxiliary and index == auxiliary_index:
                    head = AuxiliaryHead(
                        self.num_classes,
                        stride=3,
                        padding="SAME" if enas else "VALID",
                        bias=not enas,
                        new_norm=new_norm,
                        initializer=initializer,
                        name="auxiliary",
                    )
                    if train:
                        auxiliary_logits = head(outputs[1])
        x = jax.nn.relu(outputs[1]) if enas else outputs[1]
        logits = classifier("classifier")(x, train=train)
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)


def _reductions(num_cells: int) -> tuple[int, int]:
    """Cells, counted from 0, that halve the image."""
    return num_cells // 3, 2 * num_cells // 3


def _auxiliary_index(network: MicroNetwork) -> int:
    """The cell that the auxiliary head follows."""
    last_reduction = _reductions(network.num_cells)[1]
    is_enas = network.skeleton == "enas"
    return min(last_reduction + is_enas, network.num_cells - 1)


@count_params.register
def _(network: MicroNetwork, image_shape: tuple[int, int, int]) -> int:
    height, width, image_channels = image_shape
    is_enas = network.skeleton == "enas"
    reductions = _reductions(network.num_cells)
    if network.auxiliary:
        shrinkage = network.stem_stride * 2 ** len(reductions)
        sides = (-(-side // shrinkage) for side in (height, width))
        layers.check_auxiliary(*sides, stride=3)
    inputs = (3 * network.channels, 3 * network.channels)
    total = _counts.conv_norm(3, image_channels, 3 * network.channels)
    normal = network.genotype.normal, network.genotype.normal_concat
    reduce = network.genotype.reduce, network.genotype.reduce_concat
    for index in range(network.num_cells):
        reduction = index in reductions
        cell = reduce if reduction else normal
        channels = network.channels * 2 ** sum(r <= index for r in reductions)
        if is_enas:
            num, channels_out = num_enas_params(
                *cell,
                channels,
                inputs,
                reduction=reduction,
                shrink_first_input=index - 1 in reductions,
            )
        else:
            num, channels_out = num_nasnet_params(
                *cell,
                channels,
                inputs,
                reduction=reduction,
                cell_output=network.cell_output,
            )
        total += num
        inputs = (inputs[1], channels_out)
        if network.auxiliary and index == _auxiliary_index(network):
            total += _counts.auxiliary_head(
                channels_out, network.num_classes, bias=not is_enas
            )
    return total + _counts.classifier(inputs[1], network.num_classes, bias=not is_enas)


def _drop_path_probs(
    drop_path_prob: jax.Array, num_cells: int, *, growing: bool
) -> jax.Array:
    """Probability of each cell, `[num_cells]`; in ENAS the last cell has all of it."""
    if not growing:
        return jnp.full(num_cells, drop_path_prob)
    share = jnp.arange(1, num_cells + 1, dtype=drop_path_prob.dtype) / num_cells
    return drop_path_prob * share


def micro(
    genotype: Genotype,
    channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    *,
    skeleton: Skeleton = "nasnet",
    auxiliary: bool = False,
    dropout: float = 0.0,
    cell_output: CellOutput = "concat",
    count_include_pad: bool = False,
    batch_axis: str | None = None,
    unroll: bool = False,
    stem_stride: int = 1,
) -> MicroNetwork:
    """Make the network of two cells, as DARTS, ASNG-NAS or ENAS train it from scratch.

    A stem (3x3 convolution to `3 * channels`), `num_cells` cells, global average
    pooling and a linear classifier. Cells `num_cells // 3` and `2 * num_cells // 3`
    reduce: they halve the image and double the channels. Initialize it with
    `train=True`, so that an auxiliary head gets its parameters.

    ENAS's skeleton (Pham et al. 2018, official `micro_child.py`) differs from that of
    NASNet, DARTS and ASNG-NAS. Inputs of a cell pass a ReLU, 1x1 convolution and
    normalization only where their size or channels are not the cell's, and the second
    input passes another one in any case. Unused inputs are part of a cell's output.
    An identity of stride 2 is a factorized reduction without ReLU. The probability
    of drop path grows linearly with the position of the cell, up to the given one,
    and no identity is dropped. A ReLU precedes the pooling, classifiers have no bias,
    kernels are initialized as by He et al. (2015), and the auxiliary head follows the
    cell after the second reduction, pads its 2x2 convolution, and, unlike in the
    official code, is trained. Strided windows are centered on even pixels as
    elsewhere in this package, where TensorFlow centers them on odd ones.

    Args:
      genotype: the two cells.
      channels: channels of the first stage, before concatenation.
      num_cells: at least 3. The official scripts of ENAS do not count the reductions:
        their 15 layers are 17 cells.
      num_classes: size of the output.
      skeleton: `"nasnet"` or `"enas"`, what is around the nodes of the cells.
      auxiliary: add a second classifier after the second reduction cell (training
        only; images of 32x32 or larger).
      dropout: probability of dropping a feature before the classifier, in training.
      cell_output: `"concat"`: the output of a cell is the concatenation of the
        genotype's concat nodes (DARTS, Shu et al.); `"projection"`, with NASNet's
        skeleton only: a 1x1 convolution of it, to as many channels as the nodes have,
        and equal edges of a node share their weights (ENAS's search, ASNG-NAS).
      count_include_pad: whether average pools count the padding (ASNG-NAS does).
      batch_axis: mapped axis over which the batch is sharded, if any; statistics of
        training batches are then taken over the whole batch.
      unroll: compile every cell on its own instead of as a scan over alike cells.
      stem_stride: 2 halves the images first, as Shu et al. (2020) do with those of
        Tiny-ImageNet.

    Returns:
      A Flax module over float images `[B, H, W, C]`, with collections `params` and
      `batch_stats` and, in training, the PRNG streams `drop_path` and `dropout`.

    Raises:
      ValueError: if the genotype is malformed, a number is out of range, or
        `cell_output` does not fit the skeleton.
    """
    if num_cells < 3:
        raise ValueError(f"num_cells is {num_cells}; two reductions need at least 3")
    check_sizes(channels=channels, num_classes=num_classes, stem_stride=stem_stride)
    check_dropout(dropout)
    if skeleton not in ("nasnet", "enas"):
        raise ValueError(f"skeleton is {skeleton!r}; expected 'nasnet' or 'enas'")
    if cell_output not in ("concat", "projection"):
        raise ValueError(
            f"cell_output is {cell_output!r}; expected 'concat' or 'projection'"
        )
    if skeleton == "enas" and cell_output != "concat":
        raise ValueError(
            f"cell_output is {cell_output!r}; expected 'concat' with skeleton 'enas'"
        )
    return MicroNetwork(
        genotype=genotypes.check_cells(genotype),
        channels=channels,
        num_cells=num_cells,
        num_classes=num_classes,
        skeleton=skeleton,
        auxiliary=auxiliary,
        dropout=dropout,
        cell_output=cell_output,
        count_include_pad=count_include_pad,
        batch_axis=batch_axis,
        unroll=unroll,
        stem_stride=stem_stride,
    )


files.register("micro", MicroNetwork, micro)


def edge_sources(genotype: Genotype) -> tuple[jax.Array, jax.Array]:
    """Sources of the edges of both cells, as a network takes them for `sources`.

    Networks that take their sources have the parameters of the genotype they were
    made of, and in addition those of a factorized reduction for every identity of the
    reduction cell that reads a node, since it might as well read an input. They change
    nothing.

    Args:
      genotype: the two cells.

    Returns:
      int32 `[num_edges]` of the normal cell, and of the reduction cell.

    Raises:
      ValueError: if the genotype is malformed.
    """
    genotype = genotypes.check_cells(genotype)
    normal, reduce = (
        jnp.array([source for _, source in pairs], jnp.int32)
        for pairs in (genotype.normal, genotype.reduce)
    )
    return normal, reduce
