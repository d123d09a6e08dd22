"""CovidGAN: the generator and both readings of the discriminator of a three-class AC-GAN (recipe §4).

Kernels start from N(0, 0.02). ``width`` scales the channel counts and ``image_size`` the side, in steps
of 16; 1.0 and 112 give the recipe's networks.
"""

from __future__ import annotations

import keras
from keras import layers

# (channels, stride) of each block. The report states shapes and a stride that changes "alternatively";
# the public code of this family has the first form, the literal reading is the second.
DISCRIMINATORS: dict[str, tuple[tuple[int, int], ...]] = {
    "five_conv": ((32, 1), (64, 2), (128, 2), (256, 2), (512, 2)),
    "alternating": ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
}


def _normal(seed: int) -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02, seed=seed)


def build_generator(
    *,
    classes: int = 3,
    image_size: int = 112,
    width: float = 1.0,
    latent_dim: int = 100,
    embedding_dim: int = 50,
    seed: int = 0,
) -> keras.Model:
    """Latent (n, 100) and label (n, 1) → images (n, 112, 112, 3) in [−1, 1]; 22,300,508 parameters."""
    side = image_size // 16
    deep = round(1024 * width)
    seeds = iter(range(seed, seed + 8))

    label = keras.Input((1,), dtype="int32", name="label")
    y = layers.Embedding(classes, embedding_dim, embeddings_initializer=_normal(next(seeds)))(label)
    y = layers.Dense(side * side, kernel_initializer=_normal(next(seeds)))(y)
    y = layers.Reshape((side, side, 1))(y)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(side * side * deep, activation="relu", kernel_initializer=_normal(next(seeds)))(latent)
    x = layers.Reshape((side, side, deep))(x)

    x = layers.Concatenate()([x, y])
    for channels in (512, 256, 128):
        x = layers.Conv2DTranspose(
            round(channels * width), 5, 2, padding="same", kernel_initializer=_normal(next(seeds))
        )(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.Conv2DTranspose(3, 5, 2, padding="same", kernel_initializer=_normal(next(seeds)))(x)
    return keras.Model([latent, label], layers.Activation("tanh", dtype="float32")(x), name="generator")


def build_discriminator(
    variant: str = "five_conv",
    *,
    classes: int = 3,
    image_size: int = 112,
    width: float = 1.0,
    dropout: float = 0.5,
    seed: int = 100,
) -> keras.Model:
    """Images (n, 112, 112, 3) → probability of being real (n, 1) and of each class (n, 3).

    1,672,900 parameters for ``five_conv``, 2,449,284 for ``alternating``.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = image
    for block, (channels, stride) in enumerate(DISCRIMINATORS[variant]):
        x = layers.Conv2D(round(channels * width), 3, stride, padding="same", kernel_initializer=_normal(seed + block))(
            x
        )
        x = layers.BatchNormalization()(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
        x = layers.Dropout(dropout, seed=seed + 50 + block)(x)
    x = layers.Flatten()(x)
    real = layers.Dense(1, activation="sigmoid", dtype="float32", kernel_initializer=_normal(seed + 20), name="real")(x)
    kind = layers.Dense(
        classes, activation="softmax", dtype="float32", kernel_initializer=_normal(seed + 21), name="class"
    )(x)
    return keras.Model(image, [real, kind], name="discriminator")
