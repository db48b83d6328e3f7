"""Every published preset against its source, value by value.

Sources: sections of the papers; files of the official repositories (melodyguan/enas,
shirakawas/ASNG-NAS, shuyao95/Understanding-NAS); "ours" where nothing is published.
"""

import importlib
from typing import Any, cast

import cifar_search
import pytest
import session

from jaxnas import search, spaces

MODULES = {
    name: importlib.import_module(f"presets.{name}")
    for name in (
        "cifar_search",
        "cifar_train",
        "ghn_correlation",
        "anytime_search",
        "cell_study",
    )
}

# What DARTS does in training, and ASNG-NAS, Shu et al. and the GHN presets with it.
DARTS_SGD = {"optimizer": "sgd", "momentum": 0.9, "clip_norm": 5.0}
CIFAR_CROPS = {"crop_padding": 4, "crop_fill": "black", "flip": True}

ASNG_SEARCH = [
    (
        "Akimoto et al. 2019, section 3.2",
        {"num_archs": 2, "num_weight_archs": None},
    ),
    (
        "main_classification.py, train.py",
        {
            **DARTS_SGD,
            **CIFAR_CROPS,
            **{"cutout": 16, "epochs": 100, "batch_size": 64, "learning_rate": 0.025},
            **{"schedule": "cosine", "weight_decay": 3e-4, "warmup_epochs": 0},
            **{"searcher_steps": None, "objective": "loss", "augment_validation": True},
            **{"batch_per_arch": False, "validation_images": None},
        },
    ),
    (
        "cnn_model_micro.py",
        {
            **{"space": "micro", "skeleton": "asng", "channels": 16, "num_cells": 8},
            **{"num_nodes": 5, "dropout": 0.0, "weights": "shared"},
        },
    ),
]

ENAS_SEARCH = [
    (
        "Pham et al. 2018, section 3.2",
        {
            **{"optimizer": "nesterov", "learning_rate": 0.05, "epochs": 310},
            **{"min_learning_rate": 0.001, "schedule": "restarts"},
            "by_epoch": False,
            **{"controller": "paper", "controller_learning_rate": None},
            **{"entropy_weight": None, "warmup_epochs": 0},
        },
    ),
    (
        "the paper's l2 of 1e-4 as get_train_ops of utils.py has it: l2 * sum(w ** 2), "
        "whose gradient is 2 * l2 * w",
        {"weight_decay": 2 * 1e-4},
    ),
    (
        "utils.py: momentum; the clipped gradients are not used",
        {"momentum": 0.9, "clip_norm": 0.0},
    ),
    (
        "models.py: crops are padded after normalization; scripts: no CutOut",
        {"crop_padding": 4, "crop_fill": "mean", "flip": True, "cutout": 0},
    ),
    (
        "main.py, micro_controller.py: rewards on batches of 5,000 images as they are",
        {
            **{"searcher": "reinforce", "objective": "error", "batch_per_arch": True},
            **{"validation_images": 5000, "augment_validation": False},
            **{"num_weight_archs": 1, "weights": "shared"},
        },
    ),
    (
        "ours: the paper compares fewer, by one batch each (section 2.2)",
        {"select": "best", "num_candidates": 1000, "screening_images": 0},
    ),
]

ENAS_TRAINING = [
    (
        "Pham et al. 2018, section 3.2",
        {
            **{"optimizer": "nesterov", "learning_rate": 0.05},
            **{"min_learning_rate": 0.001, "schedule": "restarts", "warmup_epochs": 0},
            "by_epoch": False,
        },
    ),
    (
        "the paper's l2 of 1e-4 as get_train_ops of utils.py has it: l2 * sum(w ** 2)",
        {"weight_decay": 2 * 1e-4},
    ),
    (
        "utils.py: momentum; the clipped gradients are not used",
        {"momentum": 0.9, "clip_norm": 0.0},
    ),
    (
        "models.py: crops are padded after normalization",
        {"crop_padding": 4, "crop_fill": "mean", "flip": True},
    ),
]

SHU_TRAINING = [
    (
        "train_cifar10.py, train_cifar100.py, train_imagenet_tiny.py",
        {
            **DARTS_SGD,
            **CIFAR_CROPS,
            **{"batch_size": 80, "learning_rate": 0.025, "schedule": "cosine"},
            **{"weight_decay": 3e-4, "warmup_epochs": 0, "auxiliary_weight": 0.4},
            **{"channels": 36, "num_cells": 20},
        },
    )
]
SHU_FIGURES = [
    *SHU_TRAINING,
    (
        "Shu et al. 2020, section 4 and appendix A.3; tools/train_sota_rand.sh",
        {
            **{"cutout": 0, "auxiliary": False, "drop_path": 0.0, "epochs": 600},
            **{"learning_rates": (0.025, 0.25, 0.0025), "stem_stride": 1},
            **{"study": "all", "genotype": "DARTS_V2", "num_seeds": 1},
        },
    ),
    (
        "figures 17 and 22 (test images, planes from -1 to 1); defaults of "
        "tomgoldstein/loss-landscape (points, seed of the directions)",
        {
            **{"split": "test", "radius": 1.0, "resolution": 51},
            **{"direction_seed": 123, "num_surfaces": 1},
        },
    ),
    (
        "ours: three variants of each width, whose seeds are not published; single "
        "images for gradients",
        {
            "variants": tuple(
                f"conn{seed}" for seed in (2, 13, 14, 1, 5, 6, 3, 7, 9, 4, 10, 16)
            ),
            "gradient_batch_size": 1,
        },
    ),
]
SHU_TABLE = [
    *SHU_TRAINING,
    (
        "Shu et al. 2020, section 5; tools/train_sota.sh",
        {
            **{"study": "convergence", "variants": ("adapt",), "cutout": 16},
            **{"auxiliary": True, "drop_path": 0.2},
        },
    ),
]

GHN = [
    (
        "Zhang et al. 2019, section 5.1 and appendix",
        {
            **{"hidden_size": 32, "num_steps": 5, "propagation": "forward_backward"},
            **{"share_blocks": True, "decoder_size": 64},
            **{"fan_in_scaling": False, "layer_norm": False, "virtual_edges": None},
            **{"weight_penalty": 0.0, "epochs": 200, "batch_size": 64},
            **{"learning_rate": 1e-3, "validation_images": 5000},
        },
    ),
    (
        "ours: augmentation without cutout, limit of the gradient",
        {**CIFAR_CROPS, "cutout": 0, "clip_norm": 5.0},
    ),
    (
        "ours: the paper passes embeddings (section 4.2) and serves all numbers of "
        "channels (appendix), but does not say how",
        {"pass_embeddings": "every_phase", "tile": None},
    ),
]
GHN_TRAINING = [
    (
        "Zhang et al. 2019, appendix",
        {
            **{"optimizer": "sgd", "momentum": 0.9, "auxiliary": True},
            **{"auxiliary_weight": 0.5, "drop_path": 0.4, "drop_path_growth": "step"},
        },
    ),
    ("ours: not published", {"clip_norm": 5.0, "dropout": 0.0, "warmup_epochs": 0}),
]

# For each preset its sources, and the values that each of them is the source of.
PUBLISHED = {
    ("cifar_search", "asng-cifar10"): [
        *ASNG_SEARCH,
        (
            "Akimoto et al. 2019, section 3.2: the most likely one",
            {"searcher": "asng", "select": "mode"},
        ),
        ("README.md: the defaults of ASNG", {"alpha": 1.5, "init_delta": 1.0}),
    ],
    ("cifar_search", "random-cifar10"): [
        *ASNG_SEARCH,
        ("ours", {"searcher": "random", "select": "best", "num_candidates": 1000}),
    ],
    ("cifar_search", "enas-micro-cifar10"): [
        *ENAS_SEARCH,
        (
            "cifar10_micro_search.sh",
            {
                **{
                    "space": "micro",
                    "skeleton": "enas",
                    "channels": 20,
                    "num_cells": 8,
                },
                **{"num_nodes": 5, "dropout": 0.1, "batch_size": 160},
                **{"num_archs": 10, "searcher_steps": 30},
            },
        ),
    ],
    ("cifar_search", "enas-macro-cifar10"): [
        *ENAS_SEARCH,
        (
            "cifar10_macro_search.sh",
            {
                **{"space": "macro", "channels": 36, "num_layers": 12, "dropout": 0.1},
                **{"batch_size": 128, "num_archs": 20, "searcher_steps": 50},
            },
        ),
        ("Pham et al. 2018, section 2.3", {"skips": "concat"}),
    ],
    ("cifar_search", "ghn-cifar10"): [
        *GHN,
        (
            "Zhang et al. 2019, sections 5.1 and 5.2, appendix",
            {
                **{"space": "dag", "weights": "ghn", "searcher": "random"},
                **{"optimizer": "adam", "schedule": "steps", "decay": 0.5},
                **{"decay_at": (100, 150), "num_train_nodes": 7, "num_nodes": 17},
                **{"num_candidates": 1000, "select": "trained", "node_input": "each"},
                **{"channels": 32, "num_cells": 18},
            },
        ),
        (
            "section 5.1: ranked by the accuracy on all 5,000 validation images",
            {"objective": "error", "screening_images": 0},
        ),
        (
            "ours: how long the best ones are trained",
            {"top_k_epochs": 10, "top_k_learning_rate": 0.025},
        ),
        (
            "ours: one block in a step, batches of the validation images in the search",
            {
                **{"num_archs": 1, "shard": "archs", "searcher_steps": 20},
                **{"augment_validation": False, "batch_per_arch": True},
            },
        ),
    ],
    ("cifar_train", "asng-cifar10"): [
        (
            "main_classification.py, train.py, cnn_model_micro.py",
            {
                **DARTS_SGD,
                **CIFAR_CROPS,
                **{"cutout": 16, "epochs": 600, "batch_size": 80},
                **{"learning_rate": 0.025, "schedule": "cosine", "weight_decay": 3e-4},
                **{"network": "nasnet", "channels": None, "params_limit": 4_000_000},
                **{"num_cells": 20, "cell_output": "projection", "dropout": 0.0},
                **{"count_include_pad": True, "auxiliary": True},
                **{"auxiliary_weight": 0.4, "drop_path": 0.3, "stem_stride": 1},
                **{"drop_path_growth": "epoch", "warmup_epochs": 0},
            },
        )
    ],
    ("cifar_train", "enas-micro-cifar10"): [
        *ENAS_TRAINING,
        (
            "cifar10_micro_final.sh, micro_child.py",
            {
                **{"network": "enas", "channels": 36, "num_cells": 15 + 2},
                **{"epochs": 630, "batch_size": 144, "dropout": 0.2},
                **{"auxiliary": True, "auxiliary_weight": 0.4, "drop_path": 0.4},
                **{"drop_path_growth": "step", "cell_output": "concat"},
                **{"count_include_pad": False, "stem_stride": 1},
            },
        ),
        ("ours: the paper has CutOut, of a size that is not published", {"cutout": 16}),
    ],
    ("cifar_train", "enas-macro-cifar10"): [
        *ENAS_TRAINING,
        (
            "cifar10_macro_final.sh",
            {
                **{"network": "macro", "channels": 96, "epochs": 310},
                **{"batch_size": 100, "dropout": 0.5, "cutout": 0},
            },
        ),
        ("Pham et al. 2018, section 2.3", {"separable": True}),
    ],
    ("cifar_train", "ghn-cifar10"): [
        *GHN_TRAINING,
        (
            "Zhang et al. 2019, appendix",
            {
                **{"network": "dag", "channels": 32, "num_cells": 18, "epochs": 600},
                **{"batch_size": 64, "learning_rate": 0.025, "schedule": "cosine"},
            },
        ),
        (
            "ours: weight decay as DARTS, size of the cutout",
            {**CIFAR_CROPS, "cutout": 16, "weight_decay": 3e-4},
        ),
    ],
    ("cifar_train", "ghn-imagenet"): [
        *GHN_TRAINING,
        (
            "Zhang et al. 2019, appendix (600 million multiply-adds)",
            {
                **{"network": "dag-imagenet", "dataset": "imagenet", "image_size": 224},
                **{"num_cells": 14, "epochs": 250, "learning_rate": 0.1},
                **{"schedule": "exponential", "decay": 0.97, "channels": None},
                **{"flops_limit": 2 * 600_000_000},
            },
        ),
        (
            "ours: batch and weight decay as DARTS, crops of random sizes",
            {
                **{"batch_size": 128, "weight_decay": 3e-5, "crop_padding": 0},
                **{"flip": True, "cutout": 0},
            },
        ),
    ],
    ("ghn_correlation", "ghn-cifar10"): [
        *GHN,
        (
            "Zhang et al. 2019, section 4.3 and table 4",
            {
                "sgd_steps": (10, 100, 200, 1000),
                **{"num_architectures": 100, "num_nodes": 17, "standalone_epochs": 50},
                **{"num_train_nodes": 7, "halved_at": (100, 150), "channels": 32},
                **{"num_blocks": 18, "node_input": "each"},
                **{"standalone_seeds": 1, "ghn_seeds": 1, "one_shot_seeds": 1},
            },
        ),
        (
            "ours: SGD as for final networks, shared weights trained as long as the "
            "hypernetwork",
            {
                **{"sgd_learning_rate": 0.025, "momentum": 0.9, "weight_decay": 3e-4},
                "one_shot_epochs": 200,
                **{"meta_batch": 1, "num_resamples": 2000},
            },
        ),
    ],
    ("anytime_search", "ghn-anytime-cifar10"): [
        *GHN,
        (
            "Zhang et al. 2019, section 4.2 and appendix",
            {
                **{"num_nodes": (24, 16, 8), "num_exits": (2, 4, 4)},
                **{"final_epochs": 300, "final_learning_rate": 0.1, "momentum": 0.9},
                **{"num_random": 10, "final_seeds": 1},
            },
        ),
        (
            "ours: read off figures 3 and 7 to 9",
            {"budget": 1.4e8, "density": 0.45},
        ),
        (
            "ours: weight decay of MSDNet, candidates as in the search for "
            "classification",
            {
                **{"weight_decay": 1e-4, "num_candidates": 1000, "channels": 16},
                **{"min_nodes": (2, 4, 4), "meta_batch": 1},
            },
        ),
    ],
    ("cell_study", "shu-cifar10"): [
        *SHU_FIGURES,
        ("section 4", {"dataset": "cifar10"}),
    ],
    ("cell_study", "shu-cifar100"): [
        *SHU_FIGURES,
        ("section 4", {"dataset": "cifar100"}),
    ],
    ("cell_study", "shu-table-cifar10"): [
        *SHU_TABLE,
        ("table 1", {"dataset": "cifar10", "epochs": 600, "stem_stride": 1}),
    ],
    ("cell_study", "shu-table-cifar100"): [
        *SHU_TABLE,
        ("table 1", {"dataset": "cifar100", "epochs": 600, "stem_stride": 1}),
    ],
    ("cell_study", "shu-table-tiny-imagenet"): [
        *SHU_TABLE,
        (
            "table 1; train_imagenet_tiny.py, model.py",
            {"dataset": "tiny_imagenet200", "epochs": 300, "stem_stride": 2},
        ),
    ],
}


def test_every_published_preset_has_a_row():
    names = {
        (command, preset)
        for command, module in MODULES.items()
        for preset in module.PRESETS
        if not preset.startswith("quick") and preset != "folder"
    }
    assert set(PUBLISHED) == names


@pytest.mark.parametrize(("command", "preset"), PUBLISHED)
def test_values_are_those_of_their_source(command, preset):
    config = session.flags(MODULES[command].PRESETS[preset].config)
    known = set()
    for source, values in PUBLISHED[command, preset]:
        actual = {name: config[name] for name in values}
        assert actual == values, source
        assert known.isdisjoint(values), f"{known & set(values)} have two sources"
        known |= set(values)
    defaults = session.flags(MODULES[command].Config())
    changed = {name for name in config if config[name] != defaults.get(name)}
    assert changed <= known, f"{changed - known} have no source"


# What the docstrings say of the official scripts: flags, and what they are in there.
SCRIPTS = {
    ("cifar_search", "enas-micro-cifar10"): {
        "--controller script": "script",
        "--epochs 150": 150,
        "--min-learning-rate 0.0005": 0.0005,
        "--by-epoch": True,
        "--weight-decay 0.0002": 2 * 1e-4,
    },
    ("cifar_search", "enas-macro-cifar10"): {
        "--controller script": "script",
        "--epochs 310": 310,
        "--min-learning-rate 0.0005": 0.0005,
        "--by-epoch": True,
        "--skips add": "add",
        "--weight-decay 0.0005": 2 * 2.5e-4,
    },
    ("cifar_train", "enas-micro-cifar10"): {
        "--min-learning-rate 0.0001": 0.0001,
        "--by-epoch": True,
        "--weight-decay 0.0004": 2 * 2e-4,
    },
    ("cifar_train", "enas-macro-cifar10"): {
        "--min-learning-rate 0.001": 0.001,
        "--no-separable": False,
        "--by-epoch": True,
        "--weight-decay 0.0004": 2 * 2e-4,
    },
}


@pytest.mark.parametrize(("command", "preset"), SCRIPTS)
def test_docstrings_tell_the_values_of_the_scripts(command, preset):
    presets = MODULES[command].PRESETS
    described = " ".join(presets[preset].about.split())
    config = session.flags(presets[preset].config)
    for flag, value in SCRIPTS[command, preset].items():
        name = flag.split()[0].removeprefix("--no-").removeprefix("--")
        name = name.replace("-", "_")
        if config[name] == value:
            continue  # as in the paper
        assert flag in described
        argv = ["--preset", preset, *flag.split()]
        _, changed = session.parse(presets, None, argv)
        assert session.flags(changed)[name] == value


@pytest.mark.parametrize(
    ("preset", "space"),
    [
        ("enas-micro-cifar10", spaces.enas_micro()),
        ("enas-macro-cifar10", spaces.enas_macro()),
    ],
)
def test_controllers_of_searches(monkeypatch, preset, space):
    for name in ("reinforce", "paper_optimizer", "official_optimizer"):
        monkeypatch.setattr(search, name, lambda *_, name=name, **given: (name, given))
    presets = MODULES["cifar_search"].PRESETS

    def make(*flags) -> Any:
        _, config = session.parse(presets, None, ["--preset", preset, *flags])
        _, made = cast(Any, cifar_search.make_searcher(config, space))
        return made["settings"], made["optimizer"]

    settings, optimizer = make()
    assert optimizer == ("paper_optimizer", {})
    assert settings == search.paper_settings(space)
    # Sections 2.2 and 3.2.
    assert (settings.hidden_size, settings.entropy_weight) == (100, 0.1)
    _, optimizer = make("--controller-learning-rate", "0.01")
    assert optimizer == ("paper_optimizer", {"learning_rate": 0.01})
    settings, optimizer = make("--controller", "script", "--entropy-weight", "0.5")
    assert optimizer == ("official_optimizer", {"learning_rate": None})
    assert settings == search.official_settings(space)._replace(entropy_weight=0.5)
