"""Loss landscapes: a plane through trained weights (Shu et al. 2020, section 4.2).

The plane is spanned by two random directions that are normalized filter by filter
(Li et al. 2018), so that networks whose weights differ in scale can be compared. What
is measured at each of its points is up to the caller: a mean over images, as
`mean_metrics` makes it, or the variance of gradients, see `gradient_variance`.
"""

import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnas import _archives, _files, parallel
from jaxnas._checks import check_sizes, shorten
from jaxnas.types import Batch, Device, Key, Metrics, Params

Measure = Callable[[Params, Any, Batch], Metrics]
"""`(params, constants, examples) -> metrics`, named scalars of one point."""

_POINT_AXIS = "points"
_RESERVED = ("alphas", "betas", "num_rows", "fingerprint")
_EPSILON = 1e-10  # as in the official code of Li et al.


class SurfaceError(ValueError):
    """A file is no surface, or one of something else; the message names it."""


class Plane(NamedTuple):
    """All `center + alpha * first + beta * second`.

    Attributes:
      center: trained parameters.
      first: direction of alpha, of the same structure.
      second: direction of beta.
    """

    center: Params
    first: Params
    second: Params

    def point(self, alpha: jax.Array, beta: jax.Array) -> Params:
        """The parameters at a place; those of the center, to the bit, at (0, 0)."""
        return jax.tree.map(
            lambda w, x, y: w + alpha.astype(w.dtype) * x + beta.astype(w.dtype) * y,
            *self,
        )


class Surface(NamedTuple):
    """Values measured on a plane.

    Attributes:
      alphas: float64 `[num_x]`, places along the first direction.
      betas: float64 `[num_y]`, places along the second one.
      values: float64 `[num_y, num_x]` by name, row j at `betas[j]`; not finite where
        the network is not, and NaN in rows that have not been measured yet.
      is_measured: bool `[num_y]`, which rows have been measured; all if `None`. A row
        may be NaN throughout because the network is.
    """

    alphas: np.ndarray
    betas: np.ndarray
    values: dict[str, np.ndarray]
    is_measured: np.ndarray | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all rows have been measured."""
        return self.is_measured is None or bool(self.is_measured.all())

    def at_center(self, name: str) -> float:
        """The value at (0, 0); `ValueError` if the grid has no such point."""
        (columns,), (rows,) = (np.nonzero(axis == 0) for axis in self[:2])
        if not columns.size or not rows.size:
            raise ValueError("the grid of the surface has no point at (0, 0)")
        return float(self.values[name][rows[0], columns[0]])


def coordinates(radius: float = 1.0, resolution: int = 51) -> np.ndarray:
    """Equally spaced places from `-radius` to `radius`, float64 `[resolution]`.

    Raises:
      ValueError: unless the radius is positive and finite, and the resolution odd, so
        that the center is one of them, and at least 3.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius}; expected a positive number")
    if resolution < 3 or resolution % 2 == 0:
        raise ValueError(f"resolution is {resolution}; expected an odd number from 3")
    steps = np.arange(resolution) - resolution // 2
    return steps * (radius / (resolution // 2))


def random_plane(key: Key, params: Params, num_batch_dims: Any = 0) -> Plane:
    """Draw a plane through trained parameters.

    Both directions are Gaussian, then scaled so that every filter of a direction has
    the norm of the same filter of the parameters; they are not made orthogonal. The
    filters of an array lie along its last axis, as in Flax. Arrays of one axis (biases,
    scales and offsets of normalization) do not move.

    Args:
      key: random key; equal keys and shapes give the same directions before scaling.
      params: trained parameters, a pytree of float arrays.
      num_batch_dims: number of leading axes that only stack independent arrays, for all
        parameters or as a pytree with one for each, as
        `jaxnas.networks.num_batch_dims` gives it.

    Returns:
      The plane, with the parameters in its center.

    Source: Li et al. (2018), section 4; official net_plotter.py with `--xnorm filter
    --xignore biasbn`, where filters lie along the first axis.
    """
    if isinstance(num_batch_dims, int):
        num_batch_dims = jax.tree.map(lambda _: num_batch_dims, params)
    # One draw for all arrays: each call of the generator takes time to compile.
    flat, unravel = ravel_pytree(params)
    draws = jax.random.normal(key, (2, flat.size), flat.dtype)

    def scaled(draw: jax.Array) -> Params:
        return jax.tree.map(filter_normalized, unravel(draw), params, num_batch_dims)

    return Plane(params, scaled(draws[0]), scaled(draws[1]))


def filter_normalized(
    direction: jax.Array, weights: jax.Array, num_batch_dims: int = 0
) -> jax.Array:
    """Give every filter of a direction the norm of the same filter of the weights.

    Args:
      direction: of the shape of the weights.
      weights: one array of parameters; filters lie along the last axis.
      num_batch_dims: number of leading axes that stack independent arrays.

    Returns:
      The scaled direction, zero for arrays that have one axis besides stacking ones.
    """
    if weights.ndim - num_batch_dims <= 1:
        return jnp.zeros_like(weights)
    axes = tuple(range(num_batch_dims, weights.ndim - 1))

    def norm(array: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.square(array).sum(axes, keepdims=True))

    return direction * (norm(weights) / (norm(direction) + _EPSILON))


def mean_metrics(
    metrics: Callable[[Params, Any, Batch], Metrics], batch_size: int
) -> Measure:
    """Make the mean of a batch's metrics over all examples.

    Args:
      metrics: `(params, constants, batch) -> metrics`, means over the batch by its
        `weight`, such as those of a `jaxnas.types.Task`.
      batch_size: examples in a batch; the last batch is filled up with examples from
        the beginning, whose weight is 0.

    Returns:
      `(params, constants, examples) -> metrics` for examples `[num, ...]`.
    """
    check_sizes(batch_size=batch_size)

    def measure(params: Params, constants: Any, examples: Batch) -> Metrics:
        num = _num_examples(examples)
        index = jnp.arange(-(-num // batch_size) * batch_size).reshape(-1, batch_size)

        def of_batch(index: jax.Array) -> tuple[Metrics, jax.Array]:
            batch = {name: array[index % num] for name, array in examples.items()}
            weight = (index < num).astype(jnp.float32)
            return metrics(params, constants, batch | {"weight": weight}), weight.sum()

        def add_batch(totals: Metrics, index: jax.Array) -> tuple[Metrics, None]:
            found, count = of_batch(index)
            return jax.tree.map(
                lambda total, mean: total + mean * count.astype(mean.dtype),
                totals,
                found,
            ), None

        shapes, _ = jax.eval_shape(of_batch, index[0])
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        totals, _ = lax.scan(add_batch, zeros, index)
        return jax.tree.map(lambda total: total / num, totals)

    return measure


def make_surface_fn(
    measure: Measure,
    *,
    point_batch_size: int = 1,
    devices: Sequence[Device] | None = None,
) -> Callable[..., Surface]:
    """Make the measurement of surfaces, one compiled program for a row of points.

    Args:
      measure: what is measured at a point.
      point_batch_size: points that a device handles side by side, as one batched
        computation; they need as much memory more. Where single points keep the device
        busy, 1 is fastest.
      devices: where to run; the first device if `None`. They share out the points.

    Returns:
      `(plane, constants, examples, alphas, betas, file=None, on_row=None) -> surface`.
      `constants` is handed to `measure`: running statistics, for example. The program
      is compiled once for all planes of one structure. With a `file`, `.npz`, every
      row is saved when it is done, and those that the file has already are not
      measured again; `load_surface` reads it. `on_row` is called after every row, with
      the number of rows that are done.

    Raises:
      ValueError: if there are no points at once; when measuring, if an axis is empty,
        the file is damaged, or holds a surface of other weights, directions, examples
        or places.
    """
    check_sizes(point_batch_size=point_batch_size)
    devices = [jax.local_devices()[0]] if devices is None else list(devices)
    num_devices = len(devices)

    def measure_row(plane, constants, examples, alphas, beta):
        if num_devices > 1:
            share = alphas.size // num_devices
            start = lax.axis_index(_POINT_AXIS) * share
            alphas = lax.dynamic_slice_in_dim(alphas, start, share)

        def measure_point(alpha):
            return measure(plane.point(alpha, beta), constants, examples)

        batching = {"batch_size": point_batch_size} if point_batch_size > 1 else {}
        row = lax.map(measure_point, alphas, **batching)
        if num_devices > 1:
            row = lax.all_gather(row, _POINT_AXIS, tiled=True)
        return row

    compiled = parallel.replicated(measure_row, devices, axis_name=_POINT_AXIS)

    def measure_surface(
        plane: Plane,
        constants: Any,
        examples: Batch,
        alphas: Sequence[float] | np.ndarray,
        betas: Sequence[float] | np.ndarray,
        file: str | os.PathLike[str] | None = None,
        on_row: Callable[[int], None] | None = None,
    ) -> Surface:
        alphas, betas = np.asarray(alphas, float), np.asarray(betas, float)
        for name, axis in (("alphas", alphas), ("betas", betas)):
            if axis.ndim != 1 or not axis.size:
                raise ValueError(
                    f"{name} has shape {list(axis.shape)}; expected [num] places"
                )
        _num_examples(examples)
        path = None if file is None else pathlib.Path(file)
        rows, fingerprint = [], ""
        if path is not None:
            fingerprint = _fingerprint((plane, constants, examples, alphas, betas))
            rows = _read_rows(path, fingerprint)
        padding = -alphas.size % num_devices
        padded = jnp.asarray(np.pad(alphas, (0, padding), mode="edge"), jnp.float32)
        placed = parallel.device_put(
            (plane, constants, dict(examples)), devices, axis_name=_POINT_AXIS
        )
        for beta in betas[len(rows) :]:
            found = compiled(*placed, padded, jnp.float32(beta))
            rows.append(
                {
                    name: np.asarray(value, np.float64)[: alphas.size]
                    for name, value in found.items()
                }
            )
            if path is not None:
                _write_rows(path, fingerprint, alphas, betas, rows)
            if on_row is not None:
                on_row(len(rows))
        return _to_surface(alphas, betas, rows)

    return measure_surface


def load_surface(file: str | os.PathLike[str]) -> Surface:
    """Read a surface that was saved while it was measured.

    Args:
      file: the `.npz` file: `alphas`, `betas` and the values by their names.

    Returns:
      The surface; rows that have not been measured yet are NaN.

    Raises:
      SurfaceError: if the file is no surface.
      FileNotFoundError: if there is no such file.
    """
    arrays = _read(pathlib.Path(file))
    values = {name: a for name, a in arrays.items() if name not in _RESERVED}
    is_measured = np.arange(arrays["betas"].size) < int(arrays["num_rows"])
    return Surface(arrays["alphas"], arrays["betas"], values, is_measured)


def basin_share(surface: Surface, rise: float = 1.0) -> float:
    """The share of the points whose loss is little above that of the center.

    A number for how wide and smooth a basin is: it does not depend on how high the
    walls around it are.

    Args:
      surface: with values `loss`.
      rise: how much above the center, in the unit of the loss.

    Returns:
      Between 0 and 1; points whose loss is not finite are outside.

    Raises:
      ValueError: if the grid has no point at (0, 0), or its loss is not finite.
    """
    center = surface.at_center("loss")
    if not math.isfinite(center):
        raise ValueError(f"the loss of the center is {center}; expected a number")
    return float((surface.values["loss"] <= center + rise).mean())


def _num_examples(examples: Batch) -> int:
    sizes = {name: array.shape[0] for name, array in examples.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"examples are {sizes}; expected as many of each, at least 1")
    return next(iter(sizes.values()))


def _fingerprint(tree: Any) -> str:
    """Tells whether the rows of a file belong to what is measured now."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _to_surface(
    alphas: np.ndarray, betas: np.ndarray, rows: Sequence[Mapping[str, np.ndarray]]
) -> Surface:
    missing = np.full((betas.size - len(rows), alphas.size), np.nan)
    values = {
        name: np.concatenate([np.stack([row[name] for row in rows]), missing])
        for name in rows[0]
    }
    return Surface(alphas, betas, values, np.arange(betas.size) < len(rows))


def _read_rows(path: pathlib.Path, fingerprint: str) -> list[dict[str, np.ndarray]]:
    if not path.exists():
        return []
    arrays = _read(path)
    if str(arrays["fingerprint"]) != fingerprint:
        raise SurfaceError(
            f"{path} holds a surface of other weights, directions, examples or places; "
            "delete it or choose another file"
        )
    names = [name for name in arrays if name not in _RESERVED]
    return [
        {name: arrays[name][row] for name in names}
        for row in range(int(arrays["num_rows"]))
    ]


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        arrays = _archives.read(path)
    except _archives.ArchiveError as error:
        raise SurfaceError(f"{path} is no surface: {error}") from error
    missing = [name for name in _RESERVED if name not in arrays]
    if missing:
        raise SurfaceError(f"{path} is no surface: it lacks {', '.join(missing)}")
    shape = (arrays["betas"].size, arrays["alphas"].size)
    expected = {"alphas": ("f", shape[1:]), "betas": ("f", shape[:1])}
    expected |= {"num_rows": ("i", ()), "fingerprint": ("U", ())}
    for name, array in arrays.items():
        wanted = expected.get(name, ("f", shape))
        if (array.dtype.kind, array.shape) != wanted:
            raise SurfaceError(
                f"{path} is no surface: {shorten(name, 60)!r} is {array.shape} of "
                f"{array.dtype}; expected {wanted[1]} of kind {wanted[0]}"
            )
    if not 0 <= arrays["num_rows"] <= shape[0]:
        raise SurfaceError(
            f"{path} is no surface: num_rows is {arrays['num_rows']}; expected 0 to "
            f"{shape[0]}"
        )
    return arrays


def _write_rows(
    path: pathlib.Path,
    fingerprint: str,
    alphas: np.ndarray,
    betas: np.ndarray,
    rows: Sequence[Mapping[str, np.ndarray]],
) -> None:
    # A dictionary says to type checkers that no name is an option of `savez`.
    arrays: dict[str, Any] = {
        "alphas": alphas,
        "betas": betas,
        "num_rows": len(rows),
        "fingerprint": fingerprint,
        **_to_surface(alphas, betas, rows).values,
    }
    with _files.atomic_write(path) as file:
        np.savez(file, **arrays)
