"""Certificates: what identifies them, that methods go on from each other, that they are stored, and contradicted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from attacks.errors import InputError
from attacks.threat_model import ThreatModel
from benchmark.certify import complete, proofs
from benchmark.certify.case import CertifyCase, certify_key, identity
from benchmark.certify.methods import METHODS, choose_methods
from benchmark.certify.proofs import Asked, Prove, Subject
from benchmark.certify.run import certify_models
from benchmark.data.datasets import load
from benchmark.data.split import Split, balanced_subset
from benchmark.evaluation.hardware import Hardware
from benchmark.report.bars import bars
from benchmark.report.certified import radius_table, together
from benchmark.report.publish import rebuild_tables
from benchmark.report.score import SuiteScores
from benchmark.store.certificate_audit import certificate_faults
from benchmark.store.certificate_store import (
    CertificateStore,
    ContradictionError,
    proven_images,
    refuse_contradiction,
)
from benchmark.store.certificates import (
    BROKEN,
    CERTIFIED,
    UNKNOWN,
    Certificates,
    Certified,
    certified_from,
    pack_certificates,
    unpack_certificates,
)
from benchmark.suites.registry import SUITES
from model_zoo.model_spec import ModelSpec
from model_zoo.registry import model_spec

Command = Callable[..., CompletedProcess[str]]
CPU = Hardware(torch.device("cpu"), torch.float32, 100)


@pytest.fixture(scope="module")
def digits() -> Split:
    return balanced_subset(load("digits", "test", data_dir=Path("unused")), 60, seed=0)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return model_spec("ibp", "digits", Path("unused"))


def case_of(spec: ModelSpec, method: str, **other: float) -> CertifyCase:
    method_spec = replace(METHODS[method], settings={**METHODS[method].settings, **other})
    return CertifyCase("digits", "a" * 64, 60, spec, method_spec, ThreatModel("Linf", 0.2), 0)


def shown(spec: ModelSpec, states: list[int], **other: object) -> Certified:
    plain = Certified(
        model=spec.name,
        network=spec.identity,
        method="ibp",
        version=1,
        settings="",
        is_deterministic=True,
        norm="Linf",
        epsilon=0.2,
        images="",
        seed=0,
        index=np.arange(len(states)),
        state=np.array(states),
    )
    return replace(plain, **other)  # type: ignore[arg-type]


# Identity


def test_literal_keys_are_pinned(spec: ModelSpec) -> None:
    assert spec.sha256.startswith("50ade1429ff3")
    keys = {method: certify_key(case_of(spec, method)) for method in METHODS}
    assert keys == PINNED


PINNED = {
    "ibp": "a15ab160172ca47f3e6aec54bc862e33",
    "convex": "8eff6b3cd447c56ff4bd80025aeef030",
    "crown": "73262c79f11d8dc8d1c2836744a683c4",
    "bab": "1501d58f951b414483b1ecbb27cf327d",
    "milp": "1ed351978c0e7b0f7229a30a014886ef",
    "smoothing": "67bef9dd1f64510f68a5cbd9676b68af",
}


def test_what_determines_a_certificate_is_in_its_key_and_nothing_else(spec: ModelSpec) -> None:
    one = case_of(spec, "crown")
    others = [
        replace(one, images="b" * 64),
        replace(one, threat=ThreatModel("Linf", 0.1)),
        replace(one, model=replace(spec, sha256="0" * 64)),
        case_of(spec, "crown", steps=5),
        case_of(spec, "convex"),
    ]
    assert len({certify_key(case) for case in (one, *others)}) == 6
    assert certify_key(replace(one, suite="other", model=replace(spec, name="other"), seed=7)) == certify_key(one)
    drawn = case_of(spec, "smoothing")
    assert certify_key(replace(drawn, seed=7)) != certify_key(drawn)
    assert "seed" in identity(drawn)


def test_methods_run_from_cheap_to_complete_whatever_the_order_and_settings_have_owners() -> None:
    chosen = choose_methods(["milp", "ibp"], {"seconds": 5.0, "sigma": None})
    assert [method.name for method in chosen] == ["ibp", "milp"]
    assert chosen[1].settings == {"seconds": 5.0}
    with pytest.raises(InputError, match="--sigma is a setting of smoothing"):
        choose_methods(["ibp"], {"sigma": 0.5})
    with pytest.raises(InputError, match="did you mean 'crown'"):
        choose_methods(["crwn"], {})


# The store


def test_a_chunk_is_what_was_packed_and_nothing_else_is_read_as_one() -> None:
    made = Certificates(
        index=np.arange(3),
        label=np.array([0, 1, 2]),
        prediction=np.array([0, 1, -1]),
        state=np.array([CERTIFIED, BROKEN, UNKNOWN]),
        bound=np.array([0.5, -1.0, np.nan]),
        witness=[None, b"1234", None],
    )
    name, content = pack_certificates("k", (0, 3), made, {"seconds": 1.0})
    found, timing = unpack_certificates(content, "k", (0, 3))
    assert timing == {"seconds": 1.0}
    for column in ("index", "label", "prediction", "state", "bound"):
        np.testing.assert_array_equal(getattr(found, column), getattr(made, column))
    assert list(found.witness) == [None, b"1234", None]
    assert name.startswith("000000-000003.")
    for key, chunk in (("other", (0, 3)), ("k", (3, 6))):
        with pytest.raises(ValueError, match="holds 3 images 000000-000003 of case k"):
            unpack_certificates(content, key, chunk)
    with pytest.raises(ValueError, match="unreadable"):
        unpack_certificates(content[:100], "k", (0, 3))


def test_what_a_suite_shows_is_what_was_stored_and_a_newer_one_takes_its_place(spec: ModelSpec, tmp_path: Path) -> None:
    store, one = CertificateStore(tmp_path), shown(spec, [0, 1, 2, 1])
    store.show("digits", one)
    store.show("digits", shown(spec, [1, 1, 2, 1], settings="newer"))
    store.show("digits", shown(spec, [0], method="crown"))
    found = store.shown("digits")
    assert [(one.method, one.settings, one.state.tolist()) for one in found] == [
        ("crown", "", [0]),
        ("ibp", "newer", [1, 1, 2, 1]),
    ]
    assert certified_from(one.to_dict()).to_dict() == one.to_dict()
    with pytest.raises(ValueError, match="expected what is certified of a model"):
        certified_from({**one.to_dict(), "n": 5})
    path = next((tmp_path / "certified/digits").glob("*.json"))
    path.write_text(path.read_text().replace('"Linf"', '"L2"'))
    with pytest.raises(InputError, match=f"{path.name}.*damaged"):
        store.shown("digits")


def test_a_killed_run_goes_on_and_spread_over_processes_gives_the_same(
    spec: ModelSpec, digits: Split, tmp_path: Path
) -> None:
    suite, methods = SUITES["digits"], choose_methods(["ibp", "convex"], {})
    whole = CertificateStore(tmp_path / "whole")
    made = certify_models(suite, [spec], methods, digits, whole, CPU, seed=0, quiet=True)
    spread = CertificateStore(tmp_path / "spread")
    two = replace(CPU, workers=2)
    again = certify_models(suite, [spec], methods, digits, spread, two, seed=0, quiet=True)
    assert [one.to_dict() for one in made] == [one.to_dict() for one in again]
    files = sorted((tmp_path / "spread/certificates").rglob("*.parquet"))
    assert len(files) == 4
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"x")
    kept = files[2].stat().st_mtime_ns
    resumed = certify_models(suite, [spec], methods, digits, spread, CPU, seed=0, quiet=True)
    assert [one.to_dict() for one in resumed] == [one.to_dict() for one in made]
    assert files[2].stat().st_mtime_ns == kept


def test_a_method_goes_on_with_what_cheaper_ones_leave_unknown(
    spec: ModelSpec, digits: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counting(subject: Subject, images: Asked, settings: proofs.Settings) -> proofs.Proof:
        asked.extend(images.index.tolist())
        return proofs.by_chords(subject, images, settings)

    store, suite = CertificateStore(tmp_path), SUITES["digits"]
    (cheap,) = certify_models(suite, [spec], choose_methods(["ibp"], {}), digits, store, CPU, seed=0, quiet=True)
    monkeypatch.setitem(METHODS, "convex", replace(METHODS["convex"], prove=counting))
    (dear,) = certify_models(suite, [spec], choose_methods(["convex"], {}), digits, store, CPU, seed=0, quiet=True)
    assert 20 < cheap.certified.sum() < 60
    assert (dear.certified | ~cheap.certified).all()
    assert not set(asked) & set(cheap.index[cheap.certified].tolist())
    certificates = store.read(certify_key(replace(case_of(spec, "ibp"), images=digits.digest)), 60)
    assert certificates is not None
    wrong = certificates[0].index[certificates[0].label != certificates[0].prediction]
    assert not set(asked) & set(wrong.tolist())


# Certified and broken at once


def test_a_certified_image_that_an_attack_breaks_stops_the_table_and_is_named(
    spec: ModelSpec, scores_of: Callable[..., SuiteScores]
) -> None:
    suite = scores_of({("ibp", "pgd-20", ""): 300, ("other", "pgd-20", ""): 200})
    entries = [
        replace(entry, networks={entry.model: spec.identity if entry.model == "ibp" else {}}) for entry in suite.entries
    ]
    suite = replace(suite, entries=entries, certified=[shown(spec, [CERTIFIED] * 250 + [UNKNOWN] * 150)])
    bar = bars(suite)["ibp"]
    assert (bar.certified, bar.unknown, bar.broken) == (62.5, 12.5, 25.0)
    assert "other" not in bars(suite)
    assert bars(replace(suite, certified=[replace(suite.certified[0], epsilon=0.3)]))["ibp"] == bar
    planted = shown(spec, [CERTIFIED] * 250 + [UNKNOWN] * 100 + [CERTIFIED] + [UNKNOWN] * 49)
    with pytest.raises(ContradictionError, match=r"ibp/pgd-20: 1 images are certified and broken \(index 350\)"):
        bars(replace(suite, certified=[planted]))
    planted = shown(spec, [UNKNOWN] * 350 + [CERTIFIED] + [UNKNOWN] * 49)
    for harmless in (
        replace(planted, epsilon=0.1),
        replace(planted, network={"checkpoint_sha256": "0"}),
        replace(planted, is_deterministic=False),
        replace(planted, norm="L2"),
    ):
        assert bars(replace(suite, certified=[harmless])) == {}


def test_an_image_with_a_witness_that_another_method_certifies_is_named(
    spec: ModelSpec, scores_of: Callable[..., SuiteScores]
) -> None:
    suite = scores_of({("ibp", "pgd-20", ""): 300})
    suite = replace(suite, entries=[replace(suite.entries[0], networks={"ibp": spec.identity})])
    witnessed = shown(spec, [UNKNOWN] * 299 + [BROKEN] + [UNKNOWN] * 100, method="milp")
    bar = bars(replace(suite, certified=[witnessed]))["ibp"]
    assert (bar.certified, bar.unknown, bar.broken) == (0.0, 74.75, 25.25)
    with pytest.raises(ContradictionError, match=r"by a witness: 1 images.*index 299"):
        bars(replace(suite, certified=[witnessed, shown(spec, [CERTIFIED] * 300)]))


def test_certificates_hold_in_smaller_balls_alone(spec: ModelSpec) -> None:
    certified = [shown(spec, [0, 1, 1]), shown(spec, [1, 0, 0], epsilon=0.1)]
    assert proven_images(certified, spec.identity, ThreatModel("Linf", 0.2)).tolist() == [1, 2]
    assert proven_images(certified, spec.identity, ThreatModel("Linf", 0.1)).tolist() == [0, 1, 2]
    assert proven_images(certified, spec.identity, ThreatModel("Linf", 0.3)).tolist() == []
    refuse_contradiction("x", np.array([3]), np.array([1, 2]))


def test_certificates_of_other_images_count_nowhere(spec: ModelSpec, scores_of: Callable[..., SuiteScores]) -> None:
    threat = ThreatModel("Linf", 0.2)
    one = shown(spec, [CERTIFIED] * 400, images="a" * 64, origin="o" * 64)
    for images, origin, count in (
        ("a" * 64, "", 400),
        ("b" * 64, "o" * 64, 400),  # another selection from the same whole
        ("b" * 64, "p" * 64, 0),
        ("b" * 64, "", 0),
        ("", "", 0),
    ):
        assert len(proven_images([one], spec.identity, threat, images, origin)) == count
    old = replace(one, origin="")
    assert "origin" not in old.to_dict()
    assert certified_from(old.to_dict()).origin == ""
    assert certified_from(one.to_dict()).origin == "o" * 64
    assert len(proven_images([old], spec.identity, threat, "b" * 64, "")) == 0
    suite = scores_of({("ibp", "pgd-20", ""): 300})
    suite = replace(suite, entries=[replace(suite.entries[0], networks={"ibp": spec.identity})])
    assert bars(replace(suite, certified=[replace(one, state=np.full(400, BROKEN))])) == {}
    with pytest.raises(ContradictionError):
        bars(replace(suite, certified=[replace(one, images="")]))


def test_a_certificate_holds_in_the_balls_inside_its_own_whatever_their_norm(
    spec: ModelSpec, scores_of: Callable[..., SuiteScores]
) -> None:
    one = shown(spec, [CERTIFIED] * 400)
    for norm, epsilon, holds in (
        ("L2", 0.2, True),
        ("L1", 0.1, True),
        ("L2", 0.3, False),
        ("L0", 0, False),
        ("spatial-30deg", 0.1, False),
    ):
        assert one.holds_in(ThreatModel(norm, epsilon)) == holds
    assert not replace(one, norm="L2").holds_in(ThreatModel("Linf", 0.1))
    assert replace(one, norm="L2").breaks(ThreatModel("Linf", 0.2))
    assert not one.breaks(ThreatModel("L2", 0.2))
    suite = scores_of({("ibp", "pgd-20", ""): 300})
    entries = [replace(suite.entries[0], networks={"ibp": spec.identity}, norm="L2", epsilon=0.2)]
    with pytest.raises(ContradictionError):
        bars(replace(suite, entries=entries, certified=[one]))


def test_a_weaker_run_takes_nothing_from_a_stronger_one_and_two_that_contradict_each_other_stop(
    spec: ModelSpec, tmp_path: Path
) -> None:
    store = CertificateStore(tmp_path)
    strong, weak = shown(spec, [1, 2, 0, 1], settings="steps=20"), shown(spec, [1, 0, 0, 0], settings="steps=0")
    for order in ((strong, weak), (weak, strong)):
        for one in order:
            store.show("digits", one)
        (found,) = store.shown("digits")
        assert (found.state.tolist(), found.settings) == ([1, 2, 0, 1], "steps=20")
    store.show("digits", shown(spec, [0, 0, 1, 0], settings="steps=5"))
    (found,) = store.shown("digits")
    assert (found.state.tolist(), found.settings) == ([1, 2, 1, 1], "steps=20 or steps=5")
    (packed,) = together([weak], [strong])
    assert packed.state.tolist() == [1, 2, 0, 1]
    with pytest.raises(ContradictionError, match="image 1 is both certified and broken, by two runs"):
        store.show("digits", shown(spec, [0, 1, 0, 0]))
    store.show("digits", shown(spec, [0, 1, 0, 0], version=2))  # which says that the older one was wrong
    assert store.shown("digits")[0].state.tolist() == [0, 1, 0, 0]
    drawn = {"method": "smoothing", "is_deterministic": False}
    for settings in ("sigma=0.25", "sigma=0.5"):
        store.show("smooth", shown(spec, [1, 0], settings=settings, **drawn))
    assert [one.settings for one in store.shown("smooth")] == ["sigma=0.25", "sigma=0.5"]


def test_a_selection_is_found_among_more_images_and_not_among_others_of_the_same_name(
    command: Command, digits: Split, tmp_path: Path
) -> None:
    words = ("--models", "ibp", "--quiet", "--workers", "1")
    attacked = (*words, "--attacks", "fgsm", "--transfer", "none")
    assert command(tmp_path, "certify", *words, "--method", "ibp", "--examples", "10").returncode == 0
    assert command(tmp_path, *attacked, "--examples", "20").returncode == 0
    board = pd.read_csv(tmp_path / "results/mine/digits/leaderboard.csv")
    assert 0 < board["certified_acc"][0] <= 50
    pixels = (digits.x[:, 0] * 255).round().byte().numpy()
    for folder, rows in (("one", slice(0, 20)), ("other", slice(20, 40))):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "test.npz", x=pixels[rows], y=digits.y[rows].numpy())
    own = ("--dataset", "digits", "--results-dir", "own")
    run = command(tmp_path, "certify", *words, "--method", "ibp", *own, "--data", "one/test.npz")
    assert run.returncode == 0, run.stderr
    run = command(tmp_path, *attacked, *own, "--data", "other/test.npz")
    assert run.returncode == 0, run.stderr
    assert "certified_acc" not in pd.read_csv(tmp_path / "own/digits/leaderboard.csv")


@pytest.fixture(scope="module")
def ran(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of certificates and an attack on the same images."""
    folder = tmp_path_factory.mktemp("certified")
    words = ("--models", "ibp,natural", "--examples", "20", "--quiet", "--workers", "1")
    run = command(folder, "certify", *words, "--method", "ibp")
    assert run.returncode == 0, run.stderr
    assert "| ibp " in run.stdout
    assert command(folder, *words, "--attacks", "fgsm", "--transfer", "none").returncode == 0
    return folder / "results/mine"


def test_the_store_commands_find_and_remove_damaged_certificates(command: Command, ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "results/mine")
    verified = command(tmp_path, "store", "verify", "--quiet")
    assert verified.returncode == 0, verified.stdout
    assert "2 cases of certificates, 0 faults" in verified.stdout
    runs = tmp_path / "results/mine/runs"
    chunk, record = next(runs.glob("certificates/*/*.parquet")), next(runs.glob("certificates/*/case.json"))
    shown_record = next(runs.glob("certified/*/*.json"))
    for path in (chunk, shown_record):
        path.write_bytes(path.read_bytes()[:-20])
    copied = record.parent.with_name("0" * 32)
    shutil.copytree(record.parent, copied)
    found = command(tmp_path, "store", "verify", "--quiet")
    assert found.returncode == 1
    assert f"{chunk.name}: damaged: its content" in found.stdout
    assert f"{shown_record.name}: damaged" in found.stdout
    assert f"{'0' * 32}/case.json: the identity of another case" in found.stdout
    assert "run the sweeps and certify again" in found.stdout
    assert command(tmp_path, "store", "gc", "--quiet").returncode == 0
    assert not chunk.exists()
    assert not shown_record.exists()


def test_certificates_that_contradict_themselves_are_a_fault(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    store.write_case("k", {"some": "identity"})
    for state, prediction, witness, what in (
        (CERTIFIED, 0, None, "certified though they are misclassified"),
        (BROKEN, 1, None, "without a witness"),
        (UNKNOWN, 1, b"1234", "a witness of images that are not"),
    ):
        shutil.rmtree(tmp_path / "certificates/k")
        one = {"index": [0], "label": [1], "prediction": [prediction], "state": [state], "bound": [0.0]}
        made: dict[str, Any] = {name: np.array(value) for name, value in one.items()}
        store.write_chunk("k", (0, 1), Certificates(**made, witness=[witness]), {})
        assert any(what in fault.what for fault in certificate_faults(store, "k"))


def test_the_leaderboard_has_certified_unknown_and_broken_from_the_store_and_from_git(
    command: Command, ran: Path, tmp_path: Path
) -> None:
    for _ in ("from the store", "from packed verdicts"):
        board = pd.read_csv(ran / "digits/leaderboard.csv").set_index("model")
        whole = board[["certified_acc", "unknown", "broken"]]
        assert (whole.sum(axis=1).round(6) == 100).all()
        assert whole.loc["ibp", "certified_acc"] == 80
        low, high = (float(str(board.loc["ibp", name])) for name in ("certified_low", "certified_high"))
        assert low < 80 < high
        assert (whole["broken"] == 100 - board["worst case"]).all()
        assert "| certified |" in (ran / "digits/leaderboard.md").read_text().replace("   ", " ").replace("  ", " ")
        assert '"proven":[80.0,' in (ran / "digits/leaderboard.html").read_text()
        table = pd.read_csv(ran / "digits/certified.csv")
        assert list(table.columns)[:7] == ["model", "method", "epsilon", "n", "certified_acc", "ci_low", "ci_high"]
        assert len(table) == 2
        before = {path.name: path.read_bytes() for path in (ran / "digits").glob("*.csv") if path.name != "timing.csv"}
        if (ran / "runs").exists():
            (ran / "runs").rename(tmp_path / "aside")
        (ran / "digits/certified.csv").unlink()
        assert command(ran.parents[1], "table").returncode == 0
        assert {name: (ran / "digits" / name).read_bytes() for name in before} == before
    words = ("--models", "natural", "--examples", "20", "--quiet", "--workers", "1")
    assert command(ran.parents[1], "certify", *words, "--method", "ibp,convex").returncode == 0
    shutil.rmtree(ran / "runs")
    assert command(ran.parents[1], "table").returncode == 0  # of what certify packed
    assert len(pd.read_csv(ran / "digits/certified.csv")) == 3
    assert len(pd.read_csv(ran / "digits/leaderboard.csv")) == 2
    (tmp_path / "aside").rename(ran / "runs")


def test_a_planted_certificate_stops_the_sweep_that_breaks_its_image_and_a_planted_break_stops_certify(
    command: Command, ran: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results/mine"
    natural = next(one for one in CertificateStore(ran / "runs").shown("digits") if one.model == "natural")
    planted = replace(natural, state=np.full_like(natural.state, CERTIFIED))
    CertificateStore(results / "runs").show("digits", planted)
    words = ("--models", "natural", "--examples", "20", "--quiet", "--workers", "1", "--transfer", "none")
    run = command(tmp_path, *words, "--attacks", "pgd-20")
    assert run.returncode == 2
    assert "natural: pgd-20: " in run.stderr
    assert "images are certified and broken (index " in run.stderr
    assert run.stderr.count("\n") == 1
    assert not list((results / "runs/cases").rglob("*.parquet"))
    for path in (results / "runs/certified").rglob("*.json"):
        path.unlink()
    assert command(tmp_path, *words, "--attacks", "pgd-20").returncode == 0
    CertificateStore(results / "runs").show("digits", replace(planted, method="planted"))
    run = command(
        tmp_path, "certify", "--models", "natural", "--examples", "20", "--method", "ibp", "--workers", "1", "--quiet"
    )
    assert run.returncode == 2
    assert "are certified and broken" in run.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "crown", "--norm", "L2", "--epsilon", "1"), "crown certifies under Linf, got L2"),
        (("--method", "ibp", "--sigma", "0.5"), "--sigma is a setting of smoothing"),
        (("--method", "ipb"), "did you mean 'ibp'"),
    ],
)
def test_what_cannot_be_certified_is_one_line(
    command: Command, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    run = command(tmp_path, "certify", "--models", "natural", "--examples", "10", *words)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


REFUSED = {
    "tanh": ("nn.Tanh()", "", "no bound is known for Tanh"),
    "in place": ("Plus(nn.ReLU(inplace=True))", "", "works in place, and add reads after it what it overwrote"),
    "hook": ("nn.ReLU()", "model[1].register_forward_hook(lambda *given: -given[-1])", "it has forward hooks"),
    "forward": ("nn.ReLU()", "model[2].forward = torch.tanh", "its forward was replaced"),
    "training": ("Kept(30)", "", "it is kept in training mode"),
    "bfloat16": (
        "Low()",
        "",
        "a model that computes in float32, whose rounding the bounds know, got bfloat16",
    ),
    "weight_norm": ("nn.ReLU()", "nn.utils.weight_norm(model[1])", "call torch.nn.utils.remove_weight_norm first"),
    "pruning": ("nn.ReLU()", "prune.l1_unstructured(model[1], 'weight', 5)", "call torch.nn.utils.prune.remove first"),
    "lock": ("nn.ReLU()", "model.lock = threading.Lock()", "expected a model that can be copied"),
    "linear": (
        "nn.ReLU()",
        "model = nn.Sequential(nn.Linear(8, 8), *model)",
        "known for Linear on what has the shape (1",
    ),
}
"""By what is in the way of a bound: the middle of a network, what is done to it afterwards, and what is said."""
FACTORY = """import threading
import torch
from torch import nn
from torch.nn.utils import prune
class Plus(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, h):
        return self.inner(h) + h
class Kept(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(True)
Kept.__module__ = "torch.nn"
class Low(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(30, 30)
    def forward(self, h):
        with torch.autocast("cpu", torch.bfloat16):
            return h + self.inner(h).relu()
def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), {middle}, nn.Linear(30, 10))
    {change}
    return model
"""


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # the deprecated one, which people still have
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_no_bound_is_known_for_is_named_before_anything_is_computed(
    name: str, tmp_path: Path, command: Command
) -> None:
    middle, change, said = REFUSED[name]
    code = FACTORY.replace("{middle}", middle).replace("{change}", change or "pass")
    (tmp_path / "mine.py").write_text(code)
    space: dict[str, Any] = {}
    exec(code, space)
    model, train = space["make"]().train(), load("digits", "train", data_dir=Path("unused"))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for start in range(0, 3000, 100):
        rows = torch.arange(start, start + 100) % len(train)
        loss = nn.functional.cross_entropy(model(train.x[rows]).float(), train.y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    words = ("--model", "mine.py:make", "--checkpoint", "mine.pt", "--dataset", "digits", "--examples", "60")
    run = command(tmp_path, "certify", *words, "--method", "ibp", "--quiet", "--workers", "1")
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "results/mine/runs/certificates").exists()


# Complete verification


COMPLETE = pytest.mark.parametrize("prove", [complete.by_program, complete.by_branches])


@COMPLETE
def test_a_complete_method_decides_every_image_of_a_small_network_as_a_grid_of_points_does(prove: Prove) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3))
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(2)
    x = torch.rand(40, 1, 1, 2)
    y = model(x).argmax(1)
    subject, threat = Subject(model.eval(), (1, 1, 2), 50), ThreatModel("Linf", 0.3)
    asked = Asked(x, y, torch.arange(40), threat, 0)
    proof = prove(subject, asked, {"seconds": 20.0})
    line = torch.linspace(-0.3, 0.3, 121)
    grid = torch.cartesian_prod(line, line).view(1, -1, 1, 1, 2)
    points = (x.unsqueeze(1) + grid).clamp(0, 1)
    survives = (model(points.flatten(0, 1)).argmax(1).view(40, -1) == y.unsqueeze(1)).all(1)
    assert 5 < int(survives.sum()) < 35
    assert (proof.state != UNKNOWN).float().mean() >= 0.95
    assert survives[proof.state == CERTIFIED].all()
    assert (proof.state[~survives] == BROKEN).all()
    for row in (proof.state == BROKEN).nonzero().flatten().tolist():
        point = proof.witness[row]
        assert point is not None
        assert threat.contains(point.unsqueeze(0), x[row : row + 1]).all()
        assert model(point.unsqueeze(0)).argmax() != y[row]


@COMPLETE
def test_the_solvers_point_is_judged_and_without_an_attack_before_it_too(
    prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(2)
    x = torch.rand(20, 1, 1, 2)
    y = model(x).argmax(1)
    asked = Asked(x, y, torch.arange(20), ThreatModel("Linf", 0.3), 0)
    subject = Subject(model, (1, 1, 2), 50)
    with_attack = prove(subject, asked, {"seconds": 20.0}).state
    idle = type("Shown", (), {"x_adv": x})
    monkeypatch.setattr(complete, "attack", lambda *_, **__: idle)
    assert torch.equal(prove(subject, asked, {"seconds": 20.0}).state, with_attack)
    assert (with_attack == BROKEN).any()
    out_of_time = prove(subject, asked, {"seconds": 0.0}).state
    assert (out_of_time == UNKNOWN).any()
    assert ((out_of_time == with_attack) | (out_of_time == UNKNOWN)).all()


def broken_by_a_grid(model: nn.Module, x: torch.Tensor, y: torch.Tensor, side: int = 61) -> torch.Tensor:
    """(N,) whether a point of a grid over the ball of radius 0.3 around two pixels is misclassified."""
    line = torch.linspace(-0.3, 0.3, side)
    points = (x.unsqueeze(1) + torch.cartesian_prod(line, line).view(1, -1, 1, 1, 2)).clamp(0, 1)
    broken: torch.Tensor = (model(points.flatten(0, 1)).argmax(1).view(len(x), -1) != y.unsqueeze(1)).any(1)
    return broken


@COMPLETE
@pytest.mark.parametrize("scale", [1.0, 3e-8])
def test_a_complete_method_certifies_nothing_that_breaks_however_small_a_layers_numbers_are(
    prove: Prove, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "attack", lambda *given, **_: type("Shown", (), {"x_adv": given[1]}))
    certified = 0
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for place, factor in ((1, 2 * scale), (3, 1 / scale)):
            model[place].weight.mul_(factor)  # type: ignore[operator]
        model[1].bias.mul_(scale)  # type: ignore[operator]
        x = torch.rand(5, 1, 1, 2)
        y = model(x).argmax(1)
        asked = Asked(x, y, torch.arange(5), ThreatModel("Linf", 0.3), 0)
        state = prove(Subject(model, (1, 1, 2), 5), asked, {"seconds": 20.0}).state
        assert not ((state == CERTIFIED) & broken_by_a_grid(model, x, y)).any()
        certified += int((state == CERTIFIED).sum())
    assert certified >= 2


class Pooled(nn.Module):
    """A block with a shortcut, batch norm and average pooling, for images (N, 1, 1, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(1, 2, (1, 2), padding=(0, 1)), nn.BatchNorm2d(2)
        self.second, self.pool = nn.Conv2d(2, 2, (1, 3), padding=(0, 1)), nn.AvgPool2d((1, 2), stride=1)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.relu(self.bn(self.first(x)))
        h = h + nn.functional.leaky_relu(self.second(h), 0.3)
        out: torch.Tensor = self.last(self.pool(h).flatten(1))
        return out


@COMPLETE
def test_a_complete_method_decides_a_residual_network_with_batch_norm_and_pooling(
    prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "attack", lambda *given, **_: type("Shown", (), {"x_adv": given[1]}))
    torch.manual_seed(8)
    model = Pooled()
    model.bn.running_mean, model.bn.running_var = torch.tensor([0.2, -0.3]), torch.tensor([0.3, 0.8])
    for parameter in model.eval().parameters():
        parameter.requires_grad_(False).mul_(2)
    x = torch.rand(12, 1, 1, 2)
    y = model(x).argmax(1)
    asked = Asked(x, y, torch.arange(12), ThreatModel("Linf", 0.3), 0)
    state = prove(Subject(model, (1, 1, 2), 12), asked, {"seconds": 20.0}).state
    breaks = broken_by_a_grid(model, x, y)
    assert 0 < int(breaks.sum()) < 12
    assert (state[breaks] == BROKEN).all()
    assert (state[~breaks] == CERTIFIED).float().mean() >= 0.8


# Smoothing


def test_smoothing_certifies_in_the_l2_ball_that_holds_the_threat_model(digits: Split, tmp_path: Path) -> None:
    base = model_spec("smoothing-0.25", "digits", Path("unused"))
    methods = choose_methods(["smoothing"], {"n": 500.0, "alpha": 0.01})
    suite, store = SUITES["digits-l2"], CertificateStore(tmp_path)
    few = replace(suite, threat=ThreatModel("L2", 0.25))
    (found,) = certify_models(few, [base], methods, digits, store, CPU, seed=0, quiet=True)
    linf = replace(suite, threat=ThreatModel("Linf", 0.25 / 8))  # 64 pixels: the same L2 ball
    (same,) = certify_models(linf, [base], methods, digits, store, CPU, seed=0, quiet=True)
    assert 30 < found.certified.sum() < 60
    assert found.certified.sum() - same.certified.sum() in (0, 1)  # but for the tolerance of the judge
    assert not found.is_deterministic
    assert found.settings == "sigma=0.25 n0=100 n=500 alpha=0.01"
    assert found.radius is not None
    assert ((found.radius >= 0.25) == found.certified).all()
    curve = radius_table([certified_from(found.to_dict())])
    assert curve["certified_acc"][curve["radius"].round(2) == 0.25].tolist() == [100 * found.certified.mean()]
    assert (curve["certified_acc"].diff().dropna() <= 0).all()
    assert curve["certified_acc"].iloc[[0, -1]].tolist() == [100 * (found.radius >= 0).mean(), 0.0]


def test_table_draws_smoothings_curve_of_a_suite_that_was_never_attacked(spec: ModelSpec, tmp_path: Path) -> None:
    drawn = {"method": "smoothing", "is_deterministic": False, "norm": "L2"}
    made = shown(spec, [1, 0, 1], **drawn, radius=np.array([0.5, -1, 0.2], dtype=np.float32))
    CertificateStore(tmp_path / "runs").show("digits", made)
    rebuild_tables(tmp_path)
    assert (tmp_path / "digits/pictures/certified.png").stat().st_size > 5000
    assert pd.read_csv(tmp_path / "digits/certified_radius.csv")["certified_acc"].iloc[0] == 66.6667


def test_the_smoothed_classifier_is_a_model_that_is_attacked_and_its_base_alone_is_smoothed(
    command: Command, tmp_path: Path
) -> None:
    words = ("--models", "smoothing-0.25+noise-0.25,smoothing-0.25", "--examples", "10", "--quiet", "--workers", "1")
    run = command(tmp_path, *words, "--attacks", "pgd-20", "--transfer", "none", "--eot", "2", "--judge-draws", "3")
    assert run.returncode == 0, run.stderr
    scores = pd.read_csv(tmp_path / "results/mine/digits/scores.csv", keep_default_na=False).set_index("model")
    assert set(scores["architecture"]) == {"digits-cnn", "digits-cnn+noise-0.25"}
    assert "randomized" in str(scores.loc["smoothing-0.25+noise-0.25", "flags"])
    assert scores["checkpoint_sha256"].nunique() == 1
    run = command(tmp_path, "certify", *words[:2], "--method", "smoothing", "--examples", "10", "--quiet")
    assert run.returncode == 2
    assert "certify its base classifier by smoothing" in run.stderr
    few = ("--method", "smoothing", "--examples", "10", "--n", "200", "--quiet", "--workers", "1")
    assert command(tmp_path, "certify", "--models", "smoothing-0.25", *few).returncode == 0
    assert command(tmp_path, "table").returncode == 0
    curve = pd.read_csv(tmp_path / "results/mine/digits/certified_radius.csv")
    assert set(curve["model"]) == {"smoothing-0.25"}
    assert (tmp_path / "results/mine/digits/pictures/certified.png").stat().st_size > 5000
