"""Draw an architecture as SVG, or as DOT for Graphviz."""

import dataclasses
import pathlib
from typing import Literal

import architectures
import session
import tyro


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw an architecture.

    Attributes:
      genotype: a file (JSON or DARTS text), or the name of a published genotype.
      output: the file, .svg or .dot.
      cell: of two cells: both, or one of them.
      title: text above the drawing (default: the name of the genotype).
    """

    genotype: tyro.conf.Positional[str]
    output: pathlib.Path = pathlib.Path("architecture.svg")
    cell: Literal["both", "normal", "reduce"] = "both"
    title: str | None = None


def main() -> None:
    """Draw what the command line names."""
    config = tyro.cli(Config, description=__doc__)
    from jaxnas import _files

    with session.usage_errors():
        _files.write_text(config.output, drawn(config))
    print(f"wrote {config.output}")


def drawn(config: Config) -> str:
    """The drawing as text."""
    from jaxnas.report import drawing

    genotype = architectures.find_genotype(config.genotype)
    title = config.title
    if title is None:
        title = architectures.shown(pathlib.Path(config.genotype).stem)
    if config.output.suffix not in (".svg", ".dot"):
        raise ValueError(f"--output is {config.output}; expected a file .svg or .dot")
    if config.cell != "both":
        architectures.two_cells(genotype, config.genotype)
        if config.output.suffix != ".svg":
            raise ValueError(
                f"--cell is {config.cell}, but --output is {config.output}; expected a "
                "file .svg"
            )
        pairs = getattr(genotype, config.cell)
        concat = getattr(genotype, f"{config.cell}_concat")
        return drawing.cell_svg(pairs, concat, title=title)
    if config.output.suffix == ".dot":
        return drawing.genotype_dot(genotype, title=title)
    return drawing.genotype_svg(genotype, title=title)


if __name__ == "__main__":
    session.run(main)
