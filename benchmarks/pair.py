"""An arm as the project trains it, against the same recipe as a notebook would write it, on the same machine.

    python benchmarks/pair.py FOLDER [--size 112] [--images 384] [--epochs 20]

FOLDER is laid out as the COVID-19 Radiography Database. The notebook is ``ImageDataGenerator.flow_from_directory`` and
``model.fit`` in float32. Each training is a process of its own, one after the other, from the PNG files to the trained
model with as many epochs: VGG16 (the same frozen weights in all of them) and the CNN, un-augmented and classical,
VGG16 also with a pool of four views an image. Reading, decoding and feature extraction count; loading TensorFlow,
testing, and what the steps keep in the store and in MLflow do not. Accuracy is that on the same held-out images.

Where the processor has instructions for it, the exact classical arm is also trained with its backbone in bfloat16. The
backbone alone is timed too: an arm that shows it new pixels every epoch cannot be faster than that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxr_tasks.precision import CPU_FLAGS, cpu_flags

VIEWS = 4
SPLITS = {"train": 0.625, "validation": 0.125, "test": 0.25}
# Way, network, arm; the notebook's comes first, and the others are held against it.
TRAININGS = [
    ("notebook", "vgg16", "none"),
    ("ours", "vgg16", "none"),
    ("notebook", "vgg16", "classical"),
    ("ours", "vgg16", "classical"),
    ("ours", "vgg16", f"views: {VIEWS}"),
    ("notebook", "cnn", "none"),
    ("ours", "cnn", "none"),
    ("notebook", "cnn", "classical"),
    ("ours", "cnn", "classical"),
]


def main(source: str, size: int, images: int, epochs: int) -> None:
    """Measure each training in a process of its own, print a table, and end with one JSON object."""
    with tempfile.TemporaryDirectory() as scratch:
        counts = deal(Path(source), Path(scratch), images)
        print(f"{os.cpu_count()} cores, {size} px, {epochs} epochs, images {counts}", flush=True)
        common = {"folder": scratch, "size": size, "epochs": epochs}
        trainings = list(TRAININGS)
        if cpu_flags() & CPU_FLAGS:
            trainings.insert(4, ("ours, bfloat16", "vgg16", "classical"))
        else:
            print("This processor has no instructions for bfloat16: that way is left out", flush=True)
        measured("weights", "vgg16", "none", common)
        alone = measured("backbone alone", "vgg16", "classical", common)
        results = {training: measured(*training, common) for training in trainings}

    print(f"\n{'network':<9}{'arm':<12}{'way':<16}{'seconds':>9}{'ratio':>7}{'test accuracy':>15}")
    figures: dict[str, Any] = {}
    for (way, network, arm), result in results.items():
        peer = results["notebook", network, "classical" if arm.startswith("views") else arm]
        ratio = peer["seconds"] / result["seconds"]
        print(f"{network:<9}{arm:<12}{way:<16}{result['seconds']:>9.1f}{ratio:>7.2f}{result['accuracy']:>14.1%}")
        figures[f"{network} {arm} {way}"] = {**result, "ratio": round(ratio, 3)}
    most = results["notebook", "vgg16", "classical"]["seconds"] / alone["seconds"]
    print(
        f"The frozen backbone alone, on every training image of every epoch and once on the validation images: "
        f"{alone['seconds']:.1f} s, {alone['gflops']:.0f} GFLOP/s where a matrix product reaches "
        f"{alone['matmul_gflops']:.0f}. An exact classical arm with these float32 convolutions is at most {most:.2f} "
        "times as fast."
    )
    exact = figures.get("vgg16 classical ours, bfloat16", figures["vgg16 classical ours"])
    summary = {
        "benchmark": "pair",
        "ratio": exact["ratio"],
        "ratio_precision": "bfloat16" if cpu_flags() & CPU_FLAGS else "float32",
        "ratio_unaugmented": figures["vgg16 none ours"]["ratio"],
        "ratio_views": figures[f"vgg16 views: {VIEWS} ours"]["ratio"],
        "cnn_share": {arm: round(1 / figures[f"cnn {arm} ours"]["ratio"], 3) for arm in ("none", "classical")},
        "most_possible_exact": round(most, 3),
    }
    print(json.dumps({**summary, "backbone_alone": alone, "trainings": figures}))


def deal(source: Path, folder: Path, images: int) -> dict[str, int]:
    """Link ``images`` images to ``folder/<split>/<class>``, in the proportions of the source and of ``SPLITS``."""
    files = {path.name: sorted((path / "images").glob("*.png")) for path in source.iterdir() if path.is_dir()}
    files = {name: found for name, found in files.items() if found}
    total, counts = sum(map(len, files.values())), dict.fromkeys(SPLITS, 0)
    for name, found in sorted(files.items()):
        chosen = np.random.default_rng(0).permutation(len(found))[: round(images * len(found) / total)]
        cuts = np.round(np.cumsum(list(SPLITS.values())) * len(chosen)).astype(int)
        for split, part in zip(SPLITS, np.split(chosen, cuts[:-1]), strict=True):
            (folder / split / name).mkdir(parents=True)
            for position in part:
                (folder / split / name / found[position].name).symlink_to(found[position].resolve())
            counts[split] += len(part)
    return counts


def measured(way: str, network: str, arm: str, common: dict[str, Any]) -> dict[str, Any]:
    """One training in a process of its own."""
    task = json.dumps({"way": way, "network": network, "arm": arm, **common})
    done = subprocess.run(
        [sys.executable, __file__, "--task", task], capture_output=True, text=True, env={**os.environ}, check=False
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{network} {arm} {way}: {result}", flush=True)
    return result


def task(folder: str, size: int, epochs: int, way: str, network: str, arm: str) -> dict[str, Any]:
    """Do one training, or what is asked instead of one."""
    from cxr_tasks.config import resolve

    changes = {"image_size": size, "epochs": epochs, "patience": epochs, "weights": {"default": "random"}}
    changes |= {"names": [network], "precision": "bfloat16" if "bfloat16" in way else "float32"}
    views = VIEWS if arm.startswith("views") else None
    settings = resolve("paper", {"classifiers": changes, "augmentation": {"views": views}})
    root, weights = Path(folder), Path(folder) / "vgg16.weights.h5"
    if way == "weights":
        from cxr_tasks.classifiers.weights import backbone_with_weights

        backbone_with_weights("vgg16", size, "random", "paper", read(root / "train", size)[0][:64], 0).save_weights(
            weights
        )
        return {}
    if way == "backbone alone":
        return backbone_alone(root, weights, size, epochs)
    if way == "notebook":
        seconds, predict = notebook(settings, root, weights, network, arm)
    else:
        file = {"weights": {"vgg16": str(weights)}}
        chosen = settings.model_copy(update={"classifiers": settings.classifiers.model_copy(update=file)})
        seconds, predict = ours(chosen, root, network, arm)
    pixels, labels = read(root / "test", size)
    return {"seconds": round(seconds, 1), "accuracy": float((predict(pixels).argmax(1) == labels).mean())}


def read(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, S, S) uint8 images of a folder of class folders, and their classes."""
    pixels, labels = [], []
    for number, path in enumerate(sorted(folder.iterdir())):
        for file in sorted(path.iterdir()):
            image = Image.open(file).convert("L").resize((size, size), Image.Resampling.BILINEAR)
            pixels.append(np.asarray(image))
            labels.append(number)
    return np.stack(pixels), np.array(labels)


def notebook(settings: Any, root: Path, weights: Path, network: str, arm: str) -> tuple[float, Any]:
    """Seconds, and a function from gray images to probabilities."""
    import keras
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    chosen, size = settings.classifiers, settings.classifiers.image_size
    keras.utils.set_random_seed(0)
    started = time.perf_counter()
    how = settings.augmentation
    drawn = {
        "rotation_range": how.rotation,
        "shear_range": math.degrees(math.atan(how.shear)),
        "zoom_range": how.zoom,
        "horizontal_flip": how.horizontal_flip,
        "width_shift_range": how.width_shift,
        "height_shift_range": how.height_shift,
        "fill_mode": "nearest",
    }
    shape = {"target_size": (size, size), "batch_size": chosen.batch_size, "class_mode": "categorical"}
    shape["interpolation"] = "bilinear"
    train = ImageDataGenerator(rescale=1 / 255, **(drawn if arm == "classical" else {})).flow_from_directory(
        str(root / "train"), **shape
    )
    validation = ImageDataGenerator(rescale=1 / 255).flow_from_directory(str(root / "validation"), **shape)
    layers = keras.layers
    if network == "vgg16":
        base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
        base.load_weights(weights)
        base.trainable = False
        body = [base, layers.Flatten(), layers.Dense(128, activation="relu")]
    else:
        body = [
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
        ]
    top = [layers.Dropout(0.5), layers.Dense(train.num_classes, activation="softmax")]
    model = keras.Sequential([keras.Input((size, size, 3)), *body, *top])
    model.compile(keras.optimizers.Adam(chosen.learning_rate), "categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=chosen.patience, restore_best_weights=True)
    model.fit(train, validation_data=validation, epochs=chosen.epochs, callbacks=[stop], verbose=0)
    seconds = time.perf_counter() - started
    return seconds, lambda pixels: model.predict(np.repeat(pixels[..., None], 3, -1) / np.float32(255), verbose=0)


def ours(settings: Any, root: Path, network: str, arm: str) -> tuple[float, Any]:
    """Seconds, and a function from gray images to probabilities."""
    import pandas as pd

    from cxr_tasks.classifiers.features import ArmFeatures, FrozenTrunk
    from cxr_tasks.classifiers.networks import build_network
    from cxr_tasks.classifiers.training import fit_classifier
    from cxr_tasks.data.dataset import Images

    started = time.perf_counter()
    classes = sorted(path.name for path in (root / "train").iterdir())

    def images(split: str) -> Images:
        pixels, labels = read(root / split, settings.classifiers.image_size)
        ids = np.array([f"{split}{i:064x}" for i in range(len(pixels))])
        table = {"image_id": ids, "group": ids, "label": [classes[k] for k in labels], "provenance": "real"}
        return Images(pixels, labels, ids, pd.DataFrame(table))

    train, held_out = images("train"), {"validation": images("validation")}
    built = build_network(network, settings, train.pixels, seed=0)
    augmentation = None if arm == "none" else settings.augmentation
    features = ArmFeatures(FrozenTrunk(built.fast_trunk), train, held_out, augmentation, 0)
    fit_classifier(built, features, train, held_out, classes, settings.classifiers, seed=0)
    seconds = time.perf_counter() - started
    return seconds, lambda pixels: built.full.predict(pixels[..., None], verbose=0)


def backbone_alone(root: Path, weights: Path, size: int, epochs: int) -> dict[str, float]:
    """Seconds of VGG16's forward passes in the exact classical arm, and the rates of it and of a matrix product."""
    import keras
    import tensorflow as tf

    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
    base.load_weights(weights)
    run = tf.function(lambda x: base(x, training=False))
    pixels = read(root / "train", size)[0]
    x = np.repeat(pixels[..., None], 3, -1).astype(np.float32) / 255
    parts = [tf.constant(x[start : start + 64]) for start in range(0, len(x), 64)]
    [run(part) for part in parts]
    an_image = fastest(lambda: [run(part).numpy() for part in parts]) / len(x)
    square = tf.random.normal((4096, 4096))
    product = tf.function(tf.matmul)
    product(square, square)
    rate = 2 * 4096**3 / fastest(lambda: product(square, square).numpy()) / 1e9
    # Multiply-adds of the convolutions: each kernel entry once for each output pixel.
    convolutions = [layer for layer in base.layers if isinstance(layer, keras.layers.Conv2D)]
    gflop = sum(2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3]) for layer in convolutions) / 1e9
    held_out = len(read(root / "validation", size)[0])
    return {
        "seconds": round(an_image * (epochs * len(x) + held_out), 1),
        "gflops": round(gflop / an_image, 1),
        "matmul_gflops": round(rate, 1),
    }


def fastest(work: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest of several runs: what else goes on in the machine can only add to it."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        print(json.dumps(task(**json.loads(options.task))))
    elif options.folder:
        main(options.folder, options.size, options.images, options.epochs)
    else:
        sys.exit(__doc__)
