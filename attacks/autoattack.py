"""AutoAttack's members with their settings, and the ensembles and references made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attacks import apgd, apgd_l1, fab, pyautoattack_adapter, square
from attacks.losses import TARGETED_LOSSES
from attacks.names import by_name
from attacks.spec import ANY_NORM, AttackSpec, EarlyStopping, Ensemble, Recurrence, ThirdParty

TARGETS, TARGETS_L1 = 9, 5
AUTOATTACK, OF_L1 = "Croce and Hein, arXiv:2003.01690", "Croce and Hein, arXiv:2103.01208"


def _apgd(name: str, loss: str) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="apgd",
        method=Recurrence(apgd.init, apgd.step),
        params={"loss": loss, "rho": 0.75, "momentum": 0.75},
        steps=100,
        restarts=TARGETS if loss in TARGETED_LOSSES else 1,
        reads_last=False,
        version=2,
        paper=AUTOATTACK,
    )


def _apgd_l1(name: str, loss: str) -> AttackSpec:
    """APGD for L1 as AutoAttack runs it there: 100 moves, and five restarts or targets."""
    return AttackSpec(
        name,
        algorithm="apgd-l1",
        method=Recurrence(apgd_l1.init, apgd_l1.step),
        params={"loss": loss},
        steps=102,
        restarts=TARGETS_L1,
        norms=("L1",),
        reads_last=False,
        paper=OF_L1,
    )


L1_MEMBERS = (_apgd_l1("apgd-l1", "cross-entropy"), _apgd_l1("apgd-l1-t", "dlr-targeted"))


def _fab(name: str, *, targeted: bool, restarts: int) -> AttackSpec:
    return AttackSpec(
        name,
        algorithm="fab",
        method=Recurrence(fab.init, fab.step),
        params={"targeted": targeted, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
        steps=100,
        restarts=restarts,
        reads_last=False,
        version=2,
        paper="Croce and Hein, arXiv:1907.02044",
    )


AUTOATTACK_MEMBERS: Mapping[str, AttackSpec] = by_name(
    (
        _apgd("apgd-ce", "cross-entropy"),
        _apgd("apgd-dlr", "dlr"),
        _apgd("apgd-t", "dlr-targeted"),
        _fab("fab", targeted=False, restarts=5),
        _fab("fab-t", targeted=True, restarts=TARGETS),
        AttackSpec(
            "square",
            algorithm="square",
            method=Recurrence(square.init, square.step),
            params={"queries_per_step": 50, "p_init": 0.8},
            steps=100,
            reads_last=False,
            tolerates_rounding=False,
            asks_for="logits",
            version=3,
            paper="Andriushchenko et al., arXiv:1912.00049",
        ),
    ),
    "member of AutoAttack",
)


def _reference(name: str, passes: int, params: Mapping[str, object]) -> AttackSpec:
    """The reference implementation, whole or one member of it."""
    return AttackSpec(
        name,
        algorithm="pyautoattack-standard",
        method=ThirdParty(pyautoattack_adapter.autoattack, "pyautoattack", pyautoattack_adapter.require_data),
        params={"version": "standard", **params},
        steps=passes,
        norms=(*ANY_NORM, "L1"),
        reads_last=False,
        asks_for="logits" if params.get("members") == ("square",) else "gradients",
        paper=AUTOATTACK,
    )


ENSEMBLES: Sequence[AttackSpec] = (
    AttackSpec(
        "autoattack",
        algorithm="autoattack-standard",
        method=Ensemble([AUTOATTACK_MEMBERS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")]),
        reads_last=False,
        version=2,
        paper=AUTOATTACK,
    ),
    AttackSpec(
        "autoattack-fast",
        algorithm="autoattack-fast",
        method=Ensemble(
            [
                replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=3),
                replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=2),
                replace(AUTOATTACK_MEMBERS["apgd-t"], restarts=3),
                replace(AUTOATTACK_MEMBERS["fab-t"], restarts=3),
                replace(AUTOATTACK_MEMBERS["square"], steps=16),
            ],
            screening=[
                AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20),
                AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=10),
                replace(
                    AUTOATTACK_MEMBERS["square"],
                    early_stopping=EarlyStopping(checks=(2, 8, 20, 50), least_decrease=0.2),
                ),
            ],
            screening_margin=0.1,
        ),
        reads_last=False,
        version=3,
        paper=f"members: {AUTOATTACK}; screening: this project",
    ),
    AttackSpec(
        "autoattack-brief",
        algorithm="autoattack-brief",
        method=Ensemble(
            [
                AUTOATTACK_MEMBERS["apgd-ce"].with_settings(steps=20),
                AUTOATTACK_MEMBERS["apgd-t"].with_settings(steps=20, restarts=3),
                AUTOATTACK_MEMBERS["square"].with_settings(steps=2),
            ]
        ),
        reads_last=False,
        version=2,
        paper=f"members: {AUTOATTACK}; their length: this project",
    ),
    AttackSpec(
        "autoattack-plus",
        algorithm="autoattack-plus",
        method=Ensemble(
            [
                replace(AUTOATTACK_MEMBERS["apgd-ce"], restarts=5),
                replace(AUTOATTACK_MEMBERS["apgd-dlr"], restarts=5),
                *(AUTOATTACK_MEMBERS[name] for name in ("fab", "square", "apgd-t", "fab-t")),
            ]
        ),
        reads_last=False,
        version=2,
        paper=AUTOATTACK,
    ),
    AttackSpec(
        "autoattack-rand",
        algorithm="autoattack-rand",
        method=Ensemble([AUTOATTACK_MEMBERS[name] for name in ("apgd-ce", "apgd-dlr")]),
        reads_last=False,
        eot=20,
        version=2,
        paper=AUTOATTACK,
    ),
)


REFERENCES: Sequence[AttackSpec] = (
    _reference("autoattack-reference", 8000, {}),
    *(
        _reference(f"reference-{member}", steps, {"members": (member,)})
        for member, steps in {
            "apgd-ce": 100,
            "apgd-dlr": 100,
            "apgd-t": 900,
            "fab-t": 1800,
            "square": 5000,
        }.items()
    ),
)

AUTOATTACK_L1 = AttackSpec(
    "autoattack-l1",
    algorithm="autoattack-l1",
    method=Ensemble([*L1_MEMBERS, *(one for one in REFERENCES if one.name in ("reference-fab-t", "reference-square"))]),
    norms=("L1",),
    reads_last=False,
    paper=OF_L1,
)
"""AutoAttack's standard ensemble under L1; its last two members are the reference's."""
