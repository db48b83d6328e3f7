"""The rooms of the house: who may import whom, and what loads when."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

import jaxnas

PACKAGE = pathlib.Path(jaxnas.__file__).parent
LAUNCH = PACKAGE.parent / "launch"
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
every_file = pytest.mark.parametrize("module", FILES)

# Slow to import and needed by few: loaded when they are first used.
HEAVY = (
    *("matplotlib", "orbax", "pandas", "tensorflow_datasets", "sklearn", "rich", "PIL"),
    *("tensorboardX", "wandb"),
)
# The builders are classes of that package, and load with the first TFDS data set.
HEAVY_BY_NATURE = {"jaxnas.data.tfds_builders": {"tensorflow_datasets"}}

NETWORK_ROOMS = (
    *("supernets", "weights", "ghn", "networks", "train", "analysis", "studies"),
)
# What has no part in networks or searches, though both use it.
SERVICES = (
    *("checkpoint", "genotypes", "loggers", "metrics", "optim", "parallel", "workdir"),
)
FORBIDDEN = [
    *((lowest, ("",)) for lowest in ("types", "_checks", "_files")),
    ("search", (*NETWORK_ROOMS, "ops")),
    ("weights", ("search", "train", "analysis")),
    ("ghn", ("search", "train", "analysis")),
    ("ops", (*NETWORK_ROOMS, "search")),
    ("spaces", (*NETWORK_ROOMS, "search", "ops")),
    ("supernets", ("search", "weights", "ghn", "networks", "train", "analysis")),
    ("networks", ("search", "weights", "ghn", "supernets", "train", "analysis")),
    ("data", (*NETWORK_ROOMS, "search")),
    ("train", ("analysis", "studies", "report")),
    ("analysis", ("studies", "report")),
    ("studies", ("report",)),
    *((service, (*NETWORK_ROOMS, "search")) for service in SERVICES),
]


def imports_in(node, module, *, deferred):
    """Full names that a tree imports, inside functions only if `deferred`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} imports relatively"
            # The name may be a module of the package, or something in it.
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif deferred or not is_deferred(child):
            yield from imports_in(child, module, deferred=deferred)


def is_deferred(node):
    """True of what does not run when the module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@functools.cache
def imports_of(module, *, deferred=True):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    return set(imports_in(tree, module, deferred=deferred))


def is_within(name, parent):
    return name == parent or name.startswith(f"{parent}.")


def reached_from(module):
    """The modules of the package that this one imports, directly or not."""
    reached, left = set(), [module]
    while left:
        for name in imports_of(left.pop()):
            for found in (name, name.rpartition(".")[0]):
                # The package itself imports nothing until it is asked to.
                if found in FILES and found not in reached | {"jaxnas"}:
                    reached.add(found)
                    left.append(found)
    return reached


def test_the_imports_of_a_source_are_found():
    source = """
import a, b.c
from jaxnas import ops, types as t
if TYPE_CHECKING:
    import d
try:
    import e
except ImportError:
    pass
class C:
    def method(self):
        from f import g
"""
    at_import = {"a", "b.c", "jaxnas.ops", "jaxnas.types", "e"}
    tree = ast.parse(source)
    assert set(imports_in(tree, "m", deferred=False)) == at_import
    assert set(imports_in(tree, "m", deferred=True)) == at_import | {"d", "f.g"}
    assert "jaxnas.types" in reached_from("jaxnas.search")
    assert "jaxnas.ops" in reached_from("jaxnas.supernets")


@pytest.mark.parametrize(
    ("room", "others"), FORBIDDEN, ids=[room for room, _ in FORBIDDEN]
)
def test_a_room_imports_none_above_it(room, others):
    for module in FILES:
        if is_within(module, f"jaxnas.{room}"):
            wrong = {
                name
                for name in reached_from(module)
                for other in others
                if is_within(name, f"jaxnas.{other}".rstrip("."))
            }
            assert not wrong, f"{module} reaches {sorted(wrong)}"


@every_file
def test_private_modules_stay_in_their_room(module):
    for name in imports_of(module):
        room, _, private = name.rpartition(".")
        if name in FILES and private.startswith("_"):
            assert is_within(module, room), f"{module} imports {name}"


@every_file
def test_the_library_imports_no_command(module):
    commands = {path.stem for path in LAUNCH.iterdir()} | {"launch"}
    roots = {name.partition(".")[0] for name in imports_of(module)}
    assert not roots & commands


@every_file
def test_heavy_modules_load_late(module):
    roots = {name.partition(".")[0] for name in imports_of(module, deferred=False)}
    if is_within(module, "jaxnas.report"):  # made of charts, which others load late
        roots.discard("matplotlib")
    assert roots & set(HEAVY) == HEAVY_BY_NATURE.get(module, set())


@pytest.mark.parametrize("module", HEAVY_BY_NATURE)
def test_modules_that_are_heavy_by_nature_load_late(module):
    parent, _, name = module.rpartition(".")
    for other in FILES:
        assert module not in imports_of(other, deferred=False)
        assert f"{module}.{name}" not in imports_of(other, deferred=False)
    assert parent in FILES


def test_searching_loads_nothing_heavy():
    # What JAX, Flax and Optax load on their own is not the library's choice.
    program = f"""
import sys
import chex, flax.linen, jax, optax
before = set(sys.modules)
import jaxnas
from jaxnas import search, supernets, train
print(*sorted({set(HEAVY)} & (set(sys.modules) - before)))
print(*sorted(name for name in sys.modules if name.startswith("jaxnas.")))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy, loaded = result.stdout.splitlines()
    assert heavy == ""
    assert "jaxnas.train.steps" in loaded.split()


def test_importing_the_package_loads_none_of_its_modules():
    program = """
import sys, jaxnas
print(*(name for name in sys.modules if name.startswith(("jaxnas.", "jax."))))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_every_public_module_can_be_reached_from_the_package():
    top = {name.split(".")[1] for name in FILES if name != "jaxnas"}
    top = {name for name in top if not name.startswith("_")}
    assert top <= set(dir(jaxnas))
    for name in top:
        assert getattr(jaxnas, name).__name__ == f"jaxnas.{name}"
    with pytest.raises(AttributeError, match="module 'jaxnas' has no attribute 'nas'"):
        jaxnas.nas  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@every_file
def test_files_are_documented_and_short(module):
    text = FILES[module].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 700
