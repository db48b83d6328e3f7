"""Smoothness and gradient variance of two linear cells (Shu et al. 2020, section 4.3).

The paper explains why wide, shallow cells converge fast by the two extreme cells of `n`
nodes, whose operations are matrices `W_1 ... W_n`:

- widest: every node reads the cell's input, `y_i = W_i x`;
- narrowest: every node reads the one before, `y_i = W_i ... W_1 x`.

The nodes of the widest cell go side by side into one linear classifier, so that the
gradients which reach them are those of a real loss. **The theorems assume that the
nodes of the narrowest cell receive the same gradients**, and that is how it is measured
here: a statement about two linear cells under this assumption, not about real networks,
whose narrow cells receive gradients of their own.

With `l_j` the largest singular value of `W_j`, the gradient of the narrowest cell by
`W_i` then has

- a Lipschitz constant at most `prod_{j<i} l_j` times that of the widest cell (theorem
  4.1, for the part of the gradient that reaches `W_i` through its own node);
- a variance of at most `n sum_{k>=i} (s_k / l_i prod_{j<=k} l_j)^2`, where `s_k^2` is
  the variance of the widest cell's gradient by `W_k` (theorem 4.2).

Example: four nodes, all largest singular values 4. The bound on the narrowest cell's
Lipschitz constants is 4 times larger, relative to the widest cell's, with every node;
what is measured grows too, and gradients vary far more, though less than they may.

  >>> import jax
  >>> from jaxnas.analysis import linear_cells
  >>> cells = linear_cells.compare_linear_cells(jax.random.key(0), spectral_norm=4.0)
  >>> bool((cells.narrowest_smoothness[1:] > cells.widest_smoothness[1:]).all())
  True
  >>> bool((cells.narrowest_smoothness <= 1.001 * cells.smoothness_bound).all())
  True
  >>> bool((cells.narrowest_variance > 10 * cells.widest_variance).all())
  True
  >>> bool((cells.narrowest_variance <= cells.variance_bound).all())
  True
  >>> factors = cells.smoothness_bound / cells.widest_smoothness
  >>> [round(float(factor)) for factor in factors]
  [1, 4, 16, 64]

With singular values below 1 the comparison turns round: the narrowest cell is the
smoother one, and the gradients by its last matrix vary less.

  >>> cells = linear_cells.compare_linear_cells(jax.random.key(0), spectral_norm=0.5)
  >>> bool((cells.narrowest_smoothness[1:] < cells.widest_smoothness[1:]).all())
  True
  >>> bool(cells.narrowest_variance[-1] < cells.widest_variance[-1])
  True
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxnas import types

Cell = Callable[[jax.Array, jax.Array], jax.Array]
"""`(weights [num_nodes, features, features], x [features]) -> [num_nodes, features]`"""


class CellGradients(NamedTuple):
    """Gradients of the same loss by the matrices of both cells.

    Attributes:
      widest: `[..., num_nodes, features, features]`.
      narrowest: the same, under the gradients which the widest cell's nodes receive.
    """

    widest: jax.Array
    narrowest: jax.Array


class LinearCells(NamedTuple):
    """Quantities compared in section 4.3; all arrays `[num_nodes]`, a value per matrix.

    Attributes:
      spectral_norms: largest singular values.
      widest_smoothness: largest ratio, over pairs of matrices, of the difference of the
        widest cell's mean gradients to the difference of the matrices (Frobenius): a
        lower bound of its Lipschitz constant.
      narrowest_smoothness: the same of the narrowest cell.
      smoothness_bound: of `narrowest_smoothness`, by theorem 4.1.
      widest_variance: `E ||g - E g||^2` over instances, of the widest cell's gradients.
      narrowest_variance: the same of the narrowest cell.
      variance_bound: of `narrowest_variance`, by theorem 4.2.
    """

    spectral_norms: jax.Array
    widest_smoothness: jax.Array
    narrowest_smoothness: jax.Array
    smoothness_bound: jax.Array
    widest_variance: jax.Array
    narrowest_variance: jax.Array
    variance_bound: jax.Array


def compare_linear_cells(
    key: types.Key,
    num_nodes: int = 4,
    features: int = 6,
    num_classes: int = 3,
    *,
    num_instances: int = 256,
    num_pairs: int = 32,
    spectral_norm: float = 2.0,
) -> LinearCells:
    """Measure both theorems on random matrices and random data.

    Inputs and the classifier are Gaussian, the labels uniform.

    Args:
      key: a typed PRNG key.
      num_nodes: nodes of both cells.
      features: width of a node, and of the input.
      num_classes: outputs of the classifier.
      num_instances: labeled inputs.
      num_pairs: pairs of matrices per node, between which smoothness is measured.
      spectral_norm: the largest singular value of all matrices.

    Returns:
      Measurements and bounds.

    Raises:
      ValueError: if a number is out of range.
    """
    for name, number, least in (
        ("num_nodes", num_nodes, 1),
        ("features", features, 1),
        ("num_classes", num_classes, 2),
        ("num_instances", num_instances, 2),
        ("num_pairs", num_pairs, 1),
    ):
        if number < least:
            raise ValueError(f"{name} is {number}; expected at least {least}")
    if not 0 < spectral_norm < float("inf"):
        raise ValueError(
            f"spectral_norm is {spectral_norm}; expected a positive finite number"
        )
    matrix_key, input_key, head_key, label_key = jax.random.split(key, 4)
    # The first are the cells' own.
    shape = (1 + 2 * num_pairs, num_nodes, features, features)
    matrices = jax.random.normal(matrix_key, shape)
    norms = spectral_norms(matrices)[..., None, None]
    matrices = spectral_norm / norms * matrices
    num_inputs = num_nodes * features
    head = jax.random.normal(head_key, (num_classes, num_inputs)) / num_inputs**0.5
    return measure_linear_cells(
        matrices[0],
        matrices[1:].reshape(num_pairs, 2, *shape[1:]),
        head,
        jax.random.normal(input_key, (num_instances, features)),
        jax.random.randint(label_key, (num_instances,), 0, num_classes),
    )


def measure_linear_cells(
    weights: jax.Array,
    pairs: jax.Array,
    head: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
) -> LinearCells:
    """Measure both theorems on given matrices and data.

    Args:
      weights: `[num_nodes, features, features]`, the matrices of both cells.
      pairs: `[num_pairs, 2, num_nodes, features, features]`, what to replace each
        matrix by to measure smoothness, all others staying as they are.
      head: `[num_classes, num_nodes * features]`, the linear classifier of the nodes
        side by side.
      inputs: `[num_instances, features]`.
      labels: int `[num_instances]`.

    Returns:
      Measurements and bounds.

    Raises:
      ValueError: if shapes do not fit, a label is out of range, or there are no pairs
        or fewer than two instances.
    """
    _check(weights, head, inputs, labels)
    if pairs.shape[1:] != (2, *weights.shape) or not pairs.shape[0]:
        raise ValueError(
            f"pairs has shape {pairs.shape}; expected [num_pairs, "
            f"{', '.join(map(str, (2, *weights.shape)))}]"
        )
    if inputs.shape[0] < 2:
        raise ValueError("there is 1 instance; expected 2 or more, to have a variance")
    return _measure(weights, pairs, head, inputs, labels)


@jax.jit
def _measure(
    weights: jax.Array,
    pairs: jax.Array,
    head: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
) -> LinearCells:
    norms = spectral_norms(weights)
    upstream = upstream_gradients(weights, head, inputs, labels)
    gradients = linear_cell_gradients(weights, inputs, upstream)
    variances = CellGradients(*map(block_variances, gradients))
    ratios = smoothness_ratios(weights, pairs, head, inputs, labels)
    smoothness = CellGradients(*(ratio.max(axis=0) for ratio in ratios))
    return LinearCells(
        spectral_norms=norms,
        widest_smoothness=smoothness.widest,
        narrowest_smoothness=smoothness.narrowest,
        smoothness_bound=smoothness_bound(smoothness.widest, norms),
        widest_variance=variances.widest,
        narrowest_variance=variances.narrowest,
        variance_bound=variance_bound(variances.widest, norms),
    )


def widest_cell(weights: jax.Array, inputs: jax.Array) -> jax.Array:
    """Multiply each matrix with the input.

    Args:
      weights: `[num_nodes, features, features]`.
      inputs: `[features]`.

    Returns:
      The nodes, `[num_nodes, features]`.
    """
    return weights @ inputs


def narrowest_cell(weights: jax.Array, inputs: jax.Array) -> jax.Array:
    """Multiply each matrix with the node before, the first one with the input.

    Args:
      weights: `[num_nodes, features, features]`.
      inputs: `[features]`.

    Returns:
      The nodes, `[num_nodes, features]`.
    """

    def step(node: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        node = weight @ node
        return node, node

    return lax.scan(step, inputs, weights)[1]


def upstream_gradients(
    weights: jax.Array, head: jax.Array, inputs: jax.Array, labels: jax.Array
) -> jax.Array:
    """The gradients that the nodes of the widest cell receive.

    Args:
      weights: `[num_nodes, features, features]`.
      head: `[num_classes, num_nodes * features]`, the linear classifier of the nodes
        side by side.
      inputs: `[num_instances, features]`.
      labels: int `[num_instances]`.

    Returns:
      Of each instance's cross-entropy by each node, `[num_instances, num_nodes,
      features]`.
    """

    def loss(nodes: jax.Array, label: jax.Array) -> jax.Array:
        logits = head @ nodes.reshape(-1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    nodes = jax.vmap(widest_cell, (None, 0))(weights, inputs)
    return jax.vmap(jax.grad(loss))(nodes, labels)


def linear_cell_gradients(
    weights: jax.Array, inputs: jax.Array, upstream: jax.Array
) -> CellGradients:
    """Carry the gradients of the nodes back to the matrices, in both cells.

    Args:
      weights: `[num_nodes, features, features]`.
      inputs: `[num_instances, features]`.
      upstream: `[num_instances, num_nodes, features]`, the gradients by the nodes.

    Returns:
      Gradients of each instance, `[num_instances, num_nodes, features, features]`.
    """

    def gradients(cell: Cell) -> jax.Array:
        def of_instance(x: jax.Array, received: jax.Array) -> jax.Array:
            _, pull_back = jax.vjp(lambda matrices: cell(matrices, x), weights)
            return pull_back(received)[0]

        return jax.vmap(of_instance)(inputs, upstream)

    return CellGradients(gradients(widest_cell), gradients(narrowest_cell))


def block_variances(gradients: jax.Array) -> jax.Array:
    """`E ||g - E g||^2` of the gradient by each matrix.

    Args:
      gradients: `[num_instances, num_nodes, features, features]`.

    Returns:
      `[num_nodes]`, summed over a matrix, averaged over instances.
    """
    deviations = gradients - gradients.mean(axis=0, keepdims=True)
    return (deviations**2).sum(axis=(-2, -1)).mean(axis=0)


def smoothness_ratios(
    weights: jax.Array,
    pairs: jax.Array,
    head: jax.Array,
    inputs: jax.Array,
    labels: jax.Array,
) -> CellGradients:
    """Relative difference of mean gradients by a matrix at two values of it.

    As in theorem 4.1, only what reaches a matrix through its own node counts.

    Args:
      weights: `[num_nodes, features, features]`.
      pairs: `[num_pairs, 2, num_nodes, features, features]`, what to replace each
        matrix by, all others staying as they are.
      head: `[num_classes, num_nodes * features]`.
      inputs: `[num_instances, features]`.
      labels: int `[num_instances]`.

    Returns:
      `||G(W) - G(W')|| / ||W - W'||` (Frobenius) of both cells, `[num_pairs,
      num_nodes]`; 0 where the two are equal.
    """
    num_nodes = weights.shape[0]

    def mean_gradients(matrix: jax.Array, node: jax.Array) -> CellGradients:
        replaced = weights.at[node].set(matrix)
        upstream = upstream_gradients(replaced, head, inputs, labels)
        is_own = (jnp.arange(num_nodes) == node)[None, :, None]
        own = jnp.where(is_own, upstream, jnp.zeros_like(upstream))
        gradients = linear_cell_gradients(replaced, inputs, own)
        return CellGradients(*(g.mean(axis=0)[node] for g in gradients))

    def ratios(pair: jax.Array, node: jax.Array) -> CellGradients:
        distance = jnp.linalg.norm(pair[0] - pair[1])
        both = jax.vmap(mean_gradients, (0, None))(pair, node)
        return CellGradients(
            *(
                jnp.where(distance > 0, jnp.linalg.norm(g[0] - g[1]) / distance, 0.0)
                for g in both
            )
        )

    over_nodes = jax.vmap(ratios, (1, 0))
    return jax.vmap(over_nodes, (0, None))(pairs, jnp.arange(num_nodes))


def spectral_norms(weights: jax.Array) -> jax.Array:
    """The largest singular values of matrices.

    Args:
      weights: `[..., features, features]`.

    Returns:
      `[...]`.
    """
    return jnp.linalg.svd(weights, compute_uv=False)[..., 0]


def smoothness_bound(widest_smoothness: jax.Array, norms: jax.Array) -> jax.Array:
    """The narrowest cell's smoothness at most (theorem 4.1).

    Args:
      widest_smoothness: `[num_nodes]`, that of the widest cell.
      norms: `[num_nodes]`, the largest singular values.

    Returns:
      `widest_smoothness[i]` times the product of `norms` before `i`, `[num_nodes]`.
    """
    before = jnp.concatenate([jnp.ones_like(norms[:1]), jnp.cumprod(norms)[:-1]])
    return before * widest_smoothness


def variance_bound(widest_variance: jax.Array, norms: jax.Array) -> jax.Array:
    """The narrowest cell's gradient variance at most (theorem 4.2).

    Args:
      widest_variance: `[num_nodes]`, that of the widest cell.
      norms: `[num_nodes]`, the largest singular values.

    Returns:
      `num_nodes` times the sum, over nodes `k >= i`, of `widest_variance[k]` times the
      squared product of `norms` up to `k` without `norms[i]`, `[num_nodes]`.
    """
    num_nodes = norms.shape[0]
    others = jnp.where(jnp.eye(num_nodes, dtype=bool), 1.0, norms[None, :])
    squares = jnp.cumprod(others, axis=1) ** 2 * widest_variance[None, :]
    return num_nodes * jnp.triu(squares).sum(axis=1)


def _check(
    weights: jax.Array, head: jax.Array, inputs: jax.Array, labels: jax.Array
) -> None:
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2] or not weights.size:
        raise ValueError(
            f"weights has shape {weights.shape}; expected square matrices, "
            "[num_nodes, features, features]"
        )
    num_nodes, features, _ = weights.shape
    if head.ndim != 2 or head.shape[1] != num_nodes * features:
        raise ValueError(
            f"head has shape {head.shape}; expected [num_classes, "
            f"{num_nodes * features}] for {num_nodes} nodes of {features} features"
        )
    if inputs.ndim != 2 or inputs.shape[1] != features:
        raise ValueError(
            f"inputs has shape {inputs.shape}; expected [num_instances, {features}]"
        )
    if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels are {labels.dtype} {labels.shape}; expected integers "
            f"[{inputs.shape[0]}], one for each input"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= head.shape[0]))
    if wrong.size:
        raise ValueError(
            f"label {int(labels[wrong[0]])} of instance {wrong[0]} is out of range; "
            f"expected 0 to {head.shape[0] - 1}"
        )
