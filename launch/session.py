"""Base of all commands: the command line, the first line, the exit status.

The settings of a command are frozen dataclasses. Their fields are its flags, and the
text below a field is the help of its flag. A field whose type is a union of
dataclasses is a choice: a word on the command line, such as `reinforce`, and only the
flags of what is chosen can be given.
"""

import argparse
import contextlib
import dataclasses
import inspect
import io
import os
import pathlib
import re
import shutil
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
)

import interrupts

if TYPE_CHECKING:
    from jaxnas.loggers import Logger

Config = TypeVar("Config")

DONE, USAGE, DIVERGED, DISK_FULL, OUTPUT_CLOSED = 0, 2, 3, 28, 141


class UsageError(Exception):
    """An argument, file or data set is wrong; the message is for the user."""


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Treat a `ValueError` or `OSError` as the user's, not the program's, mistake.

    A full disk is neither.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if _is_disk_full(error):
            raise
        raise UsageError(str(error)) from error


# Settings -------------------------------------------------------------------------


class AtLeast(NamedTuple):
    """The smallest value of a flag, or of each of its values."""

    value: float


class AtMost(NamedTuple):
    """The largest value of a flag, or of each of its values."""

    value: int


# Steps and sizes are 32-bit integers; of a larger seed JAX would drop the upper bits.
LARGEST = 2**31 - 1
Count = Annotated[int, AtLeast(1)]
Size = Annotated[int, AtLeast(0)]
Seed = Annotated[int, AtLeast(0), AtMost(2**32 - 1)]
Rate = Annotated[float, AtLeast(0)]


@dataclasses.dataclass(frozen=True)
class Run:
    """Folder, seed and devices of a run, and where to follow it.

    Attributes:
      workdir: folder of the run (default: runs/...).
      seed: determines everything random.
      devices: number of devices that share every batch.
      log_to: loggers that show the metrics, beside metrics.jsonl.
    """

    workdir: str | None = None
    seed: Seed = 0
    devices: Count = 1
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ()


RUN_MAY_DIFFER = ("workdir", "devices", "log_to")
"""Flags of `Run` with other values of which a run continues."""


class Preset(NamedTuple, Generic[Config]):
    """Settings of a command, and what they are.

    Attributes:
      about: their source, expected result and cost.
      config: the settings, which flags override.
    """

    about: str
    config: Config


Presets = Mapping[str, Preset[Config]]


class Experiment(NamedTuple, Generic[Config]):
    """A prepared study of a data set.

    Attributes:
      config: the settings.
      dataset: the images or texts.
      arguments: those of the function of `jaxnas.studies`.
      folder: of the run.
      environment: what is recorded besides.
    """

    config: Config
    dataset: Any
    arguments: dict[str, Any]
    folder: pathlib.Path
    environment: dict[str, str]


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
      UsageError: if there is no such preset, or a value is too small or too large.
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
    about = _about(presets, given.preset, description)
    config = _cli(config, [*_negated_choices(config, rest), *rest], description=about)
    check_bounds(config)
    _loggers(config)
    return given.preset, config


def _loggers(config: Any) -> "Mapping[str, Logger]":
    """The loggers of the settings.

    Raises:
      UsageError: if a package is missing.
    """
    run = getattr(config, "run", None)
    if run is None or not run.log_to:
        return {}
    from jaxnas import loggers

    try:
        return loggers.named(run.log_to)
    except ImportError as error:
        raise UsageError(f"--log-to {' '.join(run.log_to)}: {error}") from error


def _cli(config: Any, argv: list[str], **options: Any) -> Any:
    # Those who only read presets do without it.
    try:
        import tyro
    except ImportError as error:
        raise UsageError(
            "commands need more packages: pip install -e '.[launch]'"
        ) from error
    style = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.CascadeSubcommandArgs,  # words and flags in any order
        tyro.conf.HelptextFromCommentsOff,
    )
    return tyro.cli(type(config), default=config, args=argv, config=style, **options)


def _negated_choices(config: Any, argv: list[str]) -> list[str]:
    """The words of the preset's own choices that `--no-FLAG` is given for.

    tyro 1.0 finds the choice that a flag belongs to, but not for this form of it.
    """
    words = []
    for choice, alternatives in _unions(config):
        negated = {f"--no-{name.replace('_', '-')}" for name in flags(choice)}
        if negated & set(argv) and not alternatives.keys() & set(argv):
            words.append(choice_name(choice))
    return words


def _help_on_choice(config: Any, argv: list[str]) -> None:
    """Print the flags of the last choice among the arguments, if any, and exit."""
    choices = _choices(config)
    for word in reversed(argv):
        if word in choices:
            prog = f"{pathlib.Path(sys.argv[0]).name} {word}"
            _cli(choices[word], ["--help"], prog=prog)


def _choices(config: Any) -> dict[str, Any]:
    """All choices by their words, with the values that they start with."""
    found: dict[str, Any] = {}
    for value, alternatives in _unions(config):
        found |= {word: kind() for word, kind in alternatives.items()}
        found[choice_name(value)] = value
    return found


def _unions(config: Any) -> Iterator[tuple[Any, dict[str, type]]]:
    """Each chosen value, with the classes it is chosen from by their words."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            continue
        yield from _unions(value)
        if _is_union(hints[field.name]):
            kinds = typing.get_args(hints[field.name])
            yield value, {choice_name(kind): kind for kind in kinds}


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
    """The word that stands for a choice, or its class, on the command line."""
    kind = choice if isinstance(choice, type) else type(choice)
    return re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


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


def check_bounds(config: Any) -> None:
    """Refuse numbers beyond the bounds of their flags.

    Raises:
      UsageError: if there is one; the message names the flag.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_bounds(value)
            continue
        hint, flag = hints[field.name], f"--{field.name.replace('_', '-')}"
        largest = min([bound.value for bound in _bounds(hint, AtMost)] or [LARGEST])
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number > largest:
                raise UsageError(f"{flag} is {number}; expected at most {largest}")
            for bound in _bounds(hint, AtLeast):
                # Written so that NaN is refused too.
                if number is not None and not number >= bound.value:
                    raise UsageError(
                        f"{flag} is {number}; expected at least {bound.value:g}"
                    )


def _bounds(hint: Any, kind: type) -> list[Any]:
    """The bounds in a type, `Count | None` and `tuple[Count, ...]` included."""
    own = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, kind)]
    return own + [b for arg in typing.get_args(hint) for b in _bounds(arg, kind)]


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


def show(config: Any, folder: pathlib.Path) -> None:
    """Let the loggers of the settings show the run of a folder until it ends."""
    chosen = _loggers(config)
    if chosen:
        from jaxnas import loggers

        _until_the_end.enter_context(loggers.use(chosen, folder))


def conclude(text: str, **results: float) -> None:
    """Print the result of a run, and let loggers show it, if there are any.

    Args:
      text: the result in words.
      **results: some of its numbers, for loggers.
    """
    print(text)
    from jaxnas import loggers

    loggers.summarize({"result": text.strip(), **results})


_until_the_end = contextlib.ExitStack()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, unless JAX's own variable says otherwise.

    It has to be called before JAX is imported.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "jaxnas" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command and leave the process with its exit status.

    0: done. 2: a wrong argument, file or data set, or a folder that another process
    uses. 3: the training diverged. 28: a disk is full. 130: interrupted. 141: nobody
    reads the output any more. After 3, 28, 130 and 141 the same command continues from
    what has been saved.
    """
    use_compilation_cache()
    use_plain_output()
    interrupts.catch()
    try:
        try:
            with _until_the_end:
                command()
        finally:
            sys.stdout.flush()
    except UsageError as error:
        _leave(USAGE, f"error: {error}")
    except KeyboardInterrupt:
        interrupts.leave()
    except BrokenPipeError:
        _leave(OUTPUT_CLOSED, "error: the standard output was closed")
    except Exception as error:
        _leave_for(error)
        raise
    sys.exit(DONE)


def use_plain_output() -> None:
    """Print warnings as one line, and anything in any locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


def _is_disk_full(error: Exception) -> bool:
    from jaxnas import _files

    return _files.disk_full_error(error) is not None


def _leave_for(error: Exception) -> None:
    """Leave the process for the errors of the library that are not bugs."""
    from jaxnas import _files

    full = _files.disk_full_error(error)
    if full is not None:
        _leave(DISK_FULL, f"error: {_full_disk_text(full)}")
    # Importing the library takes seconds that a wrong flag or --help should not cost.
    from jaxnas.analysis import SurfaceError
    from jaxnas.checkpoint import CheckpointError
    from jaxnas.metrics import LogError
    from jaxnas.train import Diverged, Interrupted
    from jaxnas.workdir import FolderInUse

    match error:
        case CheckpointError() | LogError() | SurfaceError() | FolderInUse():
            _leave(USAGE, f"error: {error}")
        case Diverged():
            kept = "the last good checkpoint is kept"
            _leave(DIVERGED, f"error: training diverged: {error}; {kept}")
        case Interrupted():
            interrupts.leave(f"{error}; run the same command again to continue")


def _full_disk_text(error: OSError) -> str:
    """Which file could not be written, and what is free on its disk."""
    again = "make room and run the same command again to continue"
    if error.filename is None:
        return f"{error.strerror}; {again}"
    folder = pathlib.Path(error.filename).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = f"{shutil.disk_usage(folder).free / 1e6:,.2f} MB"
    if hasattr(os, "statvfs"):
        free += f" and {os.statvfs(folder).f_favail:,} files"
    return (
        f"{error.filename} could not be written: {error.strerror}, {free} are free; "
        f"{again}"
    )


def _leave(status: int, message: str) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more when it ends, and say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
