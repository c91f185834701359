"""The union of threat models is a fold over stored verdicts: of the same network, and of the images that all have."""

from pathlib import Path

import numpy as np
import pytest

from attacks.errors import InputError
from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.report.score import SuiteScores, score_suite
from benchmark.report.union import left_out, union_table, write_union
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.store.verdicts import Verdicts
from benchmark.suites.case import EvalCase, case_key
from model_zoo.model_spec import ModelSpec

TIMING = {"seconds": 1.0, "device": "cpu", "precision": "fp32", "batch_size": 1, "threads": 1, "versions": ""}


def model(name: str, sha: str, dataset: str = "toy") -> ModelSpec:
    return ModelSpec(
        name,
        suites=("toy",),
        dataset=dataset,
        architecture="digits-cnn",
        defense="natural",
        checkpoint="m.pt",
        sha256=sha * 64,
        paper="-",
    )


def stored(
    root: Path,
    suite: str,
    threat: ThreatModel,
    standing: dict[tuple[ModelSpec, str], list[int]],
    *,
    first: int = 0,
    label: int = 0,
) -> SuiteScores:
    """Ten images a suite, from index `first` on; each attack leaves those of the given indices standing."""
    store, index = Store(root), np.arange(10) + first
    for rank, ((spec, attack), robust) in enumerate(standing.items()):
        about = (suite, spec.dataset, f"{first} {label}", 10, spec, spec, ATTACKS[attack], threat)
        case = EvalCase(*about, seed=0)
        prediction = np.full(10, label)
        prediction[0] = 7  # the first image is misclassified when clean
        flags = np.isin(index, robust) & (prediction == label)
        passes = np.full(10, 10.0)
        verdicts = Verdicts(index, np.full(10, label), prediction, flags, None, passes, passes)
        store.write_case(case_key(case), {"flags": []})
        store.write_chunk(case_key(case), (0, 10), verdicts, TIMING)
        show(store, suite, "any", [case], [(rank,)])
    return score_suite(store, suite)


M, OTHER = model("m", "0"), model("other", "1")


def test_an_image_withstands_the_union_where_it_withstands_every_attack_of_every_suite(tmp_path: Path) -> None:
    linf = stored(
        tmp_path,
        "linf",
        ThreatModel("Linf", 0.1),
        {(M, "pgd-20"): [1, 2, 3, 4, 5, 6], (M, "apgd-ce"): [1, 2, 3, 4, 5, 9]},
    )
    l1 = stored(tmp_path, "l1", ThreatModel("L1", 2.0), {(M, "apgd-l1"): [2, 3, 4, 7, 8, 9]})
    l2 = stored(tmp_path, "l2", ThreatModel("L2", 0.5), {(M, "pgd-20"): [3, 4, 5]})
    (row,) = union_table([linf, l1, l2]).to_dict("records")
    assert (row["clean"], row["Linf 0.1"], row["L1 2"], row["L2 0.5"]) == (90.0, 50.0, 60.0, 30.0)
    assert (row["union"], row["n"]) == (20.0, 10)
    assert row["ci_low"] < 20 < row["ci_high"]


def test_models_are_matched_by_their_network_and_images_by_their_index(tmp_path: Path) -> None:
    linf = stored(tmp_path, "linf", ThreatModel("Linf", 0.1), {(M, "pgd-20"): [5, 6, 7], (OTHER, "pgd-20"): [5]})
    renamed = model("m again", "0")
    l2 = stored(tmp_path, "l2", ThreatModel("L2", 0.5), {(renamed, "pgd-20"): [6, 7, 8, 9]}, first=5)
    table = union_table([linf, l2])
    (row,) = table.to_dict("records")
    assert (row["model"], row["n"]) == ("m", 5)  # images 5 to 9
    assert (row["Linf 0.1"], row["L2 0.5"], row["union"]) == (60.0, 80.0, 40.0)
    assert left_out(table, [linf, l2]) == ["other"]


def test_the_files_are_the_same_bytes_when_they_are_written_again(tmp_path: Path) -> None:
    scores = [
        stored(tmp_path, name, ThreatModel(norm, 0.5), {(M, "pgd-20"): [1, 2]})
        for name, norm in (("linf", "Linf"), ("l2", "L2"))
    ]
    text = write_union(union_table(scores), scores, tmp_path / "union")
    files = [(tmp_path / f"union{suffix}").read_bytes() for suffix in (".csv", ".md")]
    assert files[1] == text.encode()
    write_union(union_table(scores), scores, tmp_path / "union")
    assert files == [(tmp_path / f"union{suffix}").read_bytes() for suffix in (".csv", ".md")]
    assert "| m " in text


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"spec": model("m", "0", dataset="others")}, "two suites or more of one dataset, with verdicts, got linf, l2"),
        ({"spec": OTHER}, "a network and images that linf, l2 all have, found none"),
        ({"first": 10}, "a network and images that linf, l2 all have, found none"),
        ({"label": 1, "first": 1}, "m: the suites are of different images"),
    ],
)
def test_what_cannot_be_folded_is_refused_in_one_line(tmp_path: Path, second: dict[str, object], message: str) -> None:
    linf = stored(tmp_path, "linf", ThreatModel("Linf", 0.1), {(M, "pgd-20"): [1]})
    spec = second.pop("spec", M)
    l2 = stored(tmp_path, "l2", ThreatModel("L2", 0.5), {(spec, "pgd-20"): [1]}, **second)  # type: ignore[dict-item, arg-type]
    with pytest.raises(InputError) as caught:
        union_table([linf, l2])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
