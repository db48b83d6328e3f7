"""Write a network that cifar_train.py has trained as a program that needs JAX only."""

import dataclasses
import pathlib

import session
import tyro


@dataclasses.dataclass(frozen=True)
class Config:
    """Write a trained network as StableHLO.

    Attributes:
      model: a network.safetensors, or the folder of a run that has one.
      output: the file (default: network.stablehlo beside the model).
      platforms: what the program can run on, of cpu, cuda, rocm and tpu.
    """

    model: tyro.conf.Positional[pathlib.Path]
    output: pathlib.Path | None = None
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")


def main() -> None:
    """Load, export, write."""
    config = tyro.cli(Config, description=__doc__)
    from jaxnas import _files, networks

    with session.usage_errors():
        model = config.model
        model = model / networks.FILE_NAME if model.is_dir() else model
        program = networks.export(networks.load(model), config.platforms)
        output = config.output or model.with_suffix(".stablehlo")
        _files.write_bytes(output, program)
    print(f"wrote {output}")


if __name__ == "__main__":
    session.run(main)
