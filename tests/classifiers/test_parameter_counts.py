"""The networks laid beside the recipe, number by number."""

import keras
import numpy as np
import pytest

from cxr_tasks.classifiers.backbones import build_backbone
from cxr_tasks.classifiers.cnn import build_cnn
from cxr_tasks.classifiers.networks import on_frozen_backbone
from cxr_tasks.gan.networks import build_discriminator, build_generator


def sizes(model: keras.Model) -> tuple[int, int, int]:
    """Parameters in all, trained, and frozen."""
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return model.count_params(), trained, model.count_params() - trained


def on(name: str) -> keras.Model:
    return on_frozen_backbone(name, build_backbone(name, 224), 3, "paper").full


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: on("vgg16"), (17_926_467, 3_211_779, 14_714_688)),
        (lambda: on("resnet50"), (23_858_435, 270_723, 23_587_712)),
        (lambda: build_cnn(224, 3, "paper"), (3_043_695, 3_043_689, 6)),
    ],
    ids=["vgg16", "resnet50", "cnn"],
)
def test_classifiers(build, expected):
    assert sizes(build()) == expected


def test_generator():
    generator = build_generator()

    assert sizes(generator)[:2] == (22_300_508, 22_298_716)
    assert generator.output_shape == (None, 112, 112, 3)


@pytest.mark.parametrize(("variant", "expected"), [("five_conv", 1_672_900), ("alternating", 2_449_284)])
def test_discriminators(variant, expected):
    discriminator = build_discriminator(variant)

    assert discriminator.count_params() == expected
    assert [tuple(shape) for shape in discriminator.output_shape] == [(None, 1), (None, 3)]


def test_the_discriminators_downsample_as_the_report_says():
    shapes = {layer.output.shape[1:] for layer in build_discriminator("five_conv").layers}

    assert {(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)} <= shapes


def test_the_cnn_flattens_to_what_the_recipe_says():
    flat = next(layer for layer in build_cnn(224, 3, "paper").layers if isinstance(layer, keras.layers.Flatten))

    assert flat.output.shape == (None, 23_328)


def test_width_and_size_scale_the_gan():
    generator = build_generator(image_size=64, width=0.25)

    assert generator.output_shape == (None, 64, 64, 3)
    assert generator.count_params() < 22_300_508 / 8
