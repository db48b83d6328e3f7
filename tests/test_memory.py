"""Memory that is left, in machines that are made of files."""

import pytest

from jaxnas import _memory

HIGHEST = 2**63 - 4096  # how version 1 says that there is no limit
V1 = "sys/fs/cgroup/memory"
V2 = "sys/fs/cgroup"


def test_nothing_is_known(tmp_path):
    assert _memory.available_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("groups", "folder", "names", "cache"),
    [
        ("0::/a/b", V2, ("memory.max", "memory.current"), "inactive_file"),
        (
            "3:cpu:/\n4:memory:/a/b\n0::/a/b",
            V1,
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
    ],
)
def test_limits_of_containers(tmp_path, groups, folder, names, cache):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    write("proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:  900 kB")
    assert _memory.available_bytes(tmp_path) == 900 * 1024
    write("proc/self/cgroup", groups)
    unlimited = "max" if folder == V2 else HIGHEST
    write(f"{folder}/a/b/{names[0]}", unlimited)
    write(f"{folder}/a/b/{names[1]}", 100)
    assert _memory.available_bytes(tmp_path) == 900 * 1024
    # What holds the group is limited; files that are kept in memory make room.
    write(f"{folder}/a/{names[0]}", 5000)
    write(f"{folder}/a/{names[1]}", 4000)
    assert _memory.available_bytes(tmp_path) == 1000
    write(f"{folder}/a/memory.stat", f"anon 7\n{cache} 300")
    assert _memory.available_bytes(tmp_path) == 1300
    # A container sees its own group on top, under another path.
    write("proc/self/cgroup", groups.replace("/a/b", "/docker/x"))
    assert _memory.available_bytes(tmp_path) == 900 * 1024
    write(f"{folder}/{names[0]}", 800)
    write(f"{folder}/{names[1]}", 900)
    assert _memory.available_bytes(tmp_path) == 0
