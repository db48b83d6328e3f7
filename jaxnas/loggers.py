"""Loggers: metrics logs sent to TensorBoard, Weights & Biases or anything else.

A training writes `metrics.jsonl`; loggers read it. After every line, each logger gets
the lines that it does not have yet, whether an earlier process wrote them or this one.
What it has is in `sent.json` in a folder of its name beside the log, so that steps that
a resumed training computes again, with the same results, are not sent again.
"""

import contextlib
import contextvars
import importlib.util
import os
import pathlib
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from jaxnas import _files, metrics, workdir
from jaxnas._checks import reason

SENT_NAME = "sent.json"


class LoggedRun(NamedTuple):
    """A training, or the whole command around it, that a logger shows.

    Attributes:
      folder: the folder of the logger, where its files may lie.
      workdir: the folder of the training.
      name: path of the training from the folder of the command on, for people.
      group: name of the folder of the command.
      id: hexadecimal, the same whenever the run is resumed.
      config: content of the `config.json` of the command: configuration, environment.
    """

    folder: pathlib.Path
    workdir: pathlib.Path
    name: str
    group: str
    id: str
    config: Mapping[str, Any]


class Writer(Protocol):
    """What a logger does for one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send one line of the log; steps increase."""
        ...

    def summarize(self, results: Mapping[str, float | str]) -> None:
        """Send the final results."""
        ...

    def close(self, *, failed: bool) -> None:
        """Send what is left; `failed` says that the run ended by an exception."""
        ...


Logger = Callable[[LoggedRun], Writer]
"""Opens the record of a run, for the first time or again."""


# Loggers in use ---------------------------------------------------------------------


def named(names: Collection[str]) -> dict[str, Logger]:
    """The loggers of some names.

    Args:
      names: of `LOGGERS`.

    Raises:
      ValueError: if a name is unknown.
      ImportError: if a package is missing; the message says how to install it.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(
                f"logger is {name!r}; expected one of {', '.join(LOGGERS)}"
            )
        package = _PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"the logger {name} needs {package}: pip install 'jaxnas[{name}]'"
            )
    return {name: LOGGERS[name] for name in names}


@contextlib.contextmanager
def use(
    loggers: Mapping[str, Logger], folder: str | os.PathLike[str]
) -> Iterator[None]:
    """Let loggers show all trainings with a folder, until the block is left.

    They read what is logged, and change nothing that is computed. A logger that raises
    an exception is named in a warning and no longer used; what it lacks it gets in the
    next process that uses it.

    Args:
      loggers: by name, which is that of their folders, too.
      folder: of the command, whose `config.json` they show.

    Example:
      >>> import tempfile
      >>> from jaxnas import loggers
      >>> with tempfile.TemporaryDirectory() as folder, loggers.use({}, folder):
      ...     pass  # train.search(..., workdir=folder)
    """
    in_use = _LoggersInUse(dict(loggers), pathlib.Path(folder).absolute())
    token = _in_use.set(in_use)
    failed = True
    try:
        yield
        failed = False
    finally:
        _in_use.reset(token)
        in_use.close(in_use.folder, failed=failed)


@contextlib.contextmanager
def follow(log: str | os.PathLike[str] | None) -> Iterator[Callable[[], None]]:
    """Send a metrics log to the loggers in use.

    Args:
      log: its path; it need not exist yet. Nothing is sent if `None`.

    Yields:
      A function to call after each new line. What is there already is sent at once.
    """
    in_use = _in_use.get()
    if in_use is None or log is None:
        yield lambda: None
        return
    path = pathlib.Path(log).absolute()
    failed = True
    try:
        in_use.send(path)
        yield lambda: in_use.send(path)
        failed = False
    finally:
        # Its results are still to come.
        if path.parent != in_use.folder:
            in_use.close(path.parent, failed=failed)


def summarize(results: Mapping[str, float | str]) -> None:
    """Send the final results of a command to the loggers in use, if there are any."""
    in_use = _in_use.get()
    if in_use is not None:
        in_use.summarize(results)


class _LoggersInUse:
    def __init__(self, loggers: dict[str, Logger], folder: pathlib.Path):
        self.folder = folder
        self._loggers = loggers
        self._records: dict[tuple[str, pathlib.Path], _Record] = {}

    def send(self, log: pathlib.Path) -> None:
        lines = metrics.read(log) if log.exists() else []
        self._each(log.parent, lambda record: record.send(lines))

    def summarize(self, results: Mapping[str, float | str]) -> None:
        self._each(self.folder, lambda record: record.summarize(results))

    def close(self, folder: pathlib.Path, *, failed: bool) -> None:
        self._each(folder, lambda record: record.close(failed=failed))
        for name in self._loggers:
            self._records.pop((name, folder), None)

    def _each(self, folder: pathlib.Path, action: Callable[["_Record"], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                if (name, folder) not in self._records:
                    record = _Record(name, logger, folder, self.folder)
                    self._records[name, folder] = record
                action(self._records[name, folder])
            except Exception as error:  # of other people's code, on disk or network
                del self._loggers[name]
                warnings.warn(
                    f"the logger {name} has stopped: {type(error).__name__}: "
                    f"{reason(error)}; the run continues, metrics.jsonl has all "
                    "metrics, and the same command again sends what is missing",
                    stacklevel=2,
                )


_in_use: contextvars.ContextVar[_LoggersInUse | None] = contextvars.ContextVar(
    "loggers in use", default=None
)


class _Record:
    """What a logger has of a run; it is opened when there is something to send."""

    def __init__(
        self, name: str, logger: Logger, folder: pathlib.Path, root: pathlib.Path
    ):
        self._logger = logger
        self._folder, self._root = folder, root
        self._path = folder / name / SENT_NAME
        self._writer: Writer | None = None
        self._sent: dict[str, Any] = {"id": uuid.uuid4().hex[:16], "step": -1}
        if self._path.exists():
            self._sent |= _read_object(self._path)
            kinds = {key: type(self._sent[key]) for key in ("id", "step")}
            if kinds != {"id": str, "step": int}:
                raise ValueError(
                    f"{self._path}: expected a text id and an integer step"
                )

    def send(self, lines: Sequence[Mapping[str, Any]]) -> None:
        missing = [line for line in lines if line["step"] > self._sent["step"]]
        for line in missing:
            self._open().log(line["step"], _numbers(line))
        if missing:
            self._save({"step": missing[-1]["step"]})

    def summarize(self, results: Mapping[str, float | str]) -> None:
        if self._sent.get("results") != dict(results):
            self._open().summarize(results)
            self._save({"results": dict(results)})

    def close(self, *, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close(failed=failed)

    def _open(self) -> Writer:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._save({})  # the run has its name before anybody sees it
            self._writer = self._logger(self._run())
        return self._writer

    def _save(self, changes: Mapping[str, Any]) -> None:
        self._sent |= changes
        _files.write_json(self._path, self._sent)

    def _run(self) -> LoggedRun:
        config = self._root / workdir.CONFIG_NAME
        name = self._folder
        if self._folder.is_relative_to(self._root):
            name = self._root.name / self._folder.relative_to(self._root)
        return LoggedRun(
            folder=self._path.parent,
            workdir=self._folder,
            name=name.as_posix(),
            group=self._root.name,
            id=self._sent["id"],
            config=_read_object(config) if config.exists() else {},
        )


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    try:
        return dict(_files.parse_json(_files.read_text(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {reason(error)}; expected a JSON object") from error


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line, those that are not finite included; no texts."""
    return {
        name: float(value)
        for name, value in line.items()
        if name != "step"
        and (not isinstance(value, str) or value in ("nan", "inf", "-inf"))
    }


# Known loggers ----------------------------------------------------------------------


class _TensorBoard:
    """Event files; `tensorboard --logdir FOLDER` shows all of a command.

    tensorboardX writes from a thread, where a full disk would end in silence and then
    block the training. So the file below it is written directly.
    """

    def __init__(self, run: LoggedRun):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary = summary
        # Made when it is imported, unseen by type checkers.
        self._event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        # TensorBoard reads files by name, which else has only the second.
        self._events = event_file_writer.EventsWriter(
            str(run.folder / "events"), f".{time.time_ns()}"
        )
        for name, values in run.config.items():
            if isinstance(values, Mapping):
                self._add(0, summary.text(name, _markdown(values)))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._add(step, self._summary.scalar(name, value))
        self._events.flush()

    def summarize(self, results: Mapping[str, float | str]) -> None:
        self._add(0, self._summary.text("results", _markdown(results)))
        self._events.flush()

    def close(self, *, failed: bool) -> None:
        self._events.close()

    def _add(self, step: int, content: Any) -> None:
        event = self._event(summary=content, step=step, wall_time=time.time())
        self._events.write_event(event)


def _markdown(values: Mapping[str, Any]) -> str:
    rows = (f"| {name} | {value} |" for name, value in values.items())
    return "\n".join(["| | |", "|---|---|", *rows])


class _Wandb:
    """Runs of Weights & Biases, those of a command in one group.

    Its own variables, such as WANDB_PROJECT and WANDB_MODE=offline, count.
    """

    def __init__(self, run: LoggedRun):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "jaxnas",
            id=run.id,
            name=run.name,
            group=run.group,
            config=dict(run.config),
            dir=run.workdir,  # in which it makes a folder wandb
            resume="allow",
            reinit="create_new",  # of a command and one of its trainings at a time
            settings=wandb.Settings(console="off", quiet=True),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def summarize(self, results: Mapping[str, float | str]) -> None:
        self._run.summary.update(dict(results))

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


LOGGERS: Mapping[str, Logger] = {"tensorboard": _TensorBoard, "wandb": _Wandb}
"""Loggers by the names that commands know them by."""

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
