"""What a suite's tables show of several runs into one store."""

from pathlib import Path

import pytest

from attacks.registry import ATTACKS
from attacks.threat_model import ThreatModel
from benchmark.store.selection import show
from benchmark.store.store import Store
from benchmark.suites.case import EvalCase
from model_zoo.model_spec import ModelSpec


def model(name: str, sha256: str = "a") -> ModelSpec:
    return ModelSpec(
        name, suites=("s",), dataset="s", architecture="net", defense="", checkpoint="", sha256=sha256 * 64, code="net"
    )


def case(of: ModelSpec, attack: str, source: ModelSpec | None = None, images: str = "c") -> EvalCase:
    threat = ThreatModel("Linf", 0.2)
    return EvalCase("s", "s", images * 64, 500, of, source or of, ATTACKS[attack], threat, 0)


def shown(store: Store, *cases: EvalCase) -> list[str]:
    show(store, "s", "any", cases, [(0,)] * len(cases))
    return [entry.cell for entry in store.shown("s").cases]


def test_a_network_under_another_name_takes_its_rows_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, first, second, other = Store(tmp_path), model("first"), model("second"), model("other", "b")
    shown(store, case(first, "fgsm"), case(first, "pgd-20"), case(other, "fgsm"), case(other, "pgd-20", first))
    assert capsys.readouterr().err == ""
    assert set(shown(store, case(second, "pgd-20"))) == {
        "second/fgsm/",
        "second/pgd-20/",
        "other/fgsm/",
        "other/pgd-20/second",
    }
    assert capsys.readouterr().err.count("first and second are one network with the same weights") == 1


def test_another_network_under_a_known_name_replaces_its_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    shown(store, case(model("mine"), "fgsm"))
    assert shown(store, case(model("mine", "b"), "pgd-20")) == ["mine/pgd-20/"]


def test_rows_on_other_images_that_are_not_shown_any_more_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    shown(store, case(model("mine"), "fgsm"), case(model("mine"), "pgd-20"))
    assert shown(store, case(model("mine"), "fgsm", images="d")) == ["mine/fgsm/"]
    assert "rows of s that are of other images or under another norm, 2 in all" in capsys.readouterr().err
    assert len(shown(store, case(model("mine"), "fgsm"))) == 2
