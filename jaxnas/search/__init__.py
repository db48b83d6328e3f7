"""Searchers: pure ask and tell over decisions, with no knowledge of networks.

Every searcher is made by a function of the space, or of the number of categories of
each decision, and of settings that have defaults and are given by name. A new one is
a module and an entry in `SEARCHERS`.
"""

from collections.abc import Callable, Mapping

from jaxnas.search import controllers, tabular
from jaxnas.search.controllers import (
    ControllerSettings,
    official_optimizer,
    official_settings,
    paper_optimizer,
    paper_settings,
)
from jaxnas.search.natural_gradient import adam_sng, asng, sng
from jaxnas.search.policy_gradient import reinforce
from jaxnas.search.uniform import random_search
from jaxnas.types import Searcher

SEARCHERS: Mapping[str, Callable[..., Searcher]] = {
    "asng": asng,
    "sng": sng,
    "adam_sng": adam_sng,
    "reinforce": reinforce,
    "random": random_search,
}
"""Makers of searchers by name: `SEARCHERS[name](space, **settings)`."""

__all__ = [
    "SEARCHERS",
    "ControllerSettings",
    "adam_sng",
    "asng",
    "controllers",
    "official_optimizer",
    "official_settings",
    "paper_optimizer",
    "paper_settings",
    "random_search",
    "reinforce",
    "sng",
    "tabular",
]
