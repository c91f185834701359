"""Images to attack and to train on."""
