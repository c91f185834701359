"""The table of recipes: the settings that a defense is trained by, per dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attacks.errors import InputError
from model_zoo.masked.registry import MASKS
from model_zoo.training.recipe import Recipe

DIGITS = Recipe(
    "digits-cnn",
    60,
    64,
    "adam",
    1e-3,
    milestones=[(45, 1e-4)],
    inner_steps=10,
    inner_rel_step_size=0.25,
    validation=200,
)
IBP_DIGITS = replace(DIGITS, epochs=240, milestones=[(200, 1e-4)])  # cheap epochs, and a box is learnt slowly
CONVEX_DIGITS = replace(DIGITS, epochs=40, milestones=[(30, 1e-4)])  # an epoch takes ten times one of PGD training
TRADES_MNIST = Recipe(
    "small-cnn",
    100,
    128,
    "sgd",
    0.01,
    milestones=[(55, 1e-3), (75, 1e-4), (90, 1e-5)],
    inner_steps=40,
    inner_rel_step_size=0.01 / 0.3,
)
MADRY_MNIST = Recipe(  # 100,000 steps; the authors' network has two convolutions and a wide hidden layer
    "small-cnn", 85, 50, "adam", 1e-4, inner_steps=40, inner_rel_step_size=0.01 / 0.3
)
FAST_MNIST = Recipe(
    "strided-cnn",
    12,
    128,
    "adam",
    1e-3,
    milestones=[(9, 1e-4)],
    inner_steps=10,
    inner_rel_step_size=0.25,
    warm_up=2.0,
)
TRADES_CIFAR = Recipe(
    "wrn-34-10",
    76,
    128,
    "sgd",
    0.1,
    milestones=[(75, 0.01)],
    weight_decay=2e-4,
    inner_steps=10,
    inner_rel_step_size=0.007 / 0.031,
    epsilon=0.031,
    augmentation="crop-flip",
)
ONE_STEP_MNIST = replace(  # its start must not be clipped: see fast.py
    FAST_MNIST,
    warm_up=0,
    epochs=10,
    batch_size=100,
    lr=5e-3,
    milestones=[],
    schedule="cyclic",
    peak=0.4,
    param_schedule=[("clip_start", 0, 0)],
)
FAST_IBP_MNIST = replace(FAST_MNIST, warm_up=0, epochs=60, milestones=[(41, 1e-4), (53, 1e-5)])
FAST_CONVEX_MNIST = replace(  # small batches stay in the cache; exact norms take four times as long
    FAST_MNIST,
    warm_up=0,
    batch_size=16,
    milestones=[(7, 5e-4), (10, 1e-4)],
    train_examples=10_000,
    param_schedule=[("projections", 0, 50)],
)
IBP_MNIST = Recipe(  # 60,001 steps, lr 1e-4 from step 15,000 and 1e-5 from step 25,000, on the authors' second network
    "strided-cnn", 204, 200, "adam", 1e-3, milestones=[(52, 1e-4), (86, 1e-5)], inner_steps=20, epsilon=0.33
)
CONVEX_MNIST = Recipe(  # halved every 10 epochs, from 10 epochs after the ramp of 20
    "strided-cnn", 60, 50, "adam", 1e-3, milestones=[(31, 5e-4), (41, 2.5e-4), (51, 1.25e-4)]
)
SMOOTHING_CIFAR = Recipe(  # the authors' network is ResNet-110, their deviations are 0.2023, 0.1994 and 0.2010
    "resnet-18+cifar10-norm",
    90,
    400,
    "sgd",
    0.1,
    milestones=[(31, 0.01), (61, 0.001)],
    weight_decay=1e-4,
    augmentation="crop-flip",
)
FAST_CIFAR = Recipe(
    "resnet-18",
    30,
    128,
    "sgd",
    0.1,
    milestones=[(20, 0.01), (26, 0.001)],
    weight_decay=5e-4,
    inner_steps=10,
    inner_rel_step_size=0.25,
    augmentation="crop-flip",
)
CPU_CIFAR = Recipe(  # one for all defenses, small enough for CPU cores with fast bfloat16
    "resnet-18-w16",
    16,
    128,
    "sgd-nesterov",
    0.2,
    weight_decay=2e-4,
    inner_steps=7,
    inner_rel_step_size=0.25,
    epsilon=8 / 255,
    augmentation="crop-flip",
    schedule="cyclic",
    peak=0.4,
    memory_format="channels-last",
)

MADRY_CIFAR = replace(
    TRADES_CIFAR,
    epochs=205,  # the authors' 80,000 steps of 128 images, as are the milestones
    milestones=[(103, 0.01), (154, 0.001)],
    inner_rel_step_size=0.25,
    epsilon=8 / 255,
)
TRANSFER_CIFAR = replace(  # the authors' 20,000 steps, on the half of the images that is left to it
    MADRY_CIFAR, epochs=102, lr=1e-3, milestones=[], augmentation="none", inner_steps=7
)
FAT_CIFAR = replace(TRADES_CIFAR, epochs=120, milestones=[(60, 0.01), (90, 0.001), (110, 0.0005)])
# The authors also lower the rate by every step (Keras decay 1e-4), and rotate and shift images by more than this crop.
DAT_CIFAR = replace(
    TRADES_CIFAR,
    epochs=120,
    lr=0.01,
    milestones=[(60, 1e-3), (100, 1e-4)],
    weight_decay=4e-3,  # theirs is 2e-3 times the squared weights, whose gradient is twice that
    inner_rel_step_size=0.25,
)
# An epoch shows each labelled image once. The authors' is 196 batches of 256, half of them labelled: with a pool of
# the user's own their 39,200 steps are 102 epochs of ours, with half of the images withheld 204.
RST_CIFAR = replace(
    TRADES_CIFAR,
    architecture="wrn-28-10",
    epochs=200,
    batch_size=256,
    optimizer="sgd-nesterov",
    milestones=[],
    weight_decay=5e-4,
    schedule="cosine",
)

BURN_IN = 100.0
"""A lam of GAIRAT by which all weights are 1 exactly, as by infinity, for which JSON has no number."""

PARAM_SCHEDULES: Mapping[str, Sequence[tuple[str, float, float]]] = {
    "fat": [("tau", 50 / 120, 1), ("tau", 90 / 120, 2)],
    "fat-trades": [("tau", 30 / 85, 1), ("tau", 50 / 85, 2), ("tau", 70 / 85, 3)],
    "fat-mart": [("tau", 20 / 90, 1), ("tau", 40 / 90, 2), ("tau", 60 / 90, 3), ("tau", 80 / 90, 4)],
    "gairat": [("lam", 0, BURN_IN), ("lam", 59 / 120, -1)],
    "gair-fat": [("lam", 0, BURN_IN), ("lam", 59 / 120, 0), ("tau", 40 / 120, 3), ("tau", 70 / 120, 6)],
    "gair-rst": [("lam", 0, BURN_IN), ("lam", 99 / 200, 3)],
}
"""(name, share of the epochs, value): a parameter of the loss once that share has passed, by its authors' schedule."""

REPLAYS = 4
"""Of the short schedules for free adversarial training; its authors recommend 8 for 205 epochs."""


def _replayed(base: Recipe, replays: int) -> Recipe:
    """As many optimizer steps from fewer batches, each used several times."""
    milestones = [(max(2, (epoch - 1) // replays + 1), lr) for epoch, lr in base.milestones]
    return replace(
        base,
        epochs=max(1, base.epochs // replays),
        milestones=milestones,
        replays=replays,
        warm_up=base.warm_up / replays,
    )


def _for_all(dataset: str, base: Recipe, name: str = "fast") -> dict[tuple[str, str, str], Recipe]:
    """The recipes of a dataset under a name: one for all defenses, and those of defenses that need their own."""
    own = {
        **{defense: replace(base, param_schedule=steps) for defense, steps in PARAM_SCHEDULES.items()},
        "free": _replayed(base, REPLAYS),
        "transfer-mlp": replace(base, architecture=base.architecture + "+mlp"),
    }
    return {(defense, dataset, name): chosen for defense, chosen in {"*": base, **own}.items()}


RECIPES: Mapping[tuple[str, str, str], Recipe] = {
    **_for_all("digits", DIGITS),
    # The attack of the validation says nothing of a masked model, and costs as much as all else.
    **{(name, "digits", "fast"): replace(DIGITS, inner_steps=1) for name in MASKS},
    # Its authors' lam is for 640 features; the digits network has 64.
    ("transfer-lwf", "digits", "fast"): replace(DIGITS, param_schedule=[("lam", 0, 0.05)]),
    **_for_all("mnist", FAST_MNIST),
    **{(name, "mnist", "fast"): replace(FAST_MNIST, warm_up=0, inner_steps=1) for name in MASKS},
    **_for_all("fashion-mnist", FAST_MNIST),
    **_for_all("cifar10", FAST_CIFAR),
    **_for_all("cifar10", CPU_CIFAR, "cpu"),
    **_for_all("cifar100", FAST_CIFAR),
    **_for_all("svhn", replace(FAST_CIFAR, augmentation="none")),  # a mirrored digit is none
    **{("cat", name, "fast"): replace(FAST_CIFAR, inner_steps=7) for name in ("cifar10", "cifar100")},
    ("cat", "svhn", "fast"): replace(FAST_CIFAR, inner_steps=7, augmentation="none"),
    ("ibp", "digits", "fast"): IBP_DIGITS,
    ("convex-bound", "digits", "fast"): CONVEX_DIGITS,
    ("ibp", "mnist", "fast"): FAST_IBP_MNIST,
    ("ibp", "mnist", "paper"): IBP_MNIST,
    ("convex-bound", "mnist", "fast"): FAST_CONVEX_MNIST,
    ("convex-bound", "mnist", "paper"): CONVEX_MNIST,
    ("natural", "mnist", "paper"): TRADES_MNIST,
    ("trades", "mnist", "paper"): TRADES_MNIST,
    ("madry", "mnist", "paper"): MADRY_MNIST,
    ("fast", "mnist", "paper"): ONE_STEP_MNIST,
    ("fast", "mnist", "fast"): ONE_STEP_MNIST,
    # At 1e-3 the divergence, though clamped, wins over the cross-entropy, and the loss rises step by step.
    ("mart", "mnist", "fast"): replace(FAST_MNIST, lr=3e-4, milestones=[(9, 3e-5)]),
    # The strided network stays below 99% clean. Cheap without an attack, so the larger one may learn it.
    ("natural", "mnist", "fast"): replace(FAST_MNIST, architecture="small-cnn", warm_up=0),
    ("natural", "cifar10", "paper"): TRADES_CIFAR,
    ("madry", "cifar10", "paper"): MADRY_CIFAR,
    # GAIRAT's authors trained their row of Madry's training themselves, as TRADES's did the network of their black-box
    # table (how, they do not say). The row of FAT's Table 1 is of DAT's authors.
    ("madry", "cifar10", "gairat-table1"): FAT_CIFAR,
    ("madry", "cifar10", "trades-table5"): TRADES_CIFAR,
    ("madry", "cifar10", "fat-table1"): DAT_CIFAR,
    ("trades", "cifar10", "paper"): TRADES_CIFAR,
    # TRADES's authors trained the three regularisations of their Table 5 themselves, without releasing how.
    ("mixed", "cifar10", "paper"): TRADES_CIFAR,
    ("input-gradient", "cifar10", "paper"): TRADES_CIFAR,
    ("stability", "cifar10", "paper"): TRADES_CIFAR,
    ("half-half", "cifar10", "paper"): replace(RST_CIFAR, batch_size=128),
    ("mart", "cifar10", "paper"): replace(
        TRADES_CIFAR, epochs=90, milestones=[(75, 0.01), (90, 0.001)], weight_decay=7e-4
    ),
    ("fat", "cifar10", "paper"): replace(FAT_CIFAR, param_schedule=PARAM_SCHEDULES["fat"]),
    ("fat-trades", "cifar10", "paper"): replace(TRADES_CIFAR, epochs=85, param_schedule=PARAM_SCHEDULES["fat-trades"]),
    ("fat-mart", "cifar10", "paper"): replace(
        TRADES_CIFAR, epochs=90, milestones=[(60, 0.01), (90, 0.001)], param_schedule=PARAM_SCHEDULES["fat-mart"]
    ),
    ("dat", "cifar10", "paper"): DAT_CIFAR,
    # A guess: the row of FAT's Table 1 is a run of DAT's authors, not described. CAT's own go up to 7 steps.
    ("cat", "cifar10", "paper"): replace(DAT_CIFAR, inner_steps=7),
    ("gairat", "cifar10", "paper"): replace(FAT_CIFAR, param_schedule=PARAM_SCHEDULES["gairat"]),
    ("gair-fat", "cifar10", "paper"): replace(FAT_CIFAR, param_schedule=PARAM_SCHEDULES["gair-fat"]),
    ("free", "cifar10", "paper"): _replayed(MADRY_CIFAR, 8),
    ("fast", "cifar10", "paper"): replace(
        FAST_CIFAR,
        architecture="preact-resnet-18+cifar10-norm",
        epochs=15,
        lr=0.2,
        milestones=[],
        schedule="cyclic",
        epsilon=8 / 255,
    ),
    ("self-training", "cifar10", "paper"): RST_CIFAR,
    ("rst", "cifar10", "paper"): RST_CIFAR,
    ("rst-stability", "cifar10", "paper"): replace(RST_CIFAR, epochs=800),
    ("gair-rst", "cifar10", "paper"): replace(RST_CIFAR, param_schedule=PARAM_SCHEDULES["gair-rst"]),
    ("fine-tuning", "cifar10", "paper"): replace(
        RST_CIFAR, epochs=5, batch_size=128, lr=1e-3, inner_rel_step_size=0.25, epsilon=8 / 255
    ),
    ("transfer-lwf", "cifar10", "paper"): TRANSFER_CIFAR,
    ("transfer-last-layer", "cifar10", "paper"): TRANSFER_CIFAR,
    ("transfer-mlp", "cifar10", "paper"): replace(TRANSFER_CIFAR, architecture=TRANSFER_CIFAR.architecture + "+mlp"),
    ("smoothing", "cifar10", "paper"): SMOOTHING_CIFAR,
}
"""(defense, dataset, recipe) to settings; "*" stands for every defense that has no line of its own."""


FIRST_STAGES: Mapping[tuple[str, str, str], Recipe] = {
    **{
        (defense, "cifar10", "paper"): replace(RST_CIFAR, epsilon=None)
        for defense in ("self-training", "rst", "rst-stability", "gair-rst")
    },
    ("fine-tuning", "cifar10", "paper"): replace(RST_CIFAR, epochs=100, epsilon=8 / 255, inner_rel_step_size=0.25),
}
"""Settings of the model that a defense trains first, where its authors had others than that model's own recipe."""


def recipe(defense: str, dataset: str, name: str) -> Recipe:
    """The settings of a defense on a dataset. Raises: InputError where there are none."""
    found = RECIPES.get((defense, dataset, name)) or RECIPES.get(("*", dataset, name))
    if found is None:
        known = sorted({kind for who, data, kind in RECIPES if data == dataset and who in ("*", defense)})
        made_for = sorted({data for who, data, kind in RECIPES if kind == name and who in ("*", defense)})
        elsewhere = f"; {name!r} is for {', '.join(made_for)}" if made_for else ""
        raise InputError(
            f"no recipe {name!r} for {defense} on {dataset}; known: {', '.join(known) or 'none'}{elsewhere}"
        )
    return found
