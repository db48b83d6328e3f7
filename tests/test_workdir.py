"""The folder of a run: made once, reopened by the same run, refused to others."""

import json

import jax
import pytest
from helpers import visible

from jaxnas import workdir

CONFIG = {"seed": 3, "rate": 0.1, "name": "a", "size": None, "pairs": (("op", 1),)}
ENVIRONMENT = {"jax": "0.10"}


def test_a_new_folder_holds_the_configuration(tmp_path):
    folder = workdir.prepare(tmp_path / "runs" / "1", CONFIG, ENVIRONMENT)
    assert folder == tmp_path / "runs" / "1"
    assert visible(folder) == {"config.json"}
    content = json.loads((folder / "config.json").read_text())
    assert content == {
        "config": CONFIG | {"pairs": [["op", 1]]},
        "environment": ENVIRONMENT,
    }


def test_an_empty_folder_is_taken(tmp_path):
    workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    assert (tmp_path / "config.json").is_file()


def test_what_a_killed_process_leaves_is_taken(tmp_path):
    (tmp_path / ".config.json.0123.tmp").write_text('{"conf')
    (tmp_path / ".lock").touch()
    workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    assert visible(tmp_path) == {"config.json"}


def test_the_same_run_reopens_its_folder(tmp_path):
    workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    before = (tmp_path / "config.json").read_bytes()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    # The environment is recorded, not compared.
    assert workdir.prepare(str(tmp_path), CONFIG, {"jax": "0.11"}) == tmp_path
    assert (tmp_path / "config.json").read_bytes() == before
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            CONFIG | {"seed": 4, "name": "b"},
            r"another configuration: name \(there 'a', now 'b'\), "
            r"seed \(there 3, now 4\); choose",
        ),
        (CONFIG | {"more": True}, r"more \(there None, now True\)"),
        ({"seed": 3}, r"name \(there 'a', now None\), pairs .*, rate \(there 0.1"),
        (CONFIG | {"pairs": (("op", 2),)}, r"pairs \(there \[\['op', 1\]\], now"),
    ],
)
def test_differing_keys_are_named(tmp_path, config, message):
    workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    with pytest.raises(ValueError, match=message):
        workdir.prepare(tmp_path, config, ENVIRONMENT)


def test_some_keys_may_differ(tmp_path):
    workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    other = CONFIG | {"name": "b", "seed": 4}
    workdir.prepare(tmp_path, other, ENVIRONMENT, ignored_keys=("name", "seed"))
    with pytest.raises(ValueError, match="configuration: seed") as error:
        workdir.prepare(tmp_path, other, ENVIRONMENT, ignored_keys=("name",))
    assert "name" not in str(error.value)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=f"{tmp_path} is neither empty nor the folder"):
        workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    with pytest.raises(
        ValueError, match=r"thesis\.tex is neither empty nor the folder"
    ):
        workdir.prepare(tmp_path / "thesis.tex", CONFIG, ENVIRONMENT)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"3", b"{}", b'{"config": 3}', b"\xff", b"[" * 9_000),
        *(b'{"config": {"seed": NaN}}', b'{"config": {}, "config": {}}'),
    ],
)
def test_a_broken_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is not the configuration"):
        workdir.prepare(tmp_path, CONFIG, ENVIRONMENT)
    assert (tmp_path / "config.json").read_bytes() == content


def test_environment_says_where_it_ran():
    one = workdir.environment(jax.devices()[:1])
    assert one["jax"] == jax.__version__
    assert one["command"].startswith("python ")
    four = workdir.environment(jax.devices()[:4])
    assert four["device"] == f"4 x {one['device']}"


@pytest.mark.parametrize("name", ["XLA_FLAGS", "JAXNAS_GPU_KERNELS"])
def test_environment_names_what_changes_programs(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    assert name.lower() not in workdir.environment(jax.devices()[:1])
    monkeypatch.setenv(name, "--xla_cpu_experimental_ynn_fusion_type=")
    environment = workdir.environment(jax.devices()[:1])
    assert environment[name.lower()] == "--xla_cpu_experimental_ynn_fusion_type="
    assert environment["jaxlib"]
