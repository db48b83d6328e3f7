"""What all commands share: the command line, the first line, the exit status.

The settings of a command are frozen dataclasses. Their fields are its flags, and the
text below a field is the help of its flag. A field whose type is a union of
dataclasses is a choice: a word on the command line, such as `reinforce`, and only the
flags of what is chosen can be given.
"""

import argparse
import contextlib
import dataclasses
import inspect
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Generic, NamedTuple, NoReturn, TypeVar

import tyro

Config = TypeVar("Config")

DONE, USAGE, DIVERGED, INTERRUPTED = 0, 2, 3, 130


class UsageError(Exception):
    """An argument, file or data set is wrong; the message is for the user."""


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Treat a `ValueError` or `OSError` as the user's, not the program's, mistake."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


# Settings -------------------------------------------------------------------------


class AtLeast(NamedTuple):
    """The smallest value of a flag, or of each of its values."""

    value: float


Count = Annotated[int, AtLeast(1)]
Size = Annotated[int, AtLeast(0)]
Rate = Annotated[float, AtLeast(0)]


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a command runs, and what is random in it.

    Attributes:
      workdir: folder of the run (default: runs/...).
      seed: determines everything random.
      devices: number of devices that share every batch.
    """

    workdir: str | None = None
    seed: Size = 0
    devices: Count = 1


class Preset(NamedTuple, Generic[Config]):
    """Settings of a command, and what they are.

    Attributes:
      about: their source, expected result and cost.
      config: the settings, which flags override.
    """

    about: str
    config: Config


Presets = Mapping[str, Preset[Config]]


def parse(
    presets: Presets[Config], description: str | None, argv: list[str] | None = None
) -> tuple[str, Config]:
    """Read the command line.

    Args:
      presets: by name, the first is the default; their settings are of one class.
      description: what the command does.
      argv: arguments; `sys.argv` without its first entry if `None`.

    Returns:
      The name of the preset, and its settings with the given flags instead.

    Raises:
      SystemExit: with status 2 after a message if a flag is unknown, malformed or does
        not belong to what was chosen; with status 0 after `--help`.
      UsageError: if there is no such preset, or a value is too small.
    """
    default = next(iter(presets))
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=default)
    given, rest = first.parse_known_args(argv)
    if given.preset not in presets:
        raise UsageError(
            f"--preset is {given.preset!r}; expected one of {', '.join(presets)}"
        )
    config: Any = presets[given.preset].config
    if {"-h", "--help"} & set(rest):
        _help_on_choice(config, rest)
    config = tyro.cli(
        type(config),
        default=config,
        args=rest,
        description=_about(presets, given.preset, description),
        config=_STYLE,
    )
    _check_minima(config)
    return given.preset, config


_STYLE = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.CascadeSubcommandArgs,  # words and flags in any order
    tyro.conf.HelptextFromCommentsOff,
)


def _help_on_choice(config: Any, argv: list[str]) -> None:
    """Print the flags of the last choice among the arguments, if any, and exit."""
    choices = _choices(config)
    for word in reversed(argv):
        if word in choices:
            choice = choices[word]
            prog = f"{pathlib.Path(sys.argv[0]).name} {word}"
            tyro.cli(
                type(choice), default=choice, args=["--help"], prog=prog, config=_STYLE
            )


def _choices(config: Any) -> dict[str, Any]:
    """All choices by their words, with the values that they start with."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            continue
        found |= _choices(value)
        if _is_union(hints[field.name]):
            chosen = [kind() for kind in typing.get_args(hints[field.name])]
            for choice in (*chosen, value):
                found[choice_name(choice)] = choice
    return found


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _about(presets: Presets[Any], name: str, description: str | None) -> str:
    return "\n\n".join(
        [
            inspect.cleandoc(description or ""),
            f"--preset NAME sets what flags override: {', '.join(presets)} (default: "
            f"{next(iter(presets))}). With it, --help is about NAME.",
            f"Preset {name}: {inspect.cleandoc(presets[name].about)}",
        ]
    )


def choice_name(choice: Any) -> str:
    """The word that stands for a choice on the command line."""
    return re.sub("(?<!^)(?=[A-Z])", "-", type(choice).__name__).lower()


def flags(config: Any) -> dict[str, Any]:
    """All settings by the names of their flags, for files and reports.

    Args:
      config: a dataclass of settings, groups of settings and choices.

    Returns:
      The settings of a group under their own names. A choice is a word under the name
      of its field, followed by its settings.
    """
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            found[field.name] = value
            continue
        if _is_union(hints[field.name]):
            found[field.name] = choice_name(value)
        found |= flags(value)
    return found


def _check_minima(config: Any) -> None:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _check_minima(value)
            continue
        for minimum in _minima(hints[field.name]):
            for number in value if isinstance(value, tuple) else (value,):
                # Written so that NaN is refused too.
                if number is not None and not number >= minimum:
                    flag = f"--{field.name.replace('_', '-')}"
                    raise UsageError(
                        f"{flag} is {number}; expected at least {minimum:g}"
                    )


def _minima(hint: Any) -> list[float]:
    """The bounds in a type, `Count | None` and `tuple[Count, ...]` included."""
    own = [m.value for m in getattr(hint, "__metadata__", ()) if isinstance(m, AtLeast)]
    return own + [bound for arg in typing.get_args(hint) for bound in _minima(arg)]


def check_ascending(flag: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of a flag, if each is larger than the one before.

    Raises:
      UsageError: if they do not ascend from 1 on.
    """
    if any(b <= a for a, b in zip((0, *numbers), numbers, strict=False)):
        text = " ".join(map(str, numbers))
        raise UsageError(f"{flag} is {text}; expected ascending positive numbers")
    return numbers


# Running --------------------------------------------------------------------------


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

    0: done. 2: a wrong argument, file or data set. 3: the training diverged. 130:
    interrupted; the state has been saved.
    """
    # Importing the library takes a second that a wrong flag should not cost.
    from jaxnas.analysis import SurfaceError
    from jaxnas.checkpoint import CheckpointError
    from jaxnas.metrics import LogError
    from jaxnas.train import Diverged, Interrupted

    use_compilation_cache()
    try:
        command()
    except (UsageError, CheckpointError, LogError, SurfaceError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(USAGE)
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
