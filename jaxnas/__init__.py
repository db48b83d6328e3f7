"""Neural architecture search in JAX.

Supernets are pure functions `apply(weights, arch, inputs)`; where the weights come
from (shared by all architectures, or generated for one) is up to a weight provider.
Modules load when they are first used.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "analysis",
    "checkpoint",
    "data",
    "genotypes",
    "ghn",
    "loggers",
    "metrics",
    "networks",
    "ops",
    "optim",
    "parallel",
    "report",
    "search",
    "spaces",
    "studies",
    "supernets",
    "train",
    "types",
    "weights",
    "workdir",
)


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"jaxnas.{name}")
    raise AttributeError(f"module 'jaxnas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
