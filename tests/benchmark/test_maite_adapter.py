"""The adapter to maite's protocols gives the verdicts of `attacks.attack`, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attacks import attack
from attacks.errors import InputError
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.maite_adapter import MaiteAttack, MaiteModel
from model_zoo.architectures.digits_cnn import DigitsCNN
from model_zoo.registry import SHIPPED
from model_zoo.weights.checkpoint import load_state_dict


@pytest.fixture(scope="module")
def model() -> DigitsCNN:
    model = DigitsCNN().eval()
    model.load_state_dict(load_state_dict(SHIPPED / "digits/madry.safetensors"))
    return model


@pytest.fixture(scope="module")
def split() -> Split:
    return balanced_subset(load("digits", "test", data_dir=Path("unused")), 40, seed=0)


def batch(split: Split, rows: slice) -> tuple[list[np.ndarray], list[np.ndarray], list[dict[str, object]]]:
    images, one_hot = split.x[rows].numpy(), np.eye(10)[split.y[rows]]
    return list(images), list(one_hot), [{"id": f"digit-{i}"} for i in split.index[rows].tolist()]


def test_an_attack_as_an_augmentation_gives_its_verdicts_and_its_images(model: DigitsCNN, split: Split) -> None:
    adversary = MaiteAttack(model, "pgd-20", epsilon=0.2)
    images, targets, metadata = adversary(batch(split, slice(0, 40)))
    found = attack(model, split.x, split.y, "pgd-20", epsilon=0.2)
    assert [datum["correct"] for datum in metadata] == found.correct.tolist()
    robust = sum(bool(datum["robust"]) for datum in metadata)
    assert 0 < robust < 40
    assert np.abs(np.stack(images) - split.x.numpy()).max() <= 0.2 + 1e-6
    answered = np.argmax(MaiteModel(model)(images), axis=1)
    assert int((answered == split.y.numpy()).sum()) == robust
    np.testing.assert_array_equal(np.stack([np.asarray(target) for target in targets]).argmax(1), split.y)


def test_what_shares_a_batch_changes_no_verdict(model: DigitsCNN, split: Split) -> None:
    adversary = MaiteAttack(model, "pgd-20", epsilon=0.2)
    whole = adversary(batch(split, slice(0, 40)))
    parts = [adversary(batch(split, part)) for part in (slice(0, 15), slice(15, 40))]
    assert whole[2] == [*parts[0][2], *parts[1][2]]


def test_probabilities_are_those_of_the_model(model: DigitsCNN, split: Split) -> None:
    probabilities = MaiteModel(model, "madry")(batch(split, slice(0, 5))[0])
    with torch.no_grad():
        np.testing.assert_allclose(np.stack(probabilities), model(split.x[:5]).softmax(1).numpy())


def test_images_in_grey_levels_are_refused(model: DigitsCNN, split: Split) -> None:
    images, targets, metadata = batch(split, slice(0, 5))
    with pytest.raises(InputError):
        MaiteAttack(model, "pgd-20", epsilon=0.2)(([255 * image for image in images], targets, metadata))


class Digits:
    """A dataset by maite's protocol."""

    def __init__(self, split: Split) -> None:
        self.metadata = {"id": "digits"}
        self.rows = list(zip(*batch(split, slice(0, len(split.y))), strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int, /) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
        return self.rows[place]


class Right:
    """A metric by maite's protocol: how many images are classified correctly, and what the metadata say of them."""

    def __init__(self) -> None:
        self.metadata = {"id": "right"}
        self.reset()

    def reset(self) -> None:
        self.counts = {"right": 0, "robust": 0}

    def update(
        self, predictions: list[np.ndarray], targets: list[np.ndarray], told: list[dict[str, object]], /
    ) -> None:
        rows = zip(predictions, targets, strict=True)
        self.counts["right"] += sum(int(np.argmax(one) == np.argmax(target)) for one, target in rows)
        self.counts["robust"] += sum(bool(datum.get("robust")) for datum in told)

    def compute(self) -> dict[str, int]:
        return self.counts


def test_they_meet_the_protocols_of_maite_and_its_evaluation_counts_what_attack_says(
    model: DigitsCNN, split: Split
) -> None:
    reason = "needs maite: pip install maite"
    protocols = pytest.importorskip("maite.protocols.image_classification", reason=reason)
    tasks = pytest.importorskip("maite.tasks", reason=reason)
    classifier, adversary, metric = MaiteModel(model), MaiteAttack(model, "pgd-20", epsilon=0.2), Right()
    assert isinstance(classifier, protocols.Model)
    assert isinstance(adversary, protocols.Augmentation)
    assert not isinstance(model, protocols.Model)
    for one in (classifier, adversary):
        assert isinstance(one.metadata["id"], str)
    words = {"model": classifier, "dataset": Digits(split), "metric": metric, "batch_size": 16}
    found = attack(model, split.x, split.y, "pgd-20", epsilon=0.2)
    clean, predictions, _ = tasks.evaluate(**words, return_preds=True)
    assert clean["right"] == int(found.correct.sum())
    assert predictions[0][0].shape == (10,)
    attacked, _, _ = tasks.evaluate(**words, augmentation=adversary)
    assert attacked == {"right": int(found.robust.sum()), "robust": int(found.robust.sum())}
