"""Search spaces: what can be chosen, as vectors of integers."""

from jaxnas.spaces.micro import MicroSpace, enas_micro

__all__ = ["MicroSpace", "enas_micro"]
