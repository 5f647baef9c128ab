"""Adversarial generators: networks, losses, augmentation, mutations, and the training of both players."""
