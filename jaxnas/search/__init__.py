"""Searchers: pure ask and tell over decisions, with no knowledge of networks."""

from jaxnas.search import tabular
from jaxnas.search.controller_settings import Settings, script
from jaxnas.search.natural_gradient import asng
from jaxnas.search.policy_gradient import reinforce
from jaxnas.search.uniform import random_search

__all__ = ["Settings", "asng", "random_search", "reinforce", "script", "tabular"]
