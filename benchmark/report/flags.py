"""Flags: what each caveat of a number says. Behind a flag's name a figure may stand in brackets: NAME(FIGURE)."""

from collections.abc import Iterable, Mapping

FLAGS: Mapping[str, str] = {
    "probabilities": "the model returns probabilities, not logits: gradient attacks may be too weak",
    "randomized": "passes over the same images differ: judged by its mean probabilities over several; batch size "
    "and device may change its numbers",
    "dropout": "a dropout layer is left on",
    "train-mode": "a pass over images changes the model: its numbers depend on what was asked before",
    "stateful": "a pass changes later ones: each is made by a copy of the model as it was handed over",
    "dynamic": "the forward pass takes gradients or changes the model: attacks may see another model than the judge",
    "batch-dependent": "an image's logits depend on the others of its batch",
    "normalisation": "it seems to be trained on images normalised by this beside its own, or to normalise them twice: "
    "give --mean and --std, or take them away; own: those of the images",
    "no-gradients": "attacks by gradients cannot be run on it, and black-box searches alone tell little",
    "zero-gradients": "the share of images without any gradient: attacks by gradients tell little",
    "transfer-beats-white-box": "a transfer attack breaks this many points more than the white-box attacks; "
    "gradients are masked",
    "black-box-beats-gradients": "a black-box search breaks this many points more than the attacks by gradients; "
    "gradients are masked",
    "pgd-overestimates": "PGD-100 leaves this many points more standing than AutoAttack; 3 to 8 are usual",
    "one-step-beats-iterative": "FGSM breaks this many points more than the longest PGD; gradients are masked",
    "logit-scaling": "PGD-40 breaks this many points more with the logits times ten; the loss hides the way",
    "other-loss": "PGD breaks this many points more by the DLR loss than by cross-entropy; the scale of its logits "
    "hides the way",
    "adaptive-beats-plain": "an adaptive attack breaks this many points more than the same attack on the model itself; "
    "its gradients are masked",
    "not-shown": "the attack that `diagnose` tested is not shown to work on it: these checks fail",
    "fewer-images": "the worst case is over fewer images than that of other models",
    "fewer-attacks": "not all attacks of this table were run: its worst case is over fewer",
}


def name_of(flag: str) -> str:
    """The name of a flag, without its figure."""
    return flag.partition("(")[0]


def flag_names(flags: Iterable[str]) -> set[str]:
    """The names of some flags, without their figures."""
    return {name_of(flag) for flag in flags}
