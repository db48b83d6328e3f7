"""What all commands share: flags made from a dataclass, and exit statuses."""

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import os
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

Config = TypeVar("Config")
Presets = Mapping[str, Callable[[], Config]]

DONE, WRONG_INPUT, DIVERGED, INTERRUPTED = 0, 2, 3, 130


class WrongInput(Exception):
    """An argument, file or data set is wrong; the message is for the user."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongInput(message)


@contextlib.contextmanager
def wrong_input() -> Iterator[None]:
    """Treat a `ValueError` or `OSError` as the user's, not the program's, mistake."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise WrongInput(str(error)) from error


def option(
    default: Any, text: str, *, minimum: float | None = None, positional: bool = False
) -> Any:
    """A dataclass field that is a flag, or an optional argument without a flag.

    A `Literal` type makes it a choice.
    """
    metadata = {"help": text, "minimum": minimum, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    presets: Presets[Config], description: str | None, argv: list[str] | None = None
) -> tuple[str, Config]:
    """Read the command line.

    Args:
      presets: makers of configurations by name; the first is the default. They are
        instances of one frozen dataclass, whose fields become flags.
      description: what the command does.
      argv: arguments; `sys.argv` without its first entry if `None`.

    Returns:
      The name of the preset, and its configuration with the given flags instead.

    Raises:
      WrongInput: if a flag is unknown, malformed or too small.
    """
    default = next(iter(presets))
    epilog = "\n\n".join(
        f"preset {name}:\n{inspect.getdoc(make)}" for name, make in presets.items()
    )
    parser = _Parser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--preset",
        choices=list(presets),
        default=default,
        help=f"settings that the other flags override (default: {default})",
    )
    defaults: Any = presets[default]()
    hints = typing.get_type_hints(type(defaults))
    for field in dataclasses.fields(defaults):
        flag = f"--{field.name.replace('_', '-')}"
        value = getattr(defaults, field.name)
        text = field.metadata["help"]
        if value not in (None, ""):
            text += f" ({default}: {value})"
        kind, choices = _type_and_choices(hints[field.name])
        if field.metadata["positional"]:
            # argparse would refuse a suppressed default as none of the choices.
            parser.add_argument(
                field.name, nargs="?", choices=choices, default=None, help=text
            )
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag, type=kind, choices=choices, help=text)
    arguments = vars(parser.parse_args(argv))
    given = {name: value for name, value in arguments.items() if value is not None}
    preset = given.pop("preset")
    config: Any = presets[preset]()
    config = dataclasses.replace(config, **given)
    for field in dataclasses.fields(config):
        value, minimum = getattr(config, field.name), field.metadata["minimum"]
        # Written so that NaN is refused too.
        if None not in (value, minimum) and not value >= minimum:
            flag = f"--{field.name.replace('_', '-')}"
            raise WrongInput(f"{flag} is {value}; expected at least {minimum}")
    return preset, config


def _type_and_choices(hint: Any) -> tuple[type, tuple[str, ...] | None]:
    """What a flag takes: `int` for `int | None`, the names of a `Literal`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        return str, typing.get_args(hint)
    return hint, None


def listed(text: str) -> list[str]:
    """The words between commas of a flag."""
    return [word.strip() for word in text.split(",") if word.strip()]


def ascending(flag: str, text: str) -> list[int]:
    """The ascending positive numbers between commas; `WrongInput` for others."""
    words = listed(text)
    numbers = [int(word) for word in words if word.isdecimal()]
    if len(numbers) < len(words) or any(
        b <= a for a, b in itertools.pairwise([0, *numbers])
    ):
        raise WrongInput(
            f"{flag} is {text!r}; expected ascending positive numbers with commas"
        )
    return numbers


def numbers(flag: str, text: str) -> list[float]:
    """The different positive numbers between commas; `WrongInput` for others."""
    try:
        found = [float(word) for word in listed(text)]
    except ValueError:
        found = []
    if not found or not all(0 < x < float("inf") for x in found):
        raise WrongInput(f"{flag} is {text!r}; expected positive numbers with commas")
    if len(set(found)) < len(found):
        raise WrongInput(f"{flag} is {text!r}; expected different numbers")
    return found


def announce(source: str, environment: Mapping[str, str], folder: pathlib.Path) -> None:
    """Say which data, device and folder are used, before anything takes time."""
    print(f"{source}; {environment['device']}; folder {folder}", flush=True)


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, unless JAX's own variable says otherwise."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update(
            "jax_compilation_cache_dir", str(pathlib.Path(home) / "jaxnas" / "xla")
        )


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command and leave the process with its exit status.

    0: done. 2: a wrong argument, file or data set, told in one line. 3: the training
    diverged. 130: interrupted; the state has been saved.
    """
    # Importing the library takes a second that a wrong flag should not cost.
    from jaxnas.analysis import SurfaceError
    from jaxnas.checkpoint import CheckpointError
    from jaxnas.metrics import LogError
    from jaxnas.train import Diverged, Interrupted

    use_compilation_cache()
    try:
        command()
    except (WrongInput, CheckpointError, LogError, SurfaceError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except Diverged as error:
        print(
            f"error: training diverged: {error}; the last good checkpoint is kept",
            file=sys.stderr,
        )
        sys.exit(DIVERGED)
    except Interrupted as error:
        print(f"{error}; run the same command again to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
