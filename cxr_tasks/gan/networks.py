"""CovidGAN: the generator and both readings of the discriminator of a three-class AC-GAN (recipe §4).

Kernels start from N(0, 0.02). A width of 1.0 and a side of 112 give the recipe's networks.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

# (channels, stride) of each block. The report states shapes and a stride that changes "alternatively". The public code
# of this family has the first form; the literal reading is the second.
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
    batch_norm_momentum: float = 0.99,
    seed: int = 0,
    dtype: str = "float32",
    synchronized: bool = False,
) -> keras.Model:
    """Latent (n, 100) and label (n, 1) → images (n, 112, 112, 3) in [−1, 1]; 22,300,508 parameters.

    Args:
        classes: Number of classes.
        image_size: Side of the images, a multiple of 16.
        width: Scales the channel counts.
        latent_dim: Length of a latent point.
        embedding_dim: Length of a label's embedding.
        batch_norm_momentum: Of the batch statistics that images are made with after the training.
        seed: Of the first weights; the six numbers after it are used too.
        dtype: A Keras dtype policy. With ``mixed_bfloat16`` the hidden layers compute in bfloat16; variables and
            outputs stay float32.
        synchronized: Take batch statistics over all replicas of a distributed step.
    """
    side = image_size // 16
    deep = round(1024 * width)
    seeds = iter(range(seed, seed + 8))

    label = keras.Input((1,), dtype="int32", name="label")
    y = layers.Embedding(classes, embedding_dim, embeddings_initializer=_normal(next(seeds)), dtype=dtype)(label)
    y = layers.Dense(side * side, kernel_initializer=_normal(next(seeds)), dtype=dtype)(y)
    y = layers.Reshape((side, side, 1), dtype=dtype)(y)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(side * side * deep, activation="relu", kernel_initializer=_normal(next(seeds)), dtype=dtype)(
        latent
    )
    x = layers.Reshape((side, side, deep), dtype=dtype)(x)

    x = layers.Concatenate(dtype=dtype)([x, y])
    for channels in (512, 256, 128):
        x = layers.Conv2DTranspose(
            round(channels * width), 5, 2, padding="same", kernel_initializer=_normal(next(seeds)), dtype=dtype
        )(x)
        x = layers.BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, dtype=dtype)(x)
        x = layers.ReLU(dtype=dtype)(x)
    x = layers.Conv2DTranspose(3, 5, 2, padding="same", kernel_initializer=_normal(next(seeds)), dtype=dtype)(x)
    return keras.Model([latent, label], layers.Activation("tanh", dtype="float32")(x), name="generator")


def build_discriminator(
    variant: str = "five_conv",
    *,
    classes: int = 3,
    image_size: int = 112,
    width: float = 1.0,
    dropout: float = 0.5,
    batch_norm_momentum: float = 0.99,
    seed: int = 100,
    spectral_norm: bool = False,
    projection: bool = False,
    dtype: str = "float32",
    synchronized: bool = False,
) -> keras.Model:
    """Images (n, 112, 112, 3) → probability of being real (n, 1) and of each class (n, 3).

    1,672,900 parameters for ``five_conv``, 2,449,284 for ``alternating``.

    With ``projection`` the model is images and labels (n, 1) → probability of being real (n, 1): a linear score
    plus the inner product of the features with an embedding of the label (Miyato & Koyama 2018), and no class
    output.

    Args:
        variant: Name of the convolutions in ``DISCRIMINATORS``.
        classes: Number of classes.
        image_size: Side of the images, a multiple of 16.
        width: Scales the channel counts.
        dropout: Rate after every block.
        batch_norm_momentum: Of the batch statistics.
        seed: Of the first weights and of dropout; numbers up to 57 above it are used too.
        spectral_norm: Divide every kernel by its largest singular value (Miyato et al. 2018).
        projection: Put the label into the score, and leave the class output out.
        dtype: As in :func:`build_generator`.
        synchronized: As in :func:`build_generator`.
    """

    def weighted(layer: keras.Layer) -> keras.Layer:
        return SpectralNormalization(layer, dtype=layer.dtype_policy) if spectral_norm else layer

    image = keras.Input((image_size, image_size, 3), name="image")
    x = image
    for block, (channels, stride) in enumerate(DISCRIMINATORS[variant]):
        x = weighted(
            layers.Conv2D(
                round(channels * width),
                3,
                stride,
                padding="same",
                kernel_initializer=_normal(seed + block),
                dtype=dtype,
            )
        )(x)
        x = layers.BatchNormalization(momentum=batch_norm_momentum, synchronized=synchronized, dtype=dtype)(x)
        x = layers.LeakyReLU(negative_slope=0.2, dtype=dtype)(x)
        x = layers.Dropout(dropout, seed=seed + 50 + block, dtype=dtype)(x)
    x = layers.Flatten(dtype=dtype)(x)
    head = {"dtype": "float32"}
    score = weighted(layers.Dense(1, kernel_initializer=_normal(seed + 20), **head))(x)
    if projection:
        label = keras.Input((1,), dtype="int32", name="label")
        embedding = layers.Embedding(classes, x.shape[-1], embeddings_initializer=_normal(seed + 21), **head)
        y = layers.Flatten(**head)(weighted(embedding)(label))
        score = layers.Add(name="real_logit", **head)([score, layers.Dot(1, **head)([x, y])])
        return keras.Model([image, label], _real(score), name="discriminator")
    score = layers.Identity(name="real_logit", **head)(score)
    kind = weighted(layers.Dense(classes, kernel_initializer=_normal(seed + 21), **head))(x)
    kind = layers.Identity(name="class_logits", **head)(kind)
    probabilities = layers.Activation("softmax", dtype="float32", name="class")(kind)
    return keras.Model(image, [_real(score), probabilities], name="discriminator")


def _real(score: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("sigmoid", dtype="float32", name="real")(score)


def before_activation(discriminator: keras.Model) -> keras.Model:
    """The same layers up to the logits of the outputs. Losses and penalties are computed from logits."""
    names = [layer.name for layer in discriminator.layers if layer.name in ("real_logit", "class_logits")]
    outputs = [discriminator.get_layer(name).output for name in sorted(names, reverse=True)]
    return keras.Model(discriminator.input, outputs[0] if len(outputs) == 1 else outputs, name="logits")


@keras.saving.register_keras_serializable("cxr_tasks")
class SpectralNormalization(layers.Wrapper):
    """Runs a layer with its kernel (or embeddings) divided by an estimate of its largest singular value.

    The stored kernel stays as it is and the gradient passes through the division (Miyato et al. 2018, eq. 9). Keras'
    layer of that name overwrites the kernel instead, also while only the generator is trained. Each call takes one
    step of the power iteration, and keeps the result in training only.
    """

    def build(self, input_shape: Any) -> None:
        """Make the layer's weights and the vector u of the power iteration."""
        super().build(input_shape)
        self.kernel = self.layer.embeddings if hasattr(self.layer, "embeddings") else self.layer.kernel
        self.vector_u = self.add_weight(
            shape=(1, self.kernel.shape[-1]),
            # A fixed vector draws nothing from the global seed. Any vector with a share in the first singular
            # direction will do.
            initializer="ones",
            trainable=False,
            name="vector_u",
            dtype="float32",
            autocast=False,
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The wrapped layer's output with the normalised kernel."""
        kernel = ops.cast(self.kernel, "float32")
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        fixed = ops.stop_gradient(matrix)
        v = _unit(ops.matmul(self.vector_u, ops.transpose(fixed)))
        u = _unit(ops.matmul(v, fixed))
        if training:
            self.vector_u.assign(u)
        sigma = ops.sum(ops.matmul(v, matrix) * u)
        with keras.StatelessScope(state_mapping=[(self.kernel, kernel / (sigma + 1e-12))]):
            return self.layer(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output shape of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)


def _unit(vector: Any) -> Any:
    return vector / (ops.sqrt(ops.sum(ops.square(vector))) + 1e-12)
