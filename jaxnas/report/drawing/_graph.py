"""Drawings of all families: dispatch, style, and rendering."""

import functools
import html
import os
import pathlib
import re
import tempfile
from collections.abc import Collection
from typing import Any

import matplotlib
import pygraphviz

INK = "#24292f"
FAINT = "#8a939c"  # edges to the output
DEAD = "#c2c7cc"
_COLORS = {
    "sep": "#0b63a5",
    "dil": "#7a3fb0",
    "conv": "#00758a",
    "max": "#c2410c",
    "avg": "#a16207",
    "skip": "#1a7f37",
    "none": "#7d858d",
}

# Layout is computed with a font that comes with matplotlib, so that it is the same
# everywhere. Those shown are narrower, so they fit.
_LAYOUT_FONT = "DejaVu Sans"
_SHOWN_FONTS = "Helvetica,Arial,sans-serif"


@functools.singledispatch
def graph(genotype: Any) -> pygraphviz.AGraph:
    """Describe a genotype as a graph, dispatched on its class.

    Args:
      genotype: the genotype.

    Returns:
      A graph without layout, with one node for the inputs, operations and outputs, of
      which `genotype_svg` and `genotype_dot` make a drawing. Its attribute `layout`
      names the program of Graphviz, by default `dot`; its attribute `comment` is
      written below the title.

    Raises:
      TypeError: if no drawing is registered for the class of the genotype.
      ValueError: if the genotype is invalid, naming the place at fault.
    """
    raise TypeError(
        f"found a {type(genotype).__name__}, which has no drawing; register one with "
        "jaxnas.report.drawing.graph.register"
    )


def genotype_dot(genotype: Any, *, title: str) -> str:
    """Describe a genotype of any family in the DOT language of Graphviz.

    Args:
      genotype: the genotype.
      title: text above the drawing.

    Returns:
      The text of a DOT file; `dot -Tpdf` and others make pictures of it.

    Raises:
      TypeError: if no drawing is registered for the class of the genotype.
      ValueError: if the genotype is invalid, naming the place at fault.
    """
    return _titled(graph(genotype), title).to_string()


def genotype_svg(genotype: Any, *, title: str) -> str:
    """Draw a genotype of any family.

    Two cells stand one above the other. A macro genotype is a chain of layers from
    top to bottom with its skips as arcs, a recurrent genotype a tree and a block a
    graph from left to right; blocks with exits stand one above the other. An
    autoencoder is its encoder from left to right above its decoder, backwards.

    Args:
      genotype: the genotype.
      title: text above the drawing.

    Returns:
      An SVG element that needs no other file and defines no ids, so that several can
      stand in one page. What has no path to the output is gray.

    Raises:
      TypeError: if no drawing is registered for the class of the genotype.
      ValueError: if the genotype is invalid, naming the place at fault.
    """
    return to_svg(graph(genotype), title=title)


def to_svg(graph: pygraphviz.AGraph, *, title: str) -> str:
    """Render a graph as an SVG element like that of `genotype_svg`."""
    program = dict(graph.graph_attr).get("layout") or "dot"
    _load_fonts()
    drawn: Any = _titled(graph, title).draw(format="svg", prog=program)
    markup = drawn.decode()
    markup = re.sub(r"<!--.*?-->\n?", "", markup[markup.index("<svg") :], flags=re.S)
    markup = re.sub(r' (?:id|class)="[^"]*"', "", markup)
    family = 'font-family="{}"'.format
    markup = markup.replace(family(_LAYOUT_FONT), family(_SHOWN_FONTS))
    # A point of Graphviz is shown as one pixel, so that its text is 12 px high.
    markup = re.sub(r'(width|height)="(\d+)pt"', r'\1="\2"', markup, count=2)
    return markup.replace(
        "<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1
    )


def new_graph(**attributes: str) -> pygraphviz.AGraph:
    """Make an empty graph from left to right, in the style of all drawings."""
    graph = pygraphviz.AGraph(directed=True, strict=False, rankdir="LR")
    graph.graph_attr.update(
        bgcolor="white",
        fontcolor=INK,
        fontname=_LAYOUT_FONT,
        fontsize="13",
        labeljust="l",
        labelloc="t",
        nodesep="0.1",
        outputorder="edgesfirst",
        pad="0.25",
        ranksep="0.35",
    )
    graph.graph_attr.update(attributes)
    graph.node_attr.update(
        color=INK,
        fillcolor="white",
        fontcolor=INK,
        fontname=_LAYOUT_FONT,
        fontsize="12",
        height="0.3",
        margin="0.09,0.03",
        shape="box",
        style="rounded,filled",
        width="0",
    )
    graph.edge_attr.update(
        arrowsize="0.6",
        color=INK,
        fontname=_LAYOUT_FONT,
        headport="w",
        penwidth="1.3",
        tailport="e",
    )
    return graph


def add_inputs(
    graph: pygraphviz.AGraph, upper: tuple[str, str, str], lower: tuple[str, str, str]
) -> None:
    """Add two inputs of a cluster, one above the other: name, symbol, index of each."""
    # Graphviz stacks what it meets first below the rest, but only within a cluster.
    add_port(graph, *lower)
    add_port(graph, *upper)
    graph.add_edge(lower[0], upper[0], style="invis")
    graph.add_subgraph([lower[0], upper[0]], rank="same")


def add_port(graph: pygraphviz.AGraph, node: str, symbol: str, index: str) -> None:
    """Add an input or output, shown as a symbol with an index."""
    label = f"<{html.escape(symbol)}<SUB>{html.escape(index)}</SUB>>"
    graph.add_node(node, label=label, fillcolor="#f2f4f7", width="0.6", height="0.42")


def add_cluster(graph: pygraphviz.AGraph, heading: str = "") -> pygraphviz.AGraph:
    """Add a subgraph, with a heading if one is given."""
    name = f"cluster_{len(graph.subgraphs())}"
    label = f"<<B>{html.escape(heading)}</B>>" if heading else ""
    return graph.add_subgraph(name=name, label=label, color="white", margin="10")


def shade_dead(graph: pygraphviz.AGraph, outputs: Collection[str]) -> None:
    """Draw in gray what has no path to an output, and say so."""
    sources: dict[str, set[str]] = {}
    edge: Any  # its attributes are made at run time
    node: Any
    for edge in graph.edges_iter():
        if edge.attr["style"] != "invis":
            sources.setdefault(edge[1], set()).add(edge[0])
    live, left = set(outputs), list(outputs)
    while left:
        found = sources.get(left.pop(), set()) - live
        live |= found
        left += found
    for edge in graph.edges_iter():
        if edge[1] not in live:
            edge.attr["color"] = DEAD
    for node in graph.nodes_iter():
        if node not in live:
            graph.graph_attr["comment"] = "gray: no path to the output"
            node.attr.update(color=DEAD, fontcolor=FAINT)
            label = re.sub(r'COLOR="#\w{6}"', f'COLOR="{DEAD}"', node.attr["label"])
            if label != node.attr["label"]:
                node.attr["label"] = f"<{label}>"


def short(op: str) -> str:
    """Shorten `sep_conv_3x3` to `sep 3x3` and `skip_connect` to `skip`."""
    first, *rest = op.split("_")
    kept = [word for word in rest if word not in ("conv", "pool", "connect")]
    return " ".join([first, *kept])


def op_color(op: str) -> str:
    """Choose the color of a family of operations."""
    return _COLORS.get(op.split("_")[0], INK)


def _titled(graph: pygraphviz.AGraph, title: str) -> pygraphviz.AGraph:
    comment = dict(graph.graph_attr).get("comment", "")
    lines = {
        f'<FONT POINT-SIZE="16"><B>{html.escape(title)}</B></FONT>': title,
        f'<FONT POINT-SIZE="11">{html.escape(comment)}</FONT>': comment,
    }
    # Without words these would be a syntax error.
    label = "".join(
        f'{line}<BR ALIGN="LEFT"/>' for line, words in lines.items() if words
    )
    graph.graph_attr["label"] = f"<{label}>" if label else ""
    return graph


@functools.cache
def _load_fonts() -> None:
    """Let Graphviz see matplotlib's fonts only, whatever the machine has.

    It reads the configuration of fonts once, at its first drawing, and writes warnings
    about files of the machine that it does not know to standard error. These are kept
    from the user; those of later drawings are not.
    """
    fonts = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    text = (
        f"<fontconfig><dir>{html.escape(str(fonts))}</dir>"
        "<config><rescan><int>0</int></rescan></config></fontconfig>"
    )
    name = "FONTCONFIG_FILE"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as null:
        os.environ[name] = os.path.join(folder, "fonts.conf")
        pathlib.Path(os.environ[name]).write_text(text, encoding="utf-8")
        stderr = os.dup(2)
        os.dup2(null.fileno(), 2)
        try:
            first = new_graph()
            first.add_node("node")
            first.draw(format="svg", prog="dot")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
