"""The recurrent language model that is trained from scratch."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnas import genotypes, ops
from jaxnas._checks import check_sizes
from jaxnas.genotypes import RecurrentGenotype
from jaxnas.networks.size import count_params
from jaxnas.ops import LanguageOutputs, RecurrentDropout


class RecurrentNetwork(nn.Module):
    """A language model; made by `recurrent`, which documents it."""

    genotype: RecurrentGenotype
    num_words: int
    hidden_size: int
    dropout: RecurrentDropout = RecurrentDropout()
    max_norm: float | None = None

    @nn.compact
    def __call__(
        self,
        inputs: tuple[jax.Array, jax.Array],
        *,
        train: bool,
        batch_axis: str | None = None,
    ) -> LanguageOutputs:
        """Read tokens `[B, T]` from a state `[B, hidden_size]` on."""
        activations, sources = self.genotype
        specs = ops.language_specs(len(sources), self.num_words, self.hidden_size)
        weights = {
            name: self.param(name, ops.init, spec) for name, spec in specs.items()
        }
        functions = [ops.ACTIVATIONS[name] for name in activations]
        loose = genotypes.recurrent_loose_ends(self.genotype)

        def cell(x: jax.Array, state: jax.Array, mask: jax.Array) -> jax.Array:
            product = jnp.concatenate([x, state * mask], axis=-1) @ weights["first"][0]
            states = [ops.highway(state, product, functions[0])]
            for node, source in enumerate(sources, start=1):
                read = states[source]
                product = (read * mask) @ weights["nodes"][node - 1]
                states.append(ops.highway(read, product, functions[node]))
            return jnp.stack([states[node] for node in loose]).mean(0)

        tokens, state = inputs
        drops = train and any(self.dropout)
        return ops.language_model(
            weights["embedding"],
            cell,
            tokens,
            state,
            dropout=self.dropout,
            key=self.make_rng("dropout") if drops else None,
            max_norm=self.max_norm,
            batch_axis=batch_axis,
        )


@count_params.register
def _(network: RecurrentNetwork, image_shape: tuple[int, int, int] = (0, 0, 0)) -> int:
    del image_shape  # it takes words
    size, num_later = network.hidden_size, len(network.genotype.sources)
    return size * (network.num_words + 4 * size + 2 * size * num_later)


def recurrent(
    genotype: RecurrentGenotype,
    num_words: int,
    hidden_size: int,
    *,
    dropout: RecurrentDropout | None = None,
    max_norm: float | None = None,
) -> RecurrentNetwork:
    """Make the language model of a recurrent genotype.

    It is the function of `supernets.recurrent`, with the weights of one cell.

    Args:
      genotype: the genotype.
      num_words: size of the vocabulary.
      hidden_size: features of the state and of the embedding.
      dropout: probabilities in training, which then needs a random key `dropout`; none
        if `None`.
      max_norm: as for `supernets.recurrent`.

    Returns:
      A Flax module over `(tokens, state)`, int32 `[B, T]` and `[B, hidden_size]`, which
      returns `ops.LanguageOutputs`.

    Raises:
      ValueError: if the genotype is malformed or a number out of range.
    """
    check_sizes(num_words=num_words, hidden_size=hidden_size)
    dropout = RecurrentDropout() if dropout is None else dropout
    dropout.check()
    genotype = genotypes.check_recurrent(genotype)
    return RecurrentNetwork(genotype, num_words, hidden_size, dropout, max_norm)
