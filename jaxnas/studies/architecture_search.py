"""An architecture search from the first step to the comparison that counts.

Weights and searcher are trained, candidates ranked with the weights of the search, and
the found architecture and random ones trained from scratch with one budget.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnas import (
    _files,
    analysis,
    data,
    genotypes,
    ghn,
    networks,
    optim,
    train,
    weights,
)
from jaxnas import search as searchers
from jaxnas.studies.images import StudyImages
from jaxnas.types import (
    Key,
    Params,
    Searcher,
    SearchSpace,
    Supernet,
    WeightProvider,
)


class TrainingBudget(NamedTuple):
    """Training from scratch by SGD with momentum and one cosine of the learning rate.

    Attributes:
      num_epochs: passes through the images.
      learning_rate: the first of the cosine.
      num_seeds: trainings of each architecture.
    """

    num_epochs: int
    learning_rate: float = 0.025
    num_seeds: int = 1


class Selection(NamedTuple):
    """Selection of the result of a search, and the comparison with random ones.

    Attributes:
      select: `"mode"`, the architecture that the searcher holds most likely; `"best"`,
        the candidate that the validation images rank first; or `"trained"`, the best
        candidate after a training from scratch.
      num_candidates: architectures that the searcher samples in the end, to be ranked.
      num_screening_images: validation images that all candidates are ranked by before
        the best ten are ranked by all of them; all images at once if `None`.
      top_k: training of the candidates that ranked best, for `"trained"`.
      num_random: random architectures evaluated with the weights of the search.
      scratch: training of the found and of random architectures; none if `None`.
      num_scratch_random: how many random ones, at least 2.
    """

    select: Literal["mode", "best", "trained"] = "mode"
    num_candidates: int = 20
    num_screening_images: int | None = 1000
    top_k: TrainingBudget = TrainingBudget(10)
    num_random: int = 8
    scratch: TrainingBudget | None = None
    num_scratch_random: int = 8


class Candidate(NamedTuple):
    """An architecture and what is known about it.

    Attributes:
      name: how reports call it.
      genotype: the architecture.
      loss: mean loss; lower is better.
      accuracy: a fraction.
      num_params: number of trainable parameters.
      flops: floating-point operations for one example.
      trained_accuracy: after a short training from scratch, if there was one.
    """

    name: str
    genotype: genotypes.AnyGenotype
    loss: float
    accuracy: float
    num_params: int
    flops: float
    trained_accuracy: float | None = None


class ScratchComparison(NamedTuple):
    """Test accuracies of architectures trained from scratch with one budget.

    Attributes:
      num_epochs: length of each training.
      found: fractions `[num_seeds]`, of the found architecture.
      random: `[num_archs][num_seeds]`, of random ones of the same space.
      difference: mean of the found one minus that of the random ones.
    """

    num_epochs: int
    found: Sequence[float]
    random: Sequence[Sequence[float]]
    difference: analysis.Difference


class SearchStudy(NamedTuple):
    """The result of a search.

    Attributes:
      found: the found architecture, with its loss and accuracy on the test images and
        the weights of the search.
      top: the best candidates, by the validation images, best first.
      random: random architectures, as `found`.
      sampled_accuracies: of the last candidates that the searcher sampled, as `found`.
      scratch: the comparison after training from scratch, if one was asked for.
      params: trained parameters of the weight provider.
    """

    found: Candidate
    top: list[Candidate]
    random: list[Candidate]
    sampled_accuracies: list[float]
    scratch: ScratchComparison | None
    params: Params


def search(
    net: Supernet,
    searcher: Searcher,
    optimizer: optax.GradientTransformation,
    images: StudyImages,
    settings: train.SearchSettings,
    selection: Selection,
    *,
    key: Key,
    make_network: Callable[[Any], nn.Module],
    make_provider: Callable[[Supernet], WeightProvider] = weights.shared,
    train_net: Supernet | None = None,
    test_while_searching: bool = True,
    epoch_metrics: Callable[[Params], dict[str, float]] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    scratch_dir: str | os.PathLike[str] | None = None,
) -> SearchStudy:
    """Search for an architecture, and compare what was found with random ones.

    Losses and accuracies with the weights of the search only rank architectures: the
    weights were trained for what the searcher sampled, so that they say nothing about
    the searcher. The comparison that can fail is `Selection.scratch`.

    Args:
      net: the supernet whose architectures are searched.
      searcher: what proposes architectures of `train_net`.
      optimizer: for the provider's parameters.
      images: training, validation and test images.
      settings: how weights and searcher learn.
      selection: how the result is selected, and what it is compared with.
      key: determines everything random.
      make_network: `genotype -> network` with weights of its own, whose parameters and
        operations are reported.
      make_provider: `supernet -> provider` of its weights, whose parameters must fit
        both `net` and `train_net`.
      train_net: the supernet that weights are trained with, if not `net`. Candidates
        are then random architectures of `net`.
      test_while_searching: whether the most likely architecture is evaluated on the
        test images after each epoch, for the log only.
      epoch_metrics: `params -> metrics` for the log line of each epoch.
      workdir: folder of the run, with which an interrupted one continues. It gets
        `genotype.json`, `candidates.json`, `scratch.json`, the logs and checkpoints,
        and `ghn.npz` with the parameters of a hypernetwork.
      scratch_dir: folder of the trainings from scratch, which searches of one space can
        share; `scratch` in `workdir` if `None`.

    Returns:
      The result.

    Raises:
      ValueError: if `num_scratch_random` is less than 2, or as `train.search` does.
      Diverged: if the training loss of the search stops being finite.
      Interrupted: after a signal, with a folder; the state has been saved.

    Example:
      >>> from jaxnas import data, networks, optim, search, spaces, studies, supernets
      >>> images = studies.study_images(
      ...     data.load("digits"), num_validation=750, batch_size=32, flip=False
      ... )
      >>> space = spaces.enas_micro(num_nodes=5)
      >>> net = supernets.micro(space, 8, num_cells=3, num_classes=10, image_channels=1)
      >>> study = studies.search(  # doctest: +SKIP
      ...     net,
      ...     search.asng(space),
      ...     optim.sgd(optim.cosine_by_epoch(0.025, 40, 23)),
      ...     images,
      ...     studies.SearchSettings(num_epochs=40),
      ...     studies.Selection(),
      ...     key=jax.random.key(0),
      ...     make_network=lambda genotype: networks.micro(genotype, 8, 3, 10),
      ... )
    """
    if selection.scratch is not None and selection.num_scratch_random < 2:
        raise ValueError(
            f"num_scratch_random is {selection.num_scratch_random}; expected at least 2"
        )
    train_net = net if train_net is None else train_net
    folder = None if workdir is None else pathlib.Path(workdir)
    search_key, key = jax.random.split(key)
    train_provider = make_provider(train_net)
    result = train.search(
        train_net,
        train_provider,
        searcher,
        train.classification(),
        optimizer,
        images.splits,
        images.pipeline,
        settings,
        key=search_key,
        test=images.dataset.test if test_while_searching else None,
        workdir=folder,
        epoch_metrics=epoch_metrics,
    )
    params = result.state.weights.params
    provider = train_provider if net is train_net else make_provider(net)
    if folder is not None and provider.settings is not None:
        ghn.save(folder / "ghn.npz", params, provider)
    evaluate = functools.partial(
        train.make_eval_fn(net, provider, train.classification(), images.pipeline),
        params,
    )
    image_shape = images.dataset.train.image_shape

    @functools.cache
    def cost(genotype: Any) -> networks.Cost:
        return networks.cost(make_network(genotype), image_shape)

    def candidate(name: str, arch: Any, means, trained=None) -> Candidate:
        genotype = net.space.decode(arch)
        loss, accuracy = means["loss"], means["accuracy"]
        return Candidate(name, genotype, loss, accuracy, *cost(genotype), trained)

    print("ranking candidates by the validation images", flush=True)
    ask_key, random_key, top_k_key, scratch_key = jax.random.split(key, 4)
    if net is train_net:
        sampled = searcher.ask(result.state.searcher, ask_key, selection.num_candidates)
        candidates = [result.arch, *sampled]
    else:
        sampler = searchers.random_search(net.space)
        state = sampler.init(ask_key)
        candidates = [*sampler.ask(state, ask_key, selection.num_candidates)]
    ranked = train.rank(
        evaluate,
        candidates,
        images.splits.validation,
        objective=settings.objective,
        num_screening_images=selection.num_screening_images,
        workdir=folder,
    )
    found: Any = result.arch if selection.select == "mode" else ranked[0].arch
    trained: list[float | None] = [None] * len(ranked)
    if selection.select == "trained":
        accuracies = _train_top_k(
            net, images, selection.top_k, ranked, top_k_key, folder
        )
        found = ranked[accuracies.index(max(accuracies))].arch
        trained = [*accuracies]
    top = [
        candidate(
            "found" if (entry.arch == found).all() else f"candidate {entry.position}",
            entry.arch,
            entry.metrics,
            accuracy,
        )
        for entry, accuracy in zip(ranked, trained, strict=True)
    ]
    num_scratch_random = selection.num_scratch_random if selection.scratch else 0
    random_archs = random_architectures(
        net.space, random_key, max(selection.num_random, num_scratch_random)
    )
    test = images.dataset.test
    found_on_test = candidate("found", found, evaluate(jnp.asarray(found), test))
    random = [
        candidate(f"random {i + 1}", arch, evaluate(arch, test))
        for i, arch in enumerate(random_archs[: selection.num_random])
    ]
    # As many as random ones, so that the searcher is seen beside its best.
    sampled_accuracies = [
        evaluate(arch, test)["accuracy"] for arch in candidates[-selection.num_random :]
    ]
    if folder is not None:
        genotypes.save(folder / "genotype.json", found_on_test.genotype)
    scratch = None
    if selection.scratch is not None:
        if scratch_dir is None and folder is not None:
            scratch_dir = folder / "scratch"
        scratch = _compare_from_scratch(
            net,
            images,
            selection.scratch,
            found,
            random_archs[:num_scratch_random],
            scratch_key,
            scratch_dir,
        )
    if folder is not None:
        rows = [
            entry._asdict() | {"genotype": genotypes.to_dict(entry.genotype)}
            for entry in top
        ]
        _files.write_json(folder / "candidates.json", rows, indent=1)
        if scratch is not None:
            _files.write_json(folder / "scratch.json", scratch._asdict(), indent=1)
    return SearchStudy(found_on_test, top, random, sampled_accuracies, scratch, params)


def random_architectures(space: SearchSpace, key: Key, num: int) -> list[Any]:
    """Random architectures; of a larger number, the first are the same."""
    sample = jax.jit(lambda i: space.sample(jax.random.fold_in(key, i)))
    return [np.asarray(sample(i)) for i in range(num)]


def _train_top_k(
    net: Supernet,
    images: StudyImages,
    budget: TrainingBudget,
    ranked: Sequence[train.Ranked],
    key: Key,
    folder: pathlib.Path | None,
) -> list[float]:
    """Train the best candidates from scratch; their validation accuracies, in order."""
    print("training the best candidates from scratch", flush=True)
    results = _train_from_scratch(
        net,
        images,
        images.splits.train,
        images.splits.validation,
        budget,
        [entry.arch for entry in ranked],
        key,
        None if folder is None else folder / "top-k",
    )
    accuracies = [np.mean([line["accuracy"] for line in lines]) for lines in results]
    for i, accuracy in enumerate(accuracies, start=1):
        print(f"top candidate {i} of {len(ranked)}: validation accuracy {accuracy:.1%}")
    return [float(accuracy) for accuracy in accuracies]


def _compare_from_scratch(
    net: Supernet,
    images: StudyImages,
    budget: TrainingBudget,
    found: Any,
    random: Sequence[Any],
    key: Key,
    workdir: str | os.PathLike[str] | None,
) -> ScratchComparison:
    """Train the found and random architectures on all training images."""
    print(
        f"training the found and {len(random)} random architectures from scratch, "
        f"{budget.num_seeds} seeds each",
        flush=True,
    )
    dataset = images.dataset
    results = _train_from_scratch(
        net,
        images,
        dataset.train,
        dataset.test,
        budget,
        [found, *random],
        key,
        workdir,
    )
    accuracies = [[line["accuracy"] for line in lines] for lines in results]
    return ScratchComparison(
        budget.num_epochs,
        accuracies[0],
        accuracies[1:],
        analysis.difference_from_random(accuracies[0], accuracies[1:]),
    )


def _train_from_scratch(
    net: Supernet,
    images: StudyImages,
    train_split: data.Split,
    test_split: data.Split,
    budget: TrainingBudget,
    archs: Sequence[Any],
    key: Key,
    workdir: str | os.PathLike[str] | None,
) -> list[list[dict[str, float]]]:
    """`train.train_standalone` with a budget."""
    steps_per_epoch = train_split.num_images // images.pipeline.batch_size
    schedule = optim.cosine_by_epoch(
        budget.learning_rate, budget.num_epochs, steps_per_epoch
    )
    return train.train_standalone(
        net,
        train.classification(),
        optim.sgd(schedule),
        train_split,
        test_split,
        archs,
        images.pipeline,
        key=key,
        num_seeds=budget.num_seeds,
        num_steps=budget.num_epochs * steps_per_epoch,
        workdir=workdir,
    )
