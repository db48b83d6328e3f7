"""Drawings: valid, complete, and nothing hides anything else."""

import itertools
import re
from collections import Counter
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from jaxnas import genotypes, spaces
from jaxnas.report import drawing

SVG = "{http://www.w3.org/2000/svg}"
WHITE, GREY = "#ffffff", "#c2c7cc"


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def edges(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [
        group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None
    ]


def name(edge: ElementTree.Element) -> str:
    return edge.findtext(f"{SVG}title") or ""


def line(edge: ElementTree.Element) -> str:
    paths = [path.attrib for path in edge.iter(f"{SVG}path")]
    return next(path["d"] for path in paths if path.get("stroke") not in (None, WHITE))


def level_stretches(path: str) -> list[tuple[float, float, float]]:
    """The horizontal parts `(x, to_x, y)` of a path of M, H and C commands."""
    stretches = []
    x = y = 0.0
    for command, values in re.findall(r"([MHC])([^MHC]*)", path):
        numbers = [float(value) for value in values.split()]
        if command == "H":
            stretches.append((x, numbers[0], y))
            x = numbers[0]
        else:
            x, y = numbers[-2:]
    return stretches


def labels(root: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    """Box `(left, top, right, bottom)` of each label, by a name of its edge."""
    boxes = {}
    for i, edge in enumerate(edges(root)):
        rect = edge.find(f"{SVG}rect")
        if rect is not None:
            x, y, width, height = (
                float(rect.attrib[key]) for key in ("x", "y", "width", "height")
            )
            boxes[f"{i} {name(edge)}"] = (x, y, x + width, y + height)
    return boxes


def discs(root: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    """Box of each intermediate node, by its number."""
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        children = list(group)
        for circle, text in itertools.pairwise(children):
            if circle.tag == f"{SVG}circle":
                x, y, r = (float(circle.attrib[key]) for key in ("cx", "cy", "r"))
                boxes[text.text or ""] = (x - r, y - r, x + r, y + r)
    return boxes


def random_cells() -> list[tuple[tuple[genotypes.Edge, ...], tuple[int, ...]]]:
    cells = []
    for num_nodes in (1, 3, 5, 7):
        space = spaces.enas_micro(num_nodes)
        for seed in range(3):
            genotype = space.decode(space.sample(jax.random.key(seed)))
            cells.append((genotype.normal, genotype.normal_concat))
            # Every node feeds the output: the most lanes a cell can have.
            cells.append((genotype.reduce, tuple(range(2, 2 + num_nodes))))
    return cells


def test_a_cell_shows_every_edge_once():
    darts = genotypes.named("DARTS_V2")
    svg = drawing.cell_svg(darts.normal, darts.normal_concat, title="DARTS")
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    expected = [
        f"{op}: {source} to {2 + i // 2}" for i, (op, source) in enumerate(darts.normal)
    ]
    expected += [f"output: {node} to 6" for node in (2, 3, 4, 5)]
    assert Counter(map(name, edges(root))) == Counter(expected)
    shown = Counter(texts(root))
    assert shown["sep 3x3"] == 5 and shown["skip"] == 2 and shown["dil 3x3"] == 1
    assert all(shown[text] == 1 for text in ("DARTS", "k-2", "k-1", "k", *"2345"))


@pytest.mark.parametrize(
    ("op", "label"),
    [
        ("max_pool_3x3", "max 3x3"),
        ("avg_pool_3x3", "avg 3x3"),
        ("sep_conv_7x7", "sep 7x7"),
        ("conv_7x1_1x7", "conv 7x1 1x7"),
        ("none", "none"),
    ],
)
def test_labels_are_short(op, label):
    root = ElementTree.fromstring(
        drawing.cell_svg([(op, 0), ("skip_connect", 1)], [2], title="")
    )
    assert label in texts(root)


def test_families_of_operations_differ_in_colour():
    pairs = [(op, 0) for op in genotypes.OPS]
    concat = range(2, 2 + len(pairs) // 2)
    root = ElementTree.fromstring(drawing.cell_svg(pairs, concat, title="all"))
    colours: dict[str, set[str]] = {}
    for edge in edges(root):
        rect = edge.find(f"{SVG}rect")
        if rect is not None:
            family = name(edge).split("_")[0].split(":")[0]
            colours.setdefault(family, set()).add(rect.attrib["stroke"])
    assert set(colours) == {"none", "avg", "max", "skip", "sep", "dil", "conv"}
    assert all(len(colour) == 1 for colour in colours.values())
    assert len(set.union(*colours.values())) == len(colours)


def test_a_drawing_stands_alone_on_its_own_paper():
    svg = drawing.genotype_svg(genotypes.named("ENAS"), title="ENAS")
    root = ElementTree.fromstring(svg)
    paper = next(iter(root.iter(f"{SVG}rect"))).attrib
    assert paper == {"width": "100%", "height": "100%", "fill": WHITE}
    assert not any("id" in element.attrib for element in root.iter())
    assert not re.search(r"url\(|href|<style|<script", svg)
    assert svg == drawing.genotype_svg(genotypes.named("ENAS"), title="ENAS")


def test_titles_are_escaped_and_fit():
    title = 'a <b> & "c" ' * 20
    root = ElementTree.fromstring(
        drawing.cell_svg([("none", 0), ("none", 1)], [2], title=title)
    )
    assert root.findtext(f"{SVG}title") == title == texts(root)[0]
    assert root.attrib["aria-label"] == title
    assert float(root.attrib["width"]) > 7 * len(title)


def test_two_edges_between_the_same_nodes_are_both_visible():
    pairs = [("sep_conv_3x3", 0), ("sep_conv_3x3", 0), ("skip_connect", 0), ("none", 2)]
    root = ElementTree.fromstring(drawing.cell_svg(pairs, [3], title=""))
    first, second = (line(e) for e in edges(root) if name(e) == "sep_conv_3x3: 0 to 2")
    stretches = zip(level_stretches(first), level_stretches(second), strict=True)
    assert all(abs(one[2] - other[2]) > 4 for one, other in stretches)


def test_what_has_no_path_to_the_output_is_grey():
    pairs = [("skip_connect", 0), ("skip_connect", 0)] * 2
    pairs += [("sep_conv_3x3", 2), ("none", 2)]
    root = ElementTree.fromstring(drawing.cell_svg(pairs, [3], title=""))
    nodes = [circle.attrib["fill"] == GREY for circle in root.iter(f"{SVG}circle")]
    assert nodes == [True, False, True]
    grey = {
        name(edge)
        for edge in edges(root)
        if any(path.get("fill") == GREY for path in edge.iter(f"{SVG}path"))
    }
    assert grey == {"skip_connect: 0 to 2", "sep_conv_3x3: 2 to 4", "none: 2 to 4"}
    assert "grey: no path to the output" in texts(root)
    # Nobody reads cell k-1 here.
    index = next(text for text in root.iter(f"{SVG}text") if text.text == "k-1")
    assert index.attrib["fill"] == GREY


def test_without_dead_nodes_nothing_is_grey():
    darts = genotypes.named("DARTS")
    svg = drawing.genotype_svg(darts, title="DARTS")
    assert GREY not in svg and "grey" not in svg


def test_nothing_overlaps_and_everything_flows_to_the_right():
    for pairs, concat in random_cells():
        root = ElementTree.fromstring(drawing.cell_svg(pairs, concat, title=""))
        nodes, boxes = discs(root), labels(root)
        assert len(boxes) == len(pairs) and len(nodes) == len(pairs) // 2
        for one, other in itertools.combinations([*nodes.values(), *boxes.values()], 2):
            apart = (
                one[2] < other[0]
                or other[2] < one[0]
                or one[3] < other[1]
                or other[3] < one[1]
            )
            assert apart, (pairs, concat)
        for i, (_, source) in enumerate(pairs):
            if source >= 2:
                assert nodes[str(source)][2] < nodes[str(2 + i // 2)][0]


def test_no_edge_runs_through_the_label_of_another():
    for pairs, concat in random_cells():
        root = ElementTree.fromstring(drawing.cell_svg(pairs, concat, title=""))
        boxes = labels(root)
        for i, edge in enumerate(edges(root)):
            for label, (left, top, right, bottom) in boxes.items():
                if label == f"{i} {name(edge)}":
                    continue
                for x, to_x, y in level_stretches(line(edge)):
                    clear = to_x < left or x > right or y < top or y > bottom
                    assert clear, (pairs, concat, name(edge), label)


def test_lanes_keep_apart():
    for pairs, concat in random_cells():
        root = ElementTree.fromstring(drawing.cell_svg(pairs, concat, title=""))
        stretches = [
            # Without the short ends under the source.
            [(x, to_x, y) for x, to_x, y in level_stretches(line(edge))[1:]]
            for edge in edges(root)
        ]
        for one, other in itertools.combinations(stretches, 2):
            for (x, to_x, y), (u, to_u, v) in itertools.product(one, other):
                assert to_x < u or to_u < x or abs(y - v) > 15, (pairs, concat)


def test_edges_that_need_not_cross_do_not():
    # Each node reads one input twice and everything leads on in parallel.
    pairs = [("none", 1), ("none", 1), ("none", 0), ("none", 0)]
    pairs += [("none", 3), ("none", 3), ("none", 2), ("none", 2)]
    root = ElementTree.fromstring(drawing.cell_svg(pairs, [4, 5], title=""))
    top = {node: box[1] for node, box in discs(root).items()}
    assert top["3"] < top["2"] and top["4"] < top["5"]


def test_a_genotype_shows_both_cells_one_above_the_other():
    amoeba = genotypes.named("AmoebaNet")
    root = ElementTree.fromstring(drawing.genotype_svg(amoeba, title="AmoebaNet"))
    shown = texts(root)
    assert shown.index("Normal cell") < shown.index("conv 7x1 1x7")
    assert shown.index("Normal cell") < shown.index("Reduction cell")
    assert len(labels(root)) == len(amoeba.normal) + len(amoeba.reduce)
    heights = [
        float(
            ElementTree.fromstring(drawing.cell_svg(pairs, concat, title="")).attrib[
                "height"
            ]
        )
        for pairs, concat in (amoeba[:2], amoeba[2:])
    ]
    assert max(heights) < float(root.attrib["height"]) < sum(heights) + 40


def test_invalid_cells_are_refused():
    with pytest.raises(ValueError, match="cell, node 2, second edge: source 2 is not"):
        drawing.cell_svg([("none", 0), ("none", 2)], [2], title="")
    invalid = genotypes.named("DARTS")._replace(reduce_concat=(9,))
    with pytest.raises(ValueError, match="reduction cell, concat: 9 is not an"):
        drawing.genotype_svg(invalid, title="")


def macro_genotypes() -> list[genotypes.MacroGenotype]:
    space = spaces.enas_macro(12)
    found = [space.decode(space.sample(jax.random.key(seed))) for seed in range(2)]
    every = tuple(tuple(range(layer)) for layer in range(8))
    dense = genotypes.MacroGenotype(("conv_3x3",) * 8, every)
    return [genotypes.named("ENAS_MACRO"), *found, dense]


def arcs(root: ElementTree.Element) -> dict[tuple[int, int], np.ndarray]:
    """Points `[num, 2]` of each skip, by the rows it joins; the stem is in row 0."""
    found = {}
    t = np.linspace(0, 1, 60)[:, None]
    for edge in edges(root):
        title = re.fullmatch(r"skip: (stem|layer (\d+)) to layer (\d+)", name(edge))
        assert title, name(edge)
        source = 0 if title[2] is None else int(title[2]) + 1
        numbers = [float(number) for number in re.findall(r"[\d.]+", line(edge))]
        start, out, back, end = np.reshape(numbers, (4, 1, 2))
        points = (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * out
        points += 3 * (1 - t) * t**2 * back + t**3 * end
        assert (source, int(title[3]) + 1) not in found
        found[source, int(title[3]) + 1] = points
    return found


@pytest.mark.parametrize("genotype", macro_genotypes())
def test_a_macro_genotype_shows_every_layer_and_skip(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title="found"))
    assert set(arcs(root)) == {
        (source, layer + 1)
        for layer, sources in enumerate(genotype.skips)
        for source in sources
    }
    shown = texts(root)
    order = [shown.index(str(layer)) for layer in range(len(genotype.ops))]
    assert order == sorted(order)
    words = [op.replace("_conv", "").replace("_pool", "") for op in genotype.ops]
    assert [shown[i - 1] for i in order] == [op.replace("_", " ") for op in words]
    assert {"stem", "classifier"} < set(shown)
    last = [f"{source - 1}" if source else "stem" for source in genotype.skips[-1]]
    assert f"joins {', '.join(last)}" in shown


@pytest.mark.parametrize("genotype", macro_genotypes())
def test_skips_nest_and_stay_on_the_page(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    found = arcs(root)
    ends = Counter(tuple(points[i]) for points in found.values() for i in (0, -1))
    assert max(ends.values()) == 1
    widest = max(points[:, 0].max() for points in found.values())
    # With the left margin of 24 px, and most of the right one.
    assert widest + 24 < float(root.attrib["width"]) - 20
    for (source, target), outer in found.items():
        for (first, last), inner in found.items():
            if (source, target) != (first, last) and source <= first < last <= target:
                # How far the outer arc reaches at the heights of the inner one.
                reach = np.interp(inner[:, 1], outer[:, 1], outer[:, 0])
                assert (reach > inner[:, 0] - 0.5).all()


@pytest.mark.parametrize(("num_layers", "after"), [(12, (3, 7)), (4, (0, 1)), (2, ())])
def test_reductions_stand_after_the_thirds(num_layers, after):
    genotype = genotypes.MacroGenotype(("conv_3x3",) * num_layers, ((),) * num_layers)
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    heights = [
        (float(element.attrib["y"]), element.text or "")
        for element in root.iter(f"{SVG}text")
        if (element.text or "").isdigit() or element.text == "reduction"
    ]
    expected = []
    for layer in range(num_layers):
        expected += [str(layer), *["reduction"] * (layer in after)]
    assert [words for _, words in sorted(heights)] == expected


def test_layers_are_coloured_as_the_operations_of_cells():
    op = "sep_conv_5x5"
    cell = drawing.cell_svg([(op, 0), (op, 1)], [2], title="")
    chain = drawing.genotype_svg(genotypes.MacroGenotype((op,), ((),)), title="")
    colours = [
        text.attrib["fill"]
        for svg in (cell, chain)
        for text in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if text.text == "sep 5x5"
    ]
    assert len(colours) == 3 and len(set(colours)) == 1


def recurrent_genotypes() -> list[genotypes.RecurrentGenotype]:
    space = spaces.enas_recurrent(9)
    found = [space.decode(space.sample(jax.random.key(seed))) for seed in range(3)]
    single = genotypes.RecurrentGenotype(("sigmoid",), ())
    return [genotypes.named("ENAS_RECURRENT"), *found, single]


@pytest.mark.parametrize("genotype", recurrent_genotypes())
def test_a_recurrent_genotype_is_a_tree(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title="found"))
    activations, sources = genotype
    expected = [f"{activations[0]}: {source} to 0" for source in ("x t", "h t-1")]
    expected += [
        f"{activations[node]}: {source} to {node}"
        for node, source in enumerate(sources, start=1)
    ]
    loose_ends = genotypes.recurrent_loose_ends(genotype)
    expected += [f"output: {node}" for node in loose_ends]
    assert Counter(map(name, edges(root))) == Counter(expected)
    shown = Counter(texts(root))
    assert all(shown[name] == activations.count(name) for name in set(activations))
    assert shown["mean"] == 1


@pytest.mark.parametrize("genotype", recurrent_genotypes())
def test_nothing_in_a_tree_overlaps(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    nodes = discs(root)
    for one, other in itertools.combinations(nodes.values(), 2):
        assert one[0] != other[0] or one[3] < other[1] or other[3] < one[1]
    for node, source in enumerate(genotype.sources, start=1):
        assert nodes[str(source)][2] < nodes[str(node)][0]
    # No line to the output runs through a node farther right.
    for end in genotypes.recurrent_loose_ends(genotype):
        _, top, right, bottom = nodes[str(end)]
        for box in nodes.values():
            assert box[0] < right or not box[1] < (top + bottom) / 2 < box[3]


def dag_genotypes() -> list[genotypes.DagGenotype]:
    found = []
    for num_nodes, density in ((3, 0.3), (7, 0.3), (17, 0.3), (17, 0.6)):
        space = spaces.ghn_dag(num_nodes, density=density)
        found.append(space.decode(space.sample(jax.random.key(1))))
    every = tuple(tuple(range(node)) for node in range(2, 9))
    dense = genotypes.DagGenotype(("conv_7x1_1x7",) * 7, every)
    return [genotypes.named("GHN"), *found, dense]


def nodes_of_a_block(
    root: ElementTree.Element,
) -> dict[str, tuple[float, float, float, float]]:
    """Box `(left, top, right, bottom)` of each operation, by the number of its node."""
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        for rect, text in itertools.pairwise(group):
            if rect.tag == f"{SVG}rect" and (text.text or "").isdigit():
                x, y, width, height = (
                    float(rect.attrib[key]) for key in ("x", "y", "width", "height")
                )
                boxes[text.text or ""] = (x, y, x + width, y + height)
    return boxes


@pytest.mark.parametrize("genotype", dag_genotypes())
def test_a_block_shows_every_node_and_edge_once(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title="found"))
    output = 2 + len(genotype.ops)
    expected = [
        f"{op}: {source} to {node}"
        for node, (op, inputs) in enumerate(zip(*genotype, strict=True), start=2)
        for source in inputs
    ]
    leaves = genotypes.dag_leaves(genotype)
    expected += [f"output: {node} to {output}" for node in leaves]
    assert Counter(map(name, edges(root))) == Counter(expected)
    shown = texts(root)
    assert all(shown.count(text) == 1 for text in ("k-1", "k-2", "k"))
    for node, op in enumerate(genotype.ops, start=2):
        words = op.replace("_conv", "").replace("_pool", "").replace("_connect", "")
        assert shown[shown.index(str(node)) + 1] == words.replace("_", " ")


@pytest.mark.parametrize("genotype", dag_genotypes())
def test_blocks_flow_to_the_right_and_nothing_hides_anything_else(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    boxes = nodes_of_a_block(root)
    assert len(boxes) == len(genotype.ops)
    for one, other in itertools.combinations(boxes.values(), 2):
        across = one[2] < other[0] or other[2] < one[0]
        assert across or one[3] < other[1] or other[3] < one[1]
    lanes: dict[str, set[tuple[float, float, float]]] = {}
    for edge in edges(root):
        source, target = re.findall(r"(\d+) to (\d+)", name(edge))[0]
        if source in boxes and target in boxes:
            assert boxes[source][2] < boxes[target][0]
        for x, to_x, y in level_stretches(line(edge)):
            lanes.setdefault(source, set()).add((x, to_x, y))
            for left, top, right, bottom in boxes.values():
                assert to_x <= left or x >= right or y < top or y > bottom
    # Edges share a lane only where they leave the same node.
    for one, other in itertools.combinations(lanes.values(), 2):
        for (x, to_x, y), (u, to_u, v) in itertools.product(one, other):
            assert to_x < u or to_u < x or abs(y - v) > 10


@pytest.mark.parametrize("genotype", dag_genotypes())
def test_edges_arrive_apart_at_the_side_of_their_node(genotype):
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    boxes = nodes_of_a_block(root)
    ports: dict[str, list[float]] = {}
    for edge in edges(root):
        target = name(edge).split()[-1]
        *_, x, y = (float(number) for number in re.findall(r"-?[\d.]+", line(edge)))
        ports.setdefault(target, []).append(y)
        if target in boxes:
            left, top, _, bottom = boxes[target]
            assert left - 10 < x < left and top + 3 < y < bottom - 3
    for heights in ports.values():
        assert np.all(np.diff(sorted(heights)) > 7)


def test_parallel_branches_of_a_block_do_not_cross():
    # Two chains: 0, 3, 4 and 1, 2, 5.
    genotype = genotypes.DagGenotype(("conv_1x1",) * 4, ((1,), (0,), (3,), (2,)))
    boxes = nodes_of_a_block(
        ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    )
    assert boxes["3"][3] < boxes["2"][1] and boxes["4"][3] < boxes["5"][1]


def test_an_input_that_no_node_reads_is_grey():
    genotype = genotypes.DagGenotype(("conv_1x1",), ((1,),))
    root = ElementTree.fromstring(drawing.genotype_svg(genotype, title=""))
    colours = {text.text: text.attrib.get("fill") for text in root.iter(f"{SVG}text")}
    assert colours["k-1"] == GREY and colours["k-2"] != GREY
    assert GREY not in drawing.genotype_svg(genotypes.named("GHN"), title="")


def test_invalid_genotypes_of_every_kind_are_refused():
    macro = genotypes.named("ENAS_MACRO")._replace(skips=((0,),) * 24)
    with pytest.raises(ValueError, match="layer 0, skips: found source 0"):
        drawing.genotype_svg(macro, title="")
    recurrent = genotypes.named("ENAS_RECURRENT")._replace(sources=(0,))
    with pytest.raises(ValueError, match="found 1 sources for 12 activations"):
        drawing.genotype_svg(recurrent, title="")
    dag = genotypes.named("GHN")._replace(inputs=((),) * 15)
    with pytest.raises(ValueError, match="node 2, inputs: no node; expected some of"):
        drawing.genotype_svg(dag, title="")
