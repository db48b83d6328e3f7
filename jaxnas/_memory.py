"""Memory that is left, also within the limits of containers."""

import pathlib
from collections.abc import Iterator

_ROOT = pathlib.Path("/")


def available_bytes(root: pathlib.Path = _ROOT) -> int | None:
    """Find how much memory can still be used.

    Args:
      root: the folder that holds `proc` and `sys`.

    Returns:
      The least of what the machine has left and what the limits of Linux's control
      groups leave, in bytes; None where neither is known, as on other systems.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return min(found, default=None)


def _of_machine(root: pathlib.Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            yield 1024 * int(amount.split()[0])


def _of_groups(root: pathlib.Path) -> Iterator[int]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, names = "sys/fs/cgroup", ("memory.max", "memory.current")
            cache = "inactive_file"
        elif "memory" in controllers.split(","):
            base = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cache = "total_inactive_file"
        else:
            continue
        group = pathlib.PurePosixPath(path.lstrip("/"))
        # A container may see its own group as the top one, under another path.
        for folder in (root / base / part for part in (group, *group.parents)):
            limit, used = (_numbers(folder / name) for name in names)
            if limit and used:
                # Files that are kept in memory make room.
                stat = dict(map(str.split, _lines(folder / "memory.stat")))
                yield max(0, limit[0] - used[0] + int(stat.get(cache, 0)))


def _numbers(path: pathlib.Path) -> list[int]:
    """The number in a file; none if there is no limit or no such file."""
    return [int(line) for line in _lines(path) if line.isdigit()]


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
