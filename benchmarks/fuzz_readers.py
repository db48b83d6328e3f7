"""Feed damaged files to every reader of the library.

    python benchmarks/fuzz_readers.py
    python benchmarks/fuzz_readers.py --mutations 1000 --seed 3 --reader surface

Each reader runs in a process of its own with 1 GiB of memory beyond what importing
takes. A damaged file is loaded as something sound, or refused with the documented error
in a message of at most 1,000 characters that names it or its folder; anything else is
counted and shown.
"""

import argparse
import collections
import io
import json
import math
import pathlib
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.io
from PIL import Image

from jaxnas import analysis, data, genotypes, ghn, metrics, spaces, supernets, workdir
from jaxnas.data import cache, celeba, decoding, pickles, svhn, tables

MEMORY = 2**30
SECONDS = 20
LOADED, REFUSED = "loaded", "refused"


class Reader(NamedTuple):
    """A reader, and a file that it loads.

    Attributes:
      file: the name of the file.
      write: `path -> None`, writes a file that can be loaded.
      read: `path -> None`, loads it and asserts that the result is sound.
      error: what it raises for a damaged file.
    """

    file: str
    write: Callable[[pathlib.Path], None]
    read: Callable[[pathlib.Path], None]
    error: type[Exception]


# Readers --------------------------------------------------------------------------

ARCHS = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), 1).astype(np.uint8)
ACCURACIES = np.linspace(10, 90, 27)
CELLS = genotypes.named("DARTS_V2")
CONFIG = {"seed": 3, "rate": 0.1, "pairs": [["op", 1]], "name": None}


def read_table(path: pathlib.Path) -> None:
    """Load a table of three decisions, or of what the damage has left."""
    table = tables.load_table(path, valid="valid", test="test", percent=True)
    assert math.prod(table.cardinalities) == len(table.valid) == len(table.test)
    assert np.isfinite(table.valid).all() and np.isfinite(table.test).all()


def write_npz_table(path: pathlib.Path) -> None:
    """Write a table, compressed."""
    arrays = {"archs": ARCHS, "valid": ACCURACIES, "test": ACCURACIES + 1}
    np.savez_compressed(path, **arrays, tasks=np.array(["a", "b"]))


def write_csv_table(path: pathlib.Path) -> None:
    """Write the same table as text."""
    rows = np.column_stack([ARCHS, ACCURACIES, ACCURACIES + 1])
    np.savetxt(path, rows, "%g", ",", header="x,y,z,valid,test", comments="")


def read_genotype(path: pathlib.Path) -> None:
    """Load a genotype of any kind."""
    genotype = genotypes.load(path)
    assert genotypes.check(genotype) == genotype


def write_surface(path: pathlib.Path) -> None:
    """Write a surface with a row that has not been measured."""
    loss = np.arange(15.0).reshape(3, 5)
    arrays: dict[str, Any] = {"loss": loss, "num_rows": 2, "fingerprint": "0" * 64}
    arrays |= {"alphas": np.linspace(-1, 1, 5), "betas": np.linspace(-1, 1, 3)}
    np.savez(path, **arrays)


def read_surface(path: pathlib.Path) -> None:
    """Load a surface."""
    surface = analysis.load_surface(path)
    shape = (len(surface.betas), len(surface.alphas))
    assert all(array.shape == shape for array in surface.values.values())
    assert surface.is_measured is not None and surface.is_measured.shape == shape[:1]


def make_provider() -> Any:
    """A small hypernetwork."""
    net = supernets.dag(spaces.ghn_dag(4), 2, 3, 3)
    return ghn.hypernetwork(net, hidden_size=3, num_steps=1, decoder_size=2)


def write_hypernetwork(path: pathlib.Path) -> None:
    """Write a hypernetwork of ones."""
    shapes = jax.eval_shape(make_provider().init, jax.random.key(0))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    ghn.save(path, ones, make_provider())


def read_hypernetwork(path: pathlib.Path) -> None:
    """Load a hypernetwork."""
    params = ghn.load(path, make_provider())
    for leaf in jax.tree.leaves(params):
        assert np.issubdtype(leaf.dtype, np.floating) and np.isfinite(leaf).all()


def cached(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Images from the file, or made anew."""
    images = np.zeros((6, 4, 4, 3), np.uint8)
    root = path.parent.parent
    return cache.load_or_compute(
        root, path.stem, lambda: {"image": images, "label": np.arange(6)}
    )


def write_cache(path: pathlib.Path) -> None:
    """Write decoded images."""
    path.unlink(missing_ok=True)
    cached(path)


def read_cache(path: pathlib.Path) -> None:
    """Load decoded images, where the warning is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "decoding again")
        assert all(isinstance(array, np.ndarray) for array in cached(path).values())


def write_config(path: pathlib.Path) -> None:
    """Write the configuration of a run."""
    path.unlink(missing_ok=True)
    workdir.prepare(path.parent, CONFIG, {})


def read_config(path: pathlib.Path) -> None:
    """Reopen the folder of a run."""
    workdir.prepare(path.parent, CONFIG, {})


def write_log(path: pathlib.Path) -> None:
    """Write two lines of a metrics log."""
    path.unlink(missing_ok=True)
    for step in range(2):
        metrics.append(path, step, {"loss": 0.5, "name": "a"})


def read_log(path: pathlib.Path) -> None:
    """Read a metrics log."""
    assert all(isinstance(entry["step"], int) for entry in metrics.read(path))


def write_svhn(path: pathlib.Path) -> None:
    """Write four images as MATLAB does, compressed."""
    pixels = np.arange(32 * 32 * 3 * 4).reshape(32, 32, 3, 4).astype(np.uint8)
    labels = np.array([[1], [2], [10], [9]], np.uint8)
    scipy.io.savemat(path, {"X": pixels, "y": labels}, do_compression=True)


def read_svhn(path: pathlib.Path) -> None:
    """Read images of SVHN."""
    split = svhn.read_file(path)
    assert split.images.shape[1:] == svhn.IMAGE_SHAPE
    assert ((split.labels >= 0) & (split.labels < 10)).all()


def write_celeba(path: pathlib.Path) -> None:
    """Write the list of landmarks of three photographs, and these."""
    folder = path.parent / celeba.IMAGES
    folder.mkdir(exist_ok=True)
    names = [f"{i:06d}.png" for i in range(3)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (80 * i, 0, 0)).save(folder / name)
    rows = [f"{name} 69 109 106 113 77 142 73 152 108 154" for name in names]
    path.write_text("\n".join(["3", "lefteye_x and so on", *rows, ""]), "utf-8")
    parts = [f"{name} {part}\n" for name, part in zip(names, (0, 1, 2), strict=True)]
    (path.parent / celeba.PARTITION).write_text("".join(parts), "utf-8")


def read_celeba(path: pathlib.Path) -> None:
    """Load the photographs."""
    dataset = data.load("celeba", path.parent)
    assert dataset.train.images.shape == dataset.test.images.shape == (1, 64, 64, 3)


def write_pickle(path: pathlib.Path) -> None:
    """Write a batch of CIFAR-10 of two images."""
    pixels = np.zeros((2, 3072), np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels, "labels": [3, 7]}))


def read_pickle(path: pathlib.Path) -> None:
    """Load a batch of builtin types and arrays."""
    assert isinstance(pickles.load(path.read_bytes(), str(path)), dict)


def write_image(path: pathlib.Path) -> None:
    """Write an image in the format of its ending."""
    pixels = np.arange(40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def read_image(path: pathlib.Path) -> None:
    """Decode an image."""
    assert decoding.open_image(path.read_bytes(), path).mode == "RGB"


TEXT = b"the dog <unk> the bird\nthe bird sings\n" * 20


def write_ptb(path: pathlib.Path) -> None:
    """Write Penn Treebank's archive."""
    with tarfile.open(path, "w:gz") as archive:
        for split in ("train", "valid", "test"):
            member = tarfile.TarInfo(f"./simple-examples/data/ptb.{split}.txt")
            member.size = len(TEXT)
            archive.addfile(member, io.BytesIO(TEXT))


def write_wikitext(path: pathlib.Path) -> None:
    """Write the archive of WikiText-2."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "valid", "test"):
            archive.writestr(f"wikitext-2/wiki.{split}.tokens", TEXT)


def write_texts(path: pathlib.Path) -> None:
    """Write three texts, of which that of the path is damaged."""
    for split in ("train", "valid", "test"):
        (path.parent / f"{split}.txt").write_bytes(TEXT)


def text_reader(name: str) -> Callable[[pathlib.Path], None]:
    """What loads texts by their name."""

    def read(path: pathlib.Path) -> None:
        texts = data.load_text(name, path.parent)
        for text in texts[1:4]:
            assert text.size > 0 and 0 <= text.min() <= text.max() < texts.num_words

    return read


def writer(text: str) -> Callable[[pathlib.Path], None]:
    """What writes a text."""

    def write(path: pathlib.Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


READERS = {
    "table .npz": Reader("table.npz", write_npz_table, read_table, ValueError),
    "table .csv": Reader("table.csv", write_csv_table, read_table, ValueError),
    "surface": Reader("s.npz", write_surface, read_surface, analysis.SurfaceError),
    "hypernetwork": Reader(
        *("ghn.npz", write_hypernetwork, read_hypernetwork, ValueError)
    ),
    "image cache": Reader(
        f"{cache.FOLDER}/key.npz", write_cache, read_cache, UserWarning
    ),
    "genotype text": Reader(
        *("g.txt", writer(genotypes.to_darts(CELLS)), read_genotype, ValueError)
    ),
    "genotype JSON": Reader(
        *("g.json", writer(genotypes.to_json(CELLS)), read_genotype, ValueError)
    ),
    "config.json": Reader("run/config.json", write_config, read_config, ValueError),
    "metrics log": Reader("m.jsonl", write_log, read_log, metrics.LogError),
    "SVHN": Reader("test_32x32.mat", write_svhn, read_svhn, data.DatasetError),
    "CelebA": Reader(celeba.LANDMARKS, write_celeba, read_celeba, data.DatasetError),
    "CIFAR pickle": Reader("b", write_pickle, read_pickle, data.DatasetError),
    "Penn Treebank": Reader(
        *("simple-examples.tgz", write_ptb, text_reader("ptb"), data.DatasetError)
    ),
    "WikiText-2": Reader(
        *("wikitext-2-v1.zip", write_wikitext, text_reader("wikitext2")),
        data.DatasetError,
    ),
    "own text": Reader(
        *("train.txt", write_texts, text_reader("text"), data.DatasetError)
    ),
    **{
        f"image .{ending}": Reader(
            f"image.{ending}", write_image, read_image, data.DatasetError
        )
        for ending in ("png", "jpg", "tif", "gif", "webp", "bmp")
    },
}


# Mutations ------------------------------------------------------------------------

TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"-", b"True", b"None", b"\xff"),
    *(b"(" * 500, b"[" * 100_000, b"{" * 500, b"-" * 5_000, b"a." * 5_000, b'"', b"'"),
    *(b"\0", b"\n", b",", b";", b"range(10**9)", b"range(2, 99999999999999999999)"),
    *(b"<c16", b"|b1", b"|O8", b"<f8", b"<U0", b"|V9", b"(1099511627776,)", b"#"),
    *(b"\x00" * 4, b"\xff" * 4, b"\xff" * 8, b"PK\x01\x02", b"PK\x03\x04", b"\xed\xa0"),
)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage a file, its members where it is an archive."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        kind = rng.randrange(3)
        if kind == 0:
            return _mutate_members(content, rng)
        if kind == 1:
            return _mutate_directory(content, rng)
    return _mutate_bytes(content, rng)


def _mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        other = rng.randrange(len(data) + 1)
        num = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at : at + num] = data[other : other + num]
            case 3:
                data[at:at] = bytes(rng.randrange(256) for _ in range(num))
            case 4:
                del data[at : at + num]
            case 5:
                data[at : at + rng.choice((0, num))] = rng.choice(TOKENS)
    return bytes(data)


def _mutate_members(content: bytes, rng: random.Random) -> bytes:
    """Damage what checksums protect, and write them anew."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        chosen = rng.randrange(len(old.namelist()))
        for i, info in enumerate(old.infolist()):
            data = old.read(info)
            if i == chosen:
                data = _mutate_header(data, rng)
            new.writestr(info.filename, data, info.compress_type)
    return file.getvalue()


def _mutate_header(data: bytes, rng: random.Random) -> bytes:
    """Damage the header of an array, or anything else."""
    if data.startswith(b"\x93NUMPY") and rng.random() < 0.5:
        size = int.from_bytes(data[8:10], "little")
        header = data[10 : 10 + size].rstrip()
        values = re.finditer(rb"'[^']*'|\([^)]*\)|\d+|True|False", header)
        found = rng.choice([*values])
        header = (
            header[: found.start()]
            + rng.choice(TOKENS)[:60_000]
            + header[found.end() :]
        )
        return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + size :]
    return _mutate_bytes(data, rng)


def _mutate_directory(content: bytes, rng: random.Random) -> bytes:
    """Change a field that says how a member is packed."""
    data = bytearray(content)
    starts = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x05\x06", content)]
    at = rng.choice(starts) + rng.randrange(4, 46)
    data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


# Running --------------------------------------------------------------------------


def attempt(reader: Reader, path: pathlib.Path, content: bytes) -> str:
    """Read a damaged file; `LOADED`, `REFUSED` or what else happened."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.read(path)
    except reader.error as error:
        message = str(error)
        if str(path.parent) not in message:
            return f"{type(error).__name__} without the file: {message[:80]}"
        if len(message) > 1_000:
            return f"a message of {len(message)} characters"
        return REFUSED
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    return LOADED


def fuzz(name: str, num_mutations: int, seed: int) -> dict[str, Any]:
    """Counts of what happened, the largest time and the peak of memory."""
    reader, rng = READERS[name], random.Random(f"{name} {seed}")
    counts: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, reader.file)
        path.parent.mkdir(exist_ok=True)
        reader.write(path)
        content = path.read_bytes()
        assert attempt(reader, path, content) == LOADED
        limit_memory()
        for _ in range(num_mutations):
            damaged = mutate(content, rng)
            start = time.perf_counter()
            signal.alarm(SECONDS)
            counts[re.sub(r"0x\w+|\d+", "N", attempt(reader, path, damaged))] += 1
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"counts": counts, "seconds": slowest, "mebibytes": peak}


def limit_memory() -> None:
    """Allow this process 1 GiB more than it has, and end what takes too long."""
    pages = int(pathlib.Path("/proc/self/statm").read_text("utf-8").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def expire(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, expire)


def main() -> None:
    """Run each reader in a process, print a table."""
    parser = argparse.ArgumentParser(description="Damage files, read them.")
    parser.add_argument("--mutations", type=int, default=10_000, help="of all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, help="only this one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(fuzz(given.reader, given.mutations, given.seed)))
        return
    names = [given.reader] if given.reader else list(READERS)
    columns = f"{'loaded':>8} {'refused':>8} {'else':>6} {'slowest':>9} {'peak':>9}"
    print(f"{'reader':<14} {'files':>6} {columns}")
    others = []
    for i, name in enumerate(names):
        num = (given.mutations + i) // len(names)
        flags = ("--mutations", str(num), "--seed", str(given.seed), "--reader", name)
        done = subprocess.run(
            [sys.executable, __file__, "--child", *flags],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{name:<14} {num:>6} ended with status {done.returncode}")
            others.append(f"{name}: status {done.returncode}")
            continue
        result = json.loads(done.stdout)
        counts = result["counts"]
        loaded, refused = (counts.pop(kind, 0) for kind in (LOADED, REFUSED))
        print(
            f"{name:<14} {num:>6} {loaded:>8} {refused:>8} {sum(counts.values()):>6} "
            f"{result['seconds']:>7.2f} s {result['mebibytes']:>5.0f} MiB",
            flush=True,
        )
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        others += [f"{name}: {num} x {text}" for text, num in ordered]
    print("\n".join(others) if others else "every damaged file: loaded or refused")
    sys.exit(bool(others))


if __name__ == "__main__":
    main()
