"""Drawings: complete, self-contained, and open to families of other packages."""

import html
import itertools
import re
from collections import Counter
from typing import Any, NamedTuple
from xml.etree import ElementTree

import jax
import numpy as np
import pygraphviz
import pytest

from jaxnas import genotypes, spaces
from jaxnas.report import drawing

SVG = "{http://www.w3.org/2000/svg}"
GRAY, FAINT = "#c2c7cc", "#8a939c"
SEP = ("sep_conv_3x3", 0)


def parse(genotype) -> Any:
    return pygraphviz.AGraph(string=drawing.genotype_dot(genotype, title="found"))


def visible(graph) -> list[Any]:
    return [edge for edge in graph.edges() if edge.attr["style"] != "invis"]


def ends(graph) -> Counter:
    return Counter(tuple(edge) for edge in visible(graph))


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [(element.text or "").strip() for element in root.iter(f"{SVG}text")]


def sampled(space, num: int) -> list[Any]:
    return [space.decode(space.sample(jax.random.key(seed))) for seed in range(num)]


def single(*pairs, concat=(2,)) -> genotypes.Genotype:
    return genotypes.Genotype(pairs, concat, (SEP, SEP), (2,))


FAMILIES = {
    "cells": genotypes.named("DARTS_V2"),
    "macro": genotypes.named("ENAS_MACRO"),
    "recurrent": genotypes.named("ENAS_RECURRENT"),
    "block": genotypes.named("GHN"),
    "autoencoder": genotypes.named("ECAE_SVHN"),
    "anytime": spaces.anytime().decode(spaces.anytime().sample(jax.random.key(1))),
}
every_family = pytest.mark.parametrize("genotype", FAMILIES.values(), ids=FAMILIES)


# Every family ----------------------------------------------------------------------


@every_family
def test_a_drawing_stands_alone_and_among_others(genotype, capfd):
    svg = drawing.genotype_svg(genotype, title="found")
    assert svg.startswith("<svg ")  # no declaration, which may not stand inside HTML
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.attrib["aria-label"] == "found"
    assert not any({"id", "class"} & set(element.attrib) for element in root.iter())
    assert not re.search(r'url\(|href="|<style|<script|<!', svg)
    paper = next(root.iter(f"{SVG}polygon")).attrib  # reads the same on a dark page
    assert paper["fill"] == "white"
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    assert [width, height] == list(map(float, root.attrib["viewBox"].split()[2:]))
    assert svg == drawing.genotype_svg(genotype, title="found")
    assert capfd.readouterr() == ("", "")


@every_family
def test_titles_are_escaped_and_fit(genotype):
    title = r'<b> & "\1" id="c" ' * 40
    svg = drawing.genotype_svg(genotype, title=title)
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == title and title.strip() in texts(svg)
    assert float(root.attrib["width"]) > 6 * len(title)
    graph = pygraphviz.AGraph(string=drawing.genotype_dot(genotype, title=title))
    assert html.escape(title) in graph.graph_attr["label"]


@every_family
def test_dot_and_svg_show_the_same(genotype):
    graph = parse(genotype)
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title="found"))
    shown = {element.text for element in root.iter(f"{SVG}title")}
    assert set(graph.nodes()) <= shown
    assert {f"{edge[0]}->{edge[1]}" for edge in visible(graph)} <= {
        re.sub(r":\w+", "", title or "") for title in shown
    }


def test_invalid_genotypes_are_refused():
    cell = [("none", 0), ("none", 2)]
    with pytest.raises(ValueError, match="cell, node 2, second edge: source 2 is not"):
        drawing.cell_svg(cell, [2], title="")
    invalid = genotypes.named("DARTS")._replace(reduce_concat=(9,))
    with pytest.raises(ValueError, match="reduction cell, concat: 9 is not an"):
        drawing.genotype_svg(invalid, title="")
    macro = genotypes.named("ENAS_MACRO")._replace(skips=((0,),) * 24)
    with pytest.raises(ValueError, match="layer 0, skips: found source 0"):
        drawing.genotype_svg(macro, title="")
    recurrent = genotypes.named("ENAS_RECURRENT")._replace(sources=(0,))
    with pytest.raises(ValueError, match="found 1 sources for 12 activations"):
        drawing.genotype_dot(recurrent, title="")
    dag = genotypes.named("GHN")._replace(inputs=((),) * 15)
    with pytest.raises(ValueError, match="node 2, inputs: no node; expected some of"):
        drawing.genotype_dot(dag, title="")
    autoencoder = genotypes.named("ECAE_SVHN")._replace(output_kernel=2)
    with pytest.raises(ValueError, match="output_kernel is 2; expected one of 1, 3, 5"):
        drawing.genotype_dot(autoencoder, title="")


class Tower(NamedTuple):
    """A family of another package."""

    blocks: tuple[str, ...]


def test_a_family_of_another_package_registers_its_drawing():
    tower = Tower(("a < b", "c"))
    with pytest.raises(TypeError, match=r"found a Tower, which has no drawing; regis"):
        drawing.genotype_svg(tower, title="")

    @drawing.graph.register(Tower)
    def tower_graph(genotype: Tower) -> pygraphviz.AGraph:
        graph = drawing.new_graph(comment="x & y")
        graph.add_edges_from(itertools.pairwise(genotype.blocks))
        return graph

    assert ends(parse(tower)) == {("a < b", "c"): 1}
    shown = texts(drawing.genotype_svg(tower, title="T"))
    assert sorted(shown) == ["T", "a < b", "c", "x & y"]


# Cells -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DARTS_V2", "AmoebaNet", "ENAS_MICRO"])
def test_cells_show_every_edge_once(name):
    genotype = genotypes.named(name)
    graph = parse(genotype)
    expected, keys = Counter(), Counter()
    for cell, pairs, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduce", genotype.reduce, genotype.reduce_concat),
    ):
        output = 2 + len(pairs) // 2
        for i, (op, source) in enumerate(pairs):
            expected[f"{cell} {source}", f"{cell} {2 + i // 2}"] += 1
            keys[cell, f"{op}: {source} to {2 + i // 2}, {i % 2}"] += 1
        expected.update((f"{cell} {node}", f"{cell} {output}") for node in concat)
    assert ends(graph) == expected
    edges = graph.edges(keys=True)
    found = Counter((source.split()[0], key) for source, _, key in edges if key)
    assert Counter({edge: found[edge] for edge in keys}) == keys
    shown = texts(drawing.genotype_svg(genotype, title=name))
    assert {"Normal cell", "Reduction cell", "k-2", "k-1", "k"} < set(shown)
    ops = [op for op, _ in (*genotype.normal, *genotype.reduce)]
    assert sum(word in {"sep 3x3", "avg 3x3"} for word in shown) == sum(
        op in {"sep_conv_3x3", "avg_pool_3x3"} for op in ops
    )


@pytest.mark.parametrize(
    ("op", "label"),
    [
        ("max_pool_3x3", "max 3x3"),
        ("avg_pool_3x3", "avg 3x3"),
        ("sep_conv_7x7", "sep 7x7"),
        ("conv_7x1_1x7", "conv 7x1 1x7"),
        ("skip_connect", "skip"),
        ("none", "none"),
    ],
)
def test_labels_are_short(op, label):
    shown = texts(drawing.cell_svg([(op, 0), SEP], [2], title="A cell"))
    assert label in shown and "A cell" in shown and "Normal cell" not in shown


def test_families_of_operations_differ_in_color_and_agree_between_drawings():
    pairs = tuple((op, 0) for op in genotypes.OPS)
    graph = parse(single(*pairs, concat=tuple(range(2, 2 + len(pairs) // 2))))
    colors: dict[str, set[str]] = {}
    for edge in graph.edges(keys=True):
        if edge[0] == "normal 0" and edge[2]:
            attributes = pygraphviz.Edge(graph, *edge).attr  # pyright: ignore
            colors.setdefault(edge[2].split("_")[0], set()).add(attributes["color"])
            assert (attributes["style"] == "dashed") == edge[2].startswith("none")
    colors = {name.split(":")[0]: color for name, color in colors.items()}
    assert set(colors) == {"none", "avg", "max", "skip", "sep", "dil", "conv"}
    assert all(len(color) == 1 for color in colors.values())
    assert len(set.union(*colors.values())) == len(colors)
    chain = parse(genotypes.MacroGenotype(("sep_conv_5x5",), ((),)))
    assert {chain.get_node("0").attr["color"]} == colors["sep"]


def test_two_edges_between_the_same_nodes_are_both_visible():
    graph = parse(single(SEP, SEP))
    ports = [e.attr["headport"] for e in visible(graph) if e[1] == "normal 2"]
    assert sorted(ports) == ["0:w", "1:w"]


def test_what_has_no_path_to_the_output_is_gray():
    pairs = [("skip_connect", 0), ("skip_connect", 0)] * 2
    pairs += [("sep_conv_3x3", 2), ("none", 2)]
    graph = parse(single(*pairs, concat=(3,)))
    gray = {node for node in graph.nodes() if node.attr["color"] == GRAY}
    assert gray == {"normal 1", "normal 2", "normal 4", "reduce 1"}
    found = {tuple(e) for e in visible(graph) if e.attr["color"] == GRAY}
    assert found == {("normal 0", "normal 2"), ("normal 2", "normal 4")}
    colors = re.findall(r'COLOR="(.*?)"', graph.get_node("normal 4").attr["label"])
    assert set(colors) == {GRAY, "white"}
    note = "gray: no path to the output"
    assert note in texts(drawing.cell_svg(pairs, [3], title=""))
    assert note not in texts(drawing.genotype_svg(FAMILIES["cells"], title=""))


# Chains of layers ------------------------------------------------------------------


def macro_genotypes() -> list[genotypes.MacroGenotype]:
    every = tuple(tuple(range(layer)) for layer in range(8))
    dense = genotypes.MacroGenotype(("conv_3x3",) * 8, every)
    found = sampled(spaces.enas_macro(12), 2)
    return [genotypes.named("ENAS_MACRO"), *found, dense]


def number(name: str, num_layers: int) -> int:
    return {"stem": -1, "classifier": num_layers}.get(name) or int(name)


@pytest.mark.parametrize("genotype", macro_genotypes())
def test_a_macro_genotype_shows_every_layer_and_skip(genotype):
    graph = parse(genotype)
    names = ["stem", *map(str, range(len(genotype.ops))), "classifier"]
    expected = Counter(itertools.pairwise(names))
    expected.update(
        (names[source], str(layer))
        for layer, sources in enumerate(genotype.skips)
        for source in sources
    )
    assert ends(graph) == expected
    heights = [float(graph.get_node(name).attr["pos"].split(",")[1]) for name in names]
    assert heights == sorted(heights, reverse=True)
    last = [names[source] for source in genotype.skips[-1]]
    shown = texts(drawing.genotype_svg(genotype, title=""))
    assert f"joins {', '.join(last)}" in shown
    words = [op.replace("_conv", "").replace("_pool", "") for op in genotype.ops]
    for word, count in Counter(word.replace("_", " ") for word in words).items():
        assert shown.count(word) == count


@pytest.mark.parametrize("genotype", macro_genotypes())
def test_skips_nest_and_boxes_keep_apart(genotype):
    graph = parse(genotype)
    boxes = []
    for name in ("stem", *map(str, range(len(genotype.ops))), "classifier"):
        node = graph.get_node(name)
        middle, half = float(node.attr["pos"].split(",")[1]), node.attr["height"]
        boxes.append((middle + 36 * float(half), middle - 36 * float(half)))
    assert all(upper[1] > lower[0] for upper, lower in itertools.pairwise(boxes))
    arcs = {}
    t = np.linspace(0, 1, 60)[:, None]
    for edge in visible(graph):
        source, target = (number(name, len(genotype.ops)) for name in edge)
        head, *controls = re.findall(r"([-\d.]+),([-\d.]+)", edge.attr["pos"])
        p, q, r, _ = np.array(controls, float)
        s = np.array(head, float)
        points = (1 - t) ** 3 * p + 3 * (1 - t) ** 2 * t * q
        points = points + 3 * (1 - t) * t**2 * r + t**3 * s
        if p[0] > 0:  # not of the chain
            arcs[source, target] = points
    assert len(arcs) == sum(map(len, genotype.skips))
    places = Counter(tuple(arc[i]) for arc in arcs.values() for i in (0, -1))
    assert max(places.values()) == 1
    for (source, target), outer in arcs.items():
        top, bottom = boxes[source + 1], boxes[target + 1]
        assert top[0] > outer[0, 1] > top[1] and bottom[0] > outer[-1, 1] > bottom[1]
        for (first, last), inner in arcs.items():
            if (source, target) != (first, last) and source <= first < last <= target:
                # How far the outer arc reaches at the heights of the inner one.
                reach = np.interp(-inner[:, 1], -outer[:, 1], outer[:, 0])
                assert (reach > inner[:, 0] - 0.5).all()


@pytest.mark.parametrize(("num_layers", "after"), [(12, (3, 7)), (4, (0, 1)), (2, ())])
def test_reductions_stand_after_the_thirds(num_layers, after):
    genotype = genotypes.MacroGenotype(("conv_3x3",) * num_layers, ((),) * num_layers)
    graph = parse(genotype)  # edges do not keep it alive
    labels = {edge[0]: edge.attr["label"] for edge in visible(graph)}
    reductions = [source for source, label in labels.items() if label == "reduction"]
    assert reductions == [str(layer) for layer in after]


# Recurrent cells, blocks and networks with exits -----------------------------------


@pytest.mark.parametrize(
    "genotype",
    [
        *map(genotypes.named, genotypes.RECURRENT_NAMES),
        *sampled(spaces.enas_recurrent(9), 3),
        genotypes.RecurrentGenotype(("sigmoid",), ()),
    ],
)
def test_a_recurrent_genotype_is_a_tree(genotype):
    graph = parse(genotype)
    activations, sources, averaged = genotype
    expected = {("x", "0"), ("h", "0")}
    expected |= {(str(source), str(node)) for node, source in enumerate(sources, 1)}
    nodes = range(1, len(activations))
    if averaged == "loose_ends":
        nodes = genotypes.recurrent_loose_ends(genotype)
    expected |= {(str(node), "output") for node in nodes}
    assert ends(graph) == Counter(expected)
    shown = Counter(texts(drawing.genotype_svg(genotype, title="")))
    assert all(shown[name] == activations.count(name) for name in set(activations))
    assert shown["mean h"] == 1


def dag_genotypes() -> list[genotypes.DagGenotype]:
    found = []
    for num_nodes, density in ((3, 0.3), (7, 0.3), (17, 0.3), (17, 0.6)):
        found += sampled(spaces.ghn_dag(num_nodes, density=density), 1)
    every = tuple(tuple(range(node)) for node in range(2, 9))
    dense = genotypes.DagGenotype(("conv_7x1_1x7",) * 7, every)
    return [genotypes.named("GHN"), *found, dense]


@pytest.mark.parametrize("genotype", dag_genotypes())
def test_a_block_shows_every_node_and_edge_once(genotype):
    graph = parse(genotype)
    expected = [
        (str(source), str(node))
        for node, inputs in enumerate(genotype.inputs, start=2)
        for source in inputs
    ]
    output = str(2 + len(genotype.ops))
    expected += [(str(node), output) for node in genotypes.dag_leaves(genotype)]
    assert ends(graph) == Counter(expected)
    for node, op in enumerate(genotype.ops, start=2):
        words = op.replace("_conv", "").replace("_pool", "").replace("_connect", "")
        label = graph.get_node(str(node)).attr["label"]
        assert label == f"<B>{node}</B>  {words.replace('_', ' ')}"


def test_an_input_that_no_node_reads_is_gray():
    graph = parse(genotypes.DagGenotype(("conv_1x1",), ((1,),)))
    assert graph.get_node("0").attr["fontcolor"] == FAINT
    assert graph.get_node("1").attr["fontcolor"] != FAINT
    assert GRAY not in {e.attr["color"] for e in visible(graph)}
    graph = parse(FAMILIES["block"])
    assert GRAY not in {node.attr["color"] for node in graph.nodes()}


def test_networks_show_scales_and_exits_of_every_block():
    genotype = FAMILIES["anytime"]
    graph = parse(genotype)
    shown = texts(drawing.genotype_svg(genotype, title=""))
    for block, (ops, inputs, scales, exits) in enumerate(zip(*genotype, strict=True)):
        assert f"Block {block}, exits at {', '.join(map(str, exits))}" in shown
        for node, (op, sources) in enumerate(zip(ops, inputs, strict=True), start=2):
            drawn = graph.get_node(f"{block}.{node}")
            assert {source.split(".")[1] for source, _ in graph.in_edges(drawn)} == {
                str(source) for source in sources
            }
            scale = scales[node - 2]
            assert drawn.attr["label"].endswith(f"/{2**scale}") == (scale > 0)
            assert drawn.attr["label"].split()[1] == op.split("_")[0]
            assert (drawn.attr["penwidth"] == "3") == (node in exits)


# Autoencoders ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "genotype",
    [
        *map(genotypes.named, genotypes.AUTOENCODER_NAMES),
        # One node, with a skip.
        genotypes.AutoencoderGenotype((5,), (7,), (1,), (True,)),
    ],
)
def test_an_autoencoder_shows_every_node_twice_and_every_skip(genotype):
    graph = parse(genotype)
    nodes = range(len(genotype.kernels))
    chain = ["image", *(f"encoder {i}" for i in nodes)]
    chain += [*(f"decoder {i}" for i in reversed(nodes)), "output"]
    skips = [(f"encoder {i}", f"decoder {i}") for i in nodes if genotype.skips[i]]
    assert ends(graph) == Counter(itertools.pairwise(chain)) + Counter(skips)
    for i in nodes:
        words = f"{genotype.kernels[i]}x{genotype.kernels[i]}, {genotype.channels[i]}"
        for part, scale in (("encoder", "/2"), ("decoder", "x2")):
            label = graph.get_node(f"{part} {i}").attr["label"]
            assert f"<B>{i}</B>" in label and words in label
            assert (scale in label) == (genotype.strides[i] == 2)
    size = genotype.output_kernel
    assert graph.get_node("output").attr["label"] == f"output {size}x{size}"


def test_an_encoder_stands_above_its_decoder():
    svg = drawing.genotype_svg(genotypes.named("ECAE_CELEBA"), title="")
    places = {}
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        text = "".join(element.itertext()).strip()
        place = float(element.attrib["x"]), float(element.attrib["y"])
        places.setdefault(text, []).append(place)
    (image,), (output,) = places["image"], places["output 1x1"]
    assert output[1] > image[1] + 20
    for i in range(7):
        upper, lower = places[str(i)]
        # Words in the boxes have different widths.
        assert abs(upper[0] - lower[0]) < 10
        assert (upper[1], lower[1]) == pytest.approx((image[1], output[1]), abs=1)
