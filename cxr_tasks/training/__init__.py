"""Augmentation, features, and the training loops of the classifiers and the GAN."""
