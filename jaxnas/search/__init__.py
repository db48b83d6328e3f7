"""Searchers: pure ask and tell over decisions, with no knowledge of networks."""

from jaxnas.search import tabular
from jaxnas.search.controller_settings import Settings, paper, script
from jaxnas.search.natural_gradient import asng
from jaxnas.search.policy_gradient import reinforce
from jaxnas.search.uniform import random_search

__all__ = [
    "Settings",
    "asng",
    "paper",
    "random_search",
    "reinforce",
    "script",
    "tabular",
]
