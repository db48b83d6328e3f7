"""A log of architectures, which keeps what has been measured."""

import numpy as np
import pytest

from jaxnas import metrics

ARCHS = [np.array(arch, np.int32) for arch in ([0, 1], [2, 0], [1, 1])]


def make_measure(archs, measured):
    def measure(i):
        measured.append(archs[i].tolist())
        return {"accuracy": np.float32(archs[i][0]), "loss": float("nan")}

    return measure


def accuracies(lines):
    return [line["accuracy"] for line in lines]


def test_lines_belong_to_architectures_not_to_places(tmp_path):
    path, measured = tmp_path / "log.jsonl", []
    first = metrics.measure_missing(path, ARCHS[:2], make_measure(ARCHS, measured))
    assert accuracies(first) == [0, 2]
    assert np.isnan(first[0]["loss"])
    again = [ARCHS[2], ARCHS[1], ARCHS[0], ARCHS[2]]
    lines = metrics.measure_missing(path, again, make_measure(again, measured))
    assert accuracies(lines) == [1, 2, 0, 1]
    assert measured == [[0, 1], [2, 0], [1, 1]]
    # Those that are not asked for stay in the log.
    assert metrics.measure_missing(path, [], make_measure([], measured)) == []
    assert [line["arch"] for line in metrics.read(path)] == ["0,1", "2,0", "1,1"]


def test_what_a_kill_cuts_off_is_measured_again(tmp_path):
    path, measured = tmp_path / "log.jsonl", []

    def killed(i):
        if i == 2:
            raise KeyboardInterrupt
        return make_measure(ARCHS, measured)(i)

    with pytest.raises(KeyboardInterrupt):
        metrics.measure_missing(path, ARCHS, killed)
    with path.open("a") as file:
        file.write('{"step": 2, "arch": "1,')
    lines = metrics.measure_missing(path, ARCHS, make_measure(ARCHS, measured))
    assert accuracies(lines) == [0, 2, 1]
    assert measured == [[0, 1], [2, 0], [1, 1]]
    assert len(metrics.read(path)) == 3


def test_lines_that_lack_a_metric_are_measured_again(tmp_path):
    path = tmp_path / "log.jsonl"
    metrics.measure_missing(path, ARCHS[:2], lambda i: {"seed_0": i})

    def measure(i):
        return {"seed_0": i, "seed_1": 10 * i}

    for _ in range(2):
        lines = metrics.measure_missing(path, ARCHS, measure, needs=["seed_1"])
        assert [line["seed_1"] for line in lines] == [0, 10, 20]
    assert [line["step"] for line in metrics.read(path)] == [0, 1, 2, 3, 4]


def test_without_a_log(capsys):
    measured = []
    lines = metrics.measure_missing(
        None, ARCHS, make_measure(ARCHS, measured), description="rank"
    )
    assert accuracies(lines) == [0, 2, 1]
    assert "rank 3/3" in capsys.readouterr().out


def test_progress_only_where_there_is_work(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        metrics.measure_missing(
            path, ARCHS, make_measure(ARCHS, []), description="rank"
        )
    assert capsys.readouterr().out.count("rank 3/3") == 1


def test_a_line_without_an_architecture(tmp_path):
    path = tmp_path / "log.jsonl"
    metrics.append(path, 0, {"accuracy": 0.5})
    with pytest.raises(ValueError, match="line 1: has no architecture"):
        metrics.measure_missing(path, ARCHS, make_measure(ARCHS, []))
