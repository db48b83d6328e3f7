"""What the drawings of all kinds share: one style, one page, and its shapes."""

import html
from typing import NamedTuple

# Sizes in px.
FONT_SIZE = 12
GLYPH = 6.2  # mean width of a character
MARGIN = 24
_TITLE_HEIGHT = 36
_HEADING = 20
LABEL_HEIGHT = 20
RADIUS = 15
BOX_WIDTH = 50
ARROW = 8  # length of a head

INK = "#24292f"
FAINT = "#8a939c"  # edges to the output
DEAD = "#c2c7cc"
_COLOURS = {
    "sep": "#0b63a5",
    "dil": "#7a3fb0",
    "conv": "#00758a",
    "max": "#c2410c",
    "avg": "#a16207",
    "skip": "#1a7f37",
    "none": "#7d858d",
}


class Drawing(NamedTuple):
    """Elements with the origin in their top left corner, and their size."""

    width: float
    height: float
    elements: list[str]


def document(title: str, drawings: list[Drawing]) -> str:
    """Set drawings under a title, one below the other, as an SVG document."""
    # The title is set a third larger than the labels, and bold.
    widths = [1.5 * GLYPH * len(title), *(drawing.width for drawing in drawings)]
    width = max(widths) + 2 * MARGIN
    top = MARGIN + _TITLE_HEIGHT
    elements = [text(MARGIN, MARGIN + 4, title, 'font-size="16" font-weight="600"')]
    for drawing in drawings:
        elements += moved(drawing.elements, MARGIN, top)
        top += drawing.height + MARGIN
    name = html.escape(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {top:.0f}" '
        f'width="{width:.0f}" height="{top:.0f}" role="img" aria-label="{name}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{FONT_SIZE}" '
        f'fill="{INK}">'
    )
    # Its own paper, so that it reads the same on a dark page.
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{name}</title>", paper, *elements, "</svg>\n"])


def headed(heading: str, drawing: Drawing) -> Drawing:
    """Set a drawing under a heading."""
    elements = [text(0, 4, heading, 'font-size="13" font-weight="600"')]
    elements += moved(drawing.elements, 0, _HEADING)
    return Drawing(drawing.width, drawing.height + _HEADING, elements)


def moved(elements: list[str], x: float, y: float) -> list[str]:
    """Move elements to the right and down."""
    return [f'<g transform="translate({x:g} {y:g})">', *elements, "</g>"]


def curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """Go on to another point, leaving and arriving level."""
    middle = (x + to_x) / 2
    return f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def titled(title: str, *elements: str) -> str:
    """Group elements under the words that show when a mouse points at them."""
    return f"<g><title>{html.escape(title)}</title>{''.join(elements)}</g>"


def arrow(path: str, head: str, colour: str, *, dashed: bool = False) -> str:
    """Draw an arrow: the path of its line and that of its head."""
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
        f'<path d="{head}" fill="{colour}"/>'
    )


def label(x: float, y: float, width: float, words: str, colour: str) -> str:
    """Draw a pill with words in it, from its left end."""
    half = LABEL_HEIGHT / 2
    style = f'fill="{colour if colour != DEAD else FAINT}" text-anchor="middle"'
    return (
        f'<rect x="{x:.1f}" y="{y - half:.1f}" width="{width:.1f}" '
        f'height="{LABEL_HEIGHT}" rx="{half:g}" fill="#ffffff" stroke="{colour}"/>'
        + text(x + width / 2, y + 4, words, style)
    )


def disc(x: float, y: float, node: int, colour: str) -> str:
    """Draw a node, about its middle."""
    number = text(x, y + 4, str(node), 'fill="#ffffff" text-anchor="middle"')
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" fill="{colour}"/>{number}'


def box(x: float, y: float, half: float, symbol: str, index: str, colour: str) -> str:
    """Draw an input or output as a symbol with an index, from its left side."""
    # The symbol and its index meet at one point, which every renderer can place.
    joint = x + BOX_WIDTH / 2 + (6 - GLYPH * len(index)) / 2
    return (
        frame(x, y - half, BOX_WIDTH, 2 * half, colour)
        + text(joint, y + 4, symbol, f'fill="{colour}" text-anchor="end"')
        + text(joint + 1, y + 8, index, f'fill="{colour}" font-size="10"')
    )


def frame(x: float, y: float, width: float, height: float, colour: str) -> str:
    """Draw the outline of an input or output, from its top left corner."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:g}" height="{height:.1f}" '
        f'rx="6" fill="#f2f4f7" stroke="{colour}"/>'
    )


def text(x: float, y: float, words: str, attributes: str) -> str:
    """Write words at a point of their base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{html.escape(words)}</text>'


def short(op: str) -> str:
    """Shorten `sep_conv_3x3` to `sep 3x3` and `skip_connect` to `skip`."""
    first, *rest = op.split("_")
    kept = [word for word in rest if word not in ("conv", "pool", "connect")]
    return " ".join([first, *kept])


def op_colour(op: str) -> str:
    """Choose the colour of a family of operations; faint for no operation."""
    return _COLOURS[op.split("_")[0]] if op else FAINT
