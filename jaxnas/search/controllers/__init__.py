"""LSTM controllers: distributions over the architectures of a space.

Pham et al. (2018), section 2. A controller takes the decisions of an architecture in
turn and feeds each choice into the next. It walks a space in one way only: sampling,
scoring and greedy decoding differ in how a choice is made from logits. Loops over
layers and nodes are scans over padded anchors, so that programs stay small.
"""

from jaxnas.search.controllers._base import (
    Attention,
    Choose,
    Controller,
    Decision,
    Episode,
    Memory,
    decide,
    stack,
)
from jaxnas.search.controllers.macro import MacroController
from jaxnas.search.controllers.micro import MicroController
from jaxnas.search.controllers.policy import Policy, policy
from jaxnas.search.controllers.recurrent import RecurrentController
from jaxnas.search.controllers.sequence import SequenceController, make_controller
from jaxnas.search.controllers.settings import (
    ControllerSettings,
    official_optimizer,
    official_settings,
    paper_optimizer,
    paper_settings,
)

__all__ = [
    "Attention",
    "Choose",
    "Controller",
    "ControllerSettings",
    "Decision",
    "Episode",
    "MacroController",
    "Memory",
    "MicroController",
    "Policy",
    "RecurrentController",
    "SequenceController",
    "decide",
    "make_controller",
    "official_optimizer",
    "official_settings",
    "paper_optimizer",
    "paper_settings",
    "policy",
    "stack",
]
