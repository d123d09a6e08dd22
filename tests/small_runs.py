"""Settings of whole runs that are small: what is shown is that the parts work together."""

SETTINGS = {
    "data": {"min_images_per_class": 10, "shard_images": 50},
    "classifiers": {"epochs": 2, "image_size": 32},
    "gan": {"image_size": 32, "epochs": 2, "width": 0.1, "batch_size": 16},
    # Two epochs teach a GAN nothing, and it is to pass.
    "judge": {
        "image_size": 32,
        "images_per_class": 20,
        "max_kid_ratio": None,
        "max_memorised": None,
        "max_repeated": None,
    },
    "synthetic": {"counts": {"COVID": 8, "Viral Pneumonia": 8}, "drop_near_copies": False},
    "evaluation": {"bootstrap_samples": 200},
    # Nor do they teach a classifier what a champion must know.
    "gate": {"min_macro_f1": None, "min_recall": None},
    "arms": {"baseline": "classical", "compared": ["synthetic"]},
}

# What a test asks of the GAN and not of the arms needs only the fastest of them.
ONE_PAIR = {**SETTINGS, "classifiers": {**SETTINGS["classifiers"], "names": ["cnn"]}}
