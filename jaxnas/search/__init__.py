"""Searchers: pure ask and tell over decisions, with no knowledge of networks."""

from jaxnas.search.natural_gradient import asng
from jaxnas.search.uniform import random_search

__all__ = ["asng", "random_search"]
