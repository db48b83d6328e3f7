"""Weights that all architectures share."""

from jaxnas.types import Arch, Params, Supernet, WeightProvider, Weights


def shared(net: Supernet) -> WeightProvider:
    """One set of weights for every architecture, as in ENAS and ASNG-NAS.

    Args:
      net: the supernet the weights are for.

    Returns:
      A `WeightProvider` whose parameters are the weights themselves. What an
      architecture does not use gets a gradient of zero.
    """

    def apply(params: Params, arch: Arch) -> Weights:
        del arch
        return params

    return WeightProvider(net.init, apply)
