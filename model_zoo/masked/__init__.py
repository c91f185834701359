"""Defenses that mask gradients, one file each, around or inside any network; it may import attacks and files alone."""
