"""The study of training images: as many updates whatever their number, and the gap that it compares."""

from pathlib import Path

import pytest

from benchmark.data.datasets import load
from benchmark.studies import data_size, training
from benchmark.studies.data_size import Setting
from benchmark.studies.study import Inputs
from benchmark.studies.training import BATCH


def test_every_training_makes_as_many_updates_and_the_gap_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load", lambda _, part, **__: load("digits", part, data_dir=Path()))
    monkeypatch.setattr(data_size, "SETTINGS", [Setting("mnist", "digits-cnn", 0.1, 1e-3, 1.0)])
    result = data_size.compute(Inputs(), train=640, test=40, updates=40)
    table = result.table
    assert table["train"].tolist() == [40, 40, 160, 160, 640, 640]
    assert [rows * epochs / BATCH for rows, epochs in zip(table["train"], table["epochs"], strict=True)] == [40.0] * 6
    cleans = table.set_index(["train", "defense"])["clean_acc"]
    gaps = [cleans[size, "natural"] - cleans[size, "madry"] for size in (40, 640)]
    assert result.comparisons[0].measured == pytest.approx(gaps[0] - gaps[1])
    assert f"on mnist {gaps[0]:.1f} points at 40 images" in result.sentence
    assert [axes.get_title() for axes in data_size.draw(table).axes][:1] == ["mnist"]
