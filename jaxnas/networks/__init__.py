"""Flax networks of one fixed architecture, for training from scratch.

Trained ones are saved and loaded (`save`, `load`), predict classes (`predict`), and
become programs that need JAX only (`export`).
"""

from jaxnas.networks.anytime_network import AnytimeNetwork, anytime
from jaxnas.networks.autoencoder_network import AutoencoderNetwork, autoencoder
from jaxnas.networks.conversion import params_from_supernet
from jaxnas.networks.dag_network import DagNetwork, dag
from jaxnas.networks.files import FILE_NAME, TrainedNetwork, load, register, save
from jaxnas.networks.macro_network import MacroNetwork, macro
from jaxnas.networks.micro_network import MicroNetwork, edge_sources, micro
from jaxnas.networks.prediction import PLATFORMS, export, make_predict_fn, predict
from jaxnas.networks.recurrent_network import RecurrentNetwork, recurrent
from jaxnas.networks.residual_network import ResidualNetwork, residual
from jaxnas.networks.size import (
    Cost,
    channels_for_budget,
    channels_for_flops,
    cost,
    count_params,
)
from jaxnas.networks.speed import Speed, measure_speed
from jaxnas.networks.stacking import num_batch_dims

__all__ = [
    "FILE_NAME",
    "PLATFORMS",
    "AnytimeNetwork",
    "AutoencoderNetwork",
    "Cost",
    "DagNetwork",
    "MacroNetwork",
    "MicroNetwork",
    "RecurrentNetwork",
    "ResidualNetwork",
    "Speed",
    "TrainedNetwork",
    "anytime",
    "autoencoder",
    "channels_for_budget",
    "channels_for_flops",
    "cost",
    "count_params",
    "dag",
    "edge_sources",
    "export",
    "load",
    "macro",
    "make_predict_fn",
    "measure_speed",
    "micro",
    "num_batch_dims",
    "params_from_supernet",
    "predict",
    "recurrent",
    "register",
    "residual",
    "save",
]
