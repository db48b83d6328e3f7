"""Drawings of autoencoders: the encoder above the decoder, with skips between them."""

import itertools

import pygraphviz

from jaxnas import genotypes
from jaxnas.report.drawing import _graph

# Sizes in points.
_COLUMN = 128
_ROW = 64
_BOX_WIDTH = 96
_BOX_HEIGHT = 24


@_graph.graph.register(genotypes.AutoencoderGenotype)
def autoencoder_graph(genotype: genotypes.AutoencoderGenotype) -> pygraphviz.AGraph:
    """Describe the nodes `"encoder 0"` and `"decoder 0"` and so on, and the images.

    Kernels and channels are written on them; `/2` halves height and width, `x2` doubles
    them.
    """
    genotype = genotypes.check_autoencoder(genotype)
    graph = _graph.new_graph(layout="nop")
    color = _graph.op_color("conv")
    size = genotype.output_kernel
    rows = {
        "encoder": [("image", "image", _graph.INK)],
        "decoder": [("output", f"output {size}x{size}", _graph.INK)],
    }
    nodes = list(zip(*genotype[:-1], strict=True))
    for i, (size, channels, stride, _) in enumerate(nodes):
        for row, scale in (("encoder", " /2"), ("decoder", " x2")):
            words = f"{size}x{size}, {channels}{scale if stride == 2 else ''}"
            rows[row].append((f"{row} {i}", f"<<B>{i}</B>  {words}>", color))
    for y, row in enumerate(rows.values()):
        for x, (name, label, ink) in enumerate(row):
            graph.add_node(
                name,
                label=label,
                pos=f"{_COLUMN * x},{-_ROW * y}",
                width=_BOX_WIDTH / 72,
                height=_BOX_HEIGHT / 72,
                color=ink,
                fontcolor=ink,
                fillcolor="white" if x else "#f2f4f7",
            )
    encoder, decoder = ([name for name, *_ in row] for row in rows.values())
    for source, target in itertools.pairwise(encoder):
        graph.add_edge(source, target)
    for target, source in itertools.pairwise(decoder):
        graph.add_edge(source, target, tailport="w", headport="e")
    vertical = {"tailport": "s", "headport": "n"}
    graph.add_edge(encoder[-1], decoder[-1], **vertical)
    for i, (*_, skip) in enumerate(nodes):
        if skip:
            graph.add_edge(
                f"encoder {i}",
                f"decoder {i}",
                key="skip",
                color=_graph.op_color("skip"),
                style="dashed",
                # Beside the other edge of the last node.
                **(
                    vertical
                    if i + 1 < len(nodes)
                    else {"tailport": "e", "headport": "e"}
                ),
            )
    return graph
