"""Typed handles: what one step hands to the next. Airflow passes them between tasks as plain JSON.

A handle names its artifact in the store, the MLflow run that it belongs to, and the few figures that people and later
steps want without opening a file. Each kind knows how to load the files of its artifact; beside the feature store
these are the only lines below ``steps`` that read the store. Heavy libraries are imported where a file is loaded, so
that a DAG file can import this module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, Field

from cxr_tasks.durations import time_taken
from cxr_tasks.errors import DataError, in_one_line
from cxr_tasks.image_settings import FIRST_RESIZE, ResizeName
from cxr_tasks.keras_file import NETWORK_FILE, read_network
from cxr_tasks.registry.champions import Condition
from cxr_tasks.store import open_store
from cxr_tasks.strict import Strict

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd

    from cxr_tasks.classifiers.training_set import ExtraImages
    from cxr_tasks.data.dataset import Images
    from cxr_tasks.data.stacks import RowStack
    from cxr_tasks.evaluation.comparison import PairComparison
    from cxr_tasks.evaluation.external import ExternalFindings
    from cxr_tasks.evaluation.findings import ArmFindings
    from cxr_tasks.evaluation.subgroups import SubgroupFindings
    from cxr_tasks.gan.quality import GanQuality


class RunContext(Strict):
    """What every step of one DAG run shares.

    Attributes:
        dag_run: Airflow's id of the DAG run, or one of a run by hand.
        settings: Reference of the resolved settings.
        force: Steps that are run although their artifact exists.
        experiment_id: MLflow's experiment; empty where nothing is tracked.
        mlflow_run_id: The MLflow run of the DAG run, which holds those of its trainings; empty where nothing is
            tracked.
        url: Where people see that run.
    """

    dag_run: str
    settings: str
    force: tuple[str, ...] = ()
    experiment_id: str = ""
    mlflow_run_id: str = ""
    url: str = ""


class Training(Strict):
    """One training of a run: a classifier on one arm's training set, with one seed."""

    classifier: str
    arm: str
    seed: int

    @property
    def label(self) -> str:
        """The training among those of its run, such as ``vgg16 both seed 0``."""
        return f"{self.classifier} {self.arm} seed {self.seed}"


class Pair(Training):
    """A training, and the arm that it is held against. ``against``: trained on the same classifier with its seed."""

    against: str

    @property
    def label(self) -> str:
        """The pair among those of its run, such as ``vgg16 both against classical seed 0``."""
        return f"{self.classifier} {self.arm} against {self.against} seed {self.seed}"

    @property
    def trainings(self) -> tuple[Training, Training]:
        """The training that is held against, and then the other one."""
        one, other = (Training(classifier=self.classifier, arm=arm, seed=self.seed) for arm in (self.against, self.arm))
        return one, other


class Artifact(Strict):
    """What a step hands to the next.

    Attributes:
        step: The step that makes artifacts of this kind.
        ref: Reference of the artifact in the store; empty where the step has not finished.
        mlflow_run_id: The MLflow run that shows the artifact: of a training its own, of all else that of the DAG run.
        made_by: The MLflow run of the step that made the artifact.
        seconds: What making it took.
        url: Where people see ``mlflow_run_id``.
        shown_here: Whether ``mlflow_run_id`` belongs to the DAG run that this handle is of.
        reused: Whether the artifact was taken as it was.
        forced: Whether it was made anew on request, as must then be what follows from it.
        notes: Sentences for the person who watches the run.
    """

    step: ClassVar[str]
    # Whether MLflow has a run of its own for it, below that of the DAG run: for trainings, which people compare.
    has_run: ClassVar[bool] = False
    # What belongs to the moment of a step and not to its artifact.
    MOMENT: ClassVar[frozenset[str]] = frozenset(
        {"ref", "mlflow_run_id", "made_by", "seconds", "url", "shown_here", "reused", "forced"}
    )

    ref: str = ""
    mlflow_run_id: str = ""
    made_by: str = ""
    seconds: float = 0.0
    url: str = ""
    shown_here: bool = False
    reused: bool = False
    forced: bool = False
    notes: tuple[str, ...] = ()

    def folder(self) -> Path:
        """A local folder with the artifact's files, to be read only."""
        return open_store().fetch(self.ref)

    def file(self, name: str) -> bytes | None:
        """The content of one of the artifact's files, or ``None`` where the artifact has no such file."""
        path = self.folder() / name
        return path.read_bytes() if path.is_file() else None


Kind = TypeVar("Kind", bound=Artifact)


class SiteShards(Strict):
    """How many shards one of several sources has. ``site``: the name of the source."""

    site: str
    shards: int


class Scan(Artifact):
    """The files of a source, or of several.

    Attributes:
        source: The address; of several sources their names.
        shards: How many parts the files are read in.
        files: How many, by class.
        warnings: Sentences on what is not used, or not said of all images.
        sites: Of several sources, in the order of their shards; empty where there is one without a name.
    """

    step = "scan"
    FILES: ClassVar[str] = "files.parquet"

    source: str
    shards: int
    files: dict[str, int]
    warnings: tuple[str, ...]
    sites: tuple[SiteShards, ...] = ()

    @property
    def site_of_shard(self) -> tuple[str, ...]:
        """The name of the source of each shard."""
        if not self.sites:
            return ("",) * self.shards
        return tuple(each.site for each in self.sites for _ in range(each.shards))

    def table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a file, as ``data.scan`` describes it, and of several sources ``data.sites``.

        With all columns, or those to read.
        """
        import pandas as pd

        return pd.read_parquet(self.folder() / self.FILES, columns=None if columns is None else list(columns))

    def of_shard(self, shard: int) -> pd.DataFrame:
        """The rows of the files that are read in one shard."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.FILES, filters=[("shard", "==", shard)])


class Shard(Artifact):
    """The images of one shard, packed. The numbers count images, files set aside, and masks.

    Of DICOM files ``left_out`` counts those that a switch leaves out, ``burnt_in`` those that say that text is burnt
    in, and ``unsaid`` those that do not say what a switch asks for, by what that is.
    """

    step = "ingest"

    images: int
    rejected: int
    masks: int
    unusable_masks: int
    left_out: int = 0
    burnt_in: int = 0
    unsaid: dict[str, int] = Field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """The numbers by name."""
        return {
            "images": self.images,
            "rejected": self.rejected,
            "masks": self.masks,
            "unusable_masks": self.unusable_masks,
            "left_out": self.left_out,
        }


class Manifest(Artifact):
    """All images of the source in one table. ``images``: by class. ``shards``: references, in order.

    ``inverted`` counts images whose grays are or were turned round, ``unsure_inverted`` those that may be. ``resize``:
    how their pixels were brought to the sides that are packed. ``warnings``: what people must know of DICOM files.
    """

    step = "manifest"

    images: dict[str, int]
    rejected: int
    near_duplicates: int
    masks: int
    inverted: int = 0
    unsure_inverted: int = 0
    resize: ResizeName = FIRST_RESIZE
    warnings: tuple[str, ...] = ()
    shards: tuple[str, ...]

    def table(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a file, as ``data.ingest`` describes it; with all columns, or those to read."""
        from cxr_tasks.data.dataset import read_manifest
        from cxr_tasks.data.ingest import MANIFEST

        return read_manifest(self.folder() / MANIFEST, columns)

    def near(self) -> pd.DataFrame:
        """The pairs of near-duplicates, image ids ``first`` and ``second``."""
        import pandas as pd

        from cxr_tasks.data.ingest import NEAR

        return pd.read_parquet(self.folder() / NEAR)


class Validation(Artifact):
    """What the expectations said of a manifest. ``data_docs``: where people see the page."""

    step = "validate"

    expectations: int
    warnings: tuple[str, ...]
    data_docs: str


class Split(Artifact):
    """A manifest in which every image has its split.

    Attributes:
        version: Tells the content apart: images, labels, groups, splits and masks.
        counts: Images by split, then by class.
        warnings: Sentences on splits that the source gives.
    """

    step = "split"

    version: str
    counts: dict[str, dict[str, int]]
    warnings: tuple[str, ...]


class Dataset(Artifact):
    """A published dataset: what training works from. Its artifact is the :class:`Split` that was published.

    Attributes:
        version: Tells the content apart: images, labels, groups, splits and masks.
        counts: Images by split, then by class.
        shards: References of the shards that the pixels lie in.
        source: The address that the images were read from.
        warnings: Sentences on what is not used, expectations that were not met, and splits that the source gives.
        data_docs: Where people see the page of the validation.
        resize: How the pixels were brought to the sides that are packed.
    """

    step = "publish"

    version: str
    counts: dict[str, dict[str, int]]
    shards: tuple[str, ...]
    source: str
    warnings: tuple[str, ...]
    data_docs: str
    resize: ResizeName = FIRST_RESIZE

    @property
    def content(self) -> dict[str, str]:
        """What names the pixels of this dataset, for ever."""
        return {"dataset": self.ref}

    def manifest(self, columns: Sequence[str] | None = None, split: str | None = None) -> pd.DataFrame:
        """A row a file, with the column ``split``.

        Args:
            columns: Those to read, of which an old dataset may lack some; ``None`` for all.
            split: The only one to read; ``None`` for all rows.
        """
        from cxr_tasks.data.dataset import read_manifest
        from cxr_tasks.data.ingest import MANIFEST

        return read_manifest(self.folder() / MANIFEST, columns, split)

    def images(self, split: str, size: int, classes: Sequence[str], *, resize: bool = False) -> Images:
        """The images of one split at ``size``; ``resize`` allows a size that is not packed.

        Raises:
            DataError: The split holds an image that is not real, or is empty.
        """
        from cxr_tasks.data.dataset import OF_IMAGES, select, select_resized

        rows = self.manifest(OF_IMAGES, split)
        if resize:
            return select_resized(rows, self._shard_folders(), split, size, classes, self.resize)
        return select(rows, self._shard_folders(), split, size, classes)

    def largest_images(self, split: str, classes: Sequence[str]) -> Images:
        """The images of one split at the largest size that is packed, for people to look at."""
        from cxr_tasks.data.dataset import OF_IMAGES, select_largest

        return select_largest(self.manifest(OF_IMAGES, split), self._shard_folders(), split, classes)

    def masks(self, split: str, size: int) -> RowStack:
        """The lung masks (n, size, size) bool of one split; a box over the middle where an image has none."""
        from cxr_tasks.data.dataset import OF_IMAGES, rows_of, select_masks

        return select_masks(rows_of(self.manifest(OF_IMAGES, split), split), self._shard_folders(), size)[0]

    def thumbnails(self, rows: pd.DataFrame) -> np.ndarray:
        """The thumbnails (n, 32, 32) uint8 of ``rows`` of the manifest."""
        from cxr_tasks.data.ingest import thumbnails_of

        return thumbnails_of(self._shard_folders(), rows)

    def _shard_folders(self) -> list[Path]:
        store = open_store()
        return [store.fetch(ref) for ref in self.shards]


class Gan(Artifact):
    """A CovidGAN training.

    Attributes:
        finished: Whether it has reached its last step; if not, there is no artifact yet.
        steps: Where it stands.
        epochs: How many epochs it is to have.
        images: How many images it was trained on.
        resumed_from: The step that this sitting began at.
        hours: Time spent training, over all sittings.
        state: Where an unfinished training stands, in words.
        weights_digest: A hash of both networks' weights: trained anew, a GAN has the same reference and other weights.
            Empty for a GAN of an older version.
    """

    step = "train_gan"
    has_run = True
    GENERATOR: ClassVar[str] = "generator.keras"
    DISCRIMINATOR: ClassVar[str] = "discriminator.keras"
    HISTORY: ClassVar[str] = "history.parquet"
    GRID: ClassVar[str] = "grid.png"
    ANIMATION: ClassVar[str] = "training.gif"
    # The folder of its MLflow run with a grid of each step that was looked at.
    GRIDS: ClassVar[str] = "grids"

    finished: bool
    steps: int
    epochs: int
    images: int
    resumed_from: int
    hours: float
    state: str = ""
    weights_digest: str = ""

    @property
    def origin(self) -> str:
        """What makes the images, in words."""
        return f"CovidGAN, {self.epochs:,} epochs"

    @property
    def content(self) -> dict[str, str]:
        """What tells its networks from those of another training under the same reference."""
        return {"weights": self.weights_digest} if self.weights_digest else {}

    def generator(self) -> keras.Model:
        """The network that makes images."""
        return _load_model(self.folder() / self.GENERATOR)

    def discriminator(self) -> keras.Model:
        """The network that told real images from generated ones."""
        return _load_model(self.folder() / self.DISCRIMINATOR)


class ImportedImages(Artifact):
    """Synthetic images that others have made, read like real ones.

    Attributes:
        source: The address.
        images: How many can be used, by class.
        rejected: Files that were set aside.
        warnings: Sentences on what is set aside, inverted, or not used.
    """

    step = "import_synthetic"
    FILES: ClassVar[str] = "files.parquet"

    source: str
    images: dict[str, int]
    rejected: int
    warnings: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """What made the images, in words."""
        return f"images from {self.source}"

    def table(self) -> pd.DataFrame:
        """A row for each image that can be used, as ``data.ingest`` describes it; ``row`` is its place among all."""
        from cxr_tasks.data.ingest import USED

        rows = self._rows()
        return rows[rows["status"] == USED].reset_index(drop=True)

    def set_aside(self) -> pd.DataFrame:
        """A row for each file that cannot be used, with its ``reason``."""
        from cxr_tasks.data.ingest import USED

        rows = self._rows()
        return rows[rows["status"] != USED].reset_index(drop=True)

    def _rows(self) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        from cxr_tasks.data.ingest import ROWS

        rows = pd.read_parquet(self.folder() / ROWS)
        return rows.assign(shard=0, row=np.arange(len(rows)))

    def thumbnails(self, rows: pd.DataFrame) -> np.ndarray:
        """The thumbnails (n, 32, 32) uint8 of ``rows`` of the table."""
        from cxr_tasks.data.ingest import thumbnails_of

        return thumbnails_of([self.folder()], rows)

    def of(self, rows: pd.DataFrame, size: int, classes: Sequence[str]) -> Images:
        """The images of ``rows`` of the table at ``size``, with their provenance."""
        import numpy as np

        from cxr_tasks.data.dataset import Images, packed_rows
        from cxr_tasks.data.ingest import pixels_file

        ids = ("synthetic-" + rows["image_id"]).to_numpy(str)
        labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
        pixels = packed_rows(rows, [self.folder() / pixels_file(size)])
        told = rows[["path", "label"]].assign(image_id=ids, group=ids, source=self.ref, provenance="synthetic")
        return Images(pixels, labels, ids, told.reset_index(drop=True))


class Judgement(Artifact):
    """Whether synthetic images are good enough to train with.

    Attributes:
        passed: Whether no threshold was missed.
        kind: The verdict in two words.
        sentence: The verdict.
        reasons: A sentence for each threshold that was missed.
        not_judged: A sentence for each that could not be compared.
        copies: How many imported images copy real ones, by the split of those.
        warnings: A sentence on the copies of each split.
    """

    step = "judge"
    QUALITY: ClassVar[str] = "quality.json"
    VERDICT: ClassVar[str] = "verdict.json"
    COPIES: ClassVar[str] = "copies.parquet"

    passed: bool
    kind: str
    sentence: str
    reasons: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    copies: dict[str, int] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def copied(self) -> pd.DataFrame:
        """A row for each imported image that copies a real one, as ``data.copies`` describes it."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.COPIES)

    def quality(self) -> GanQuality:
        """The figures that the judgement rests on."""
        from cxr_tasks.gan.quality import GanQuality

        return GanQuality.model_validate_json((self.folder() / self.QUALITY).read_text("utf-8"))


class SyntheticSet(Artifact):
    """The synthetic images that arms train with.

    Attributes:
        origin: What made them, in words: ``CovidGAN, 8 epochs``, or ``images from`` an address.
        counts: Images that were kept, by class.
        dropped: Images that were not, by reason.
        images_digest: A hash of the images and their classes: drawn anew, a set has the same reference and may have
            other images. Empty for a set of an older version.
    """

    step = "synthesize"
    PIXELS: ClassVar[str] = "pixels.npy"
    MANIFEST: ClassVar[str] = "manifest.parquet"
    COUNTS: ClassVar[str] = "counts.csv"
    GRID: ClassVar[str] = "grid.png"

    origin: str = ""
    counts: dict[str, int]
    dropped: dict[str, int]
    images_digest: str = ""

    @property
    def content(self) -> dict[str, str]:
        """What tells its images from those of another set under the same reference."""
        return {"images": self.images_digest} if self.images_digest else {}

    def images(self, classes: Sequence[str]) -> Images:
        """The images at the size that they are kept at: the GAN's, or for imported images the classifiers'."""
        import numpy as np
        import pandas as pd

        from cxr_tasks.data.dataset import Images
        from cxr_tasks.data.stacks import mapped

        rows = pd.read_parquet(self.folder() / self.MANIFEST)
        labels = rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
        return Images(mapped(self.folder() / self.PIXELS), labels, rows["image_id"].to_numpy(str), rows)

    def extra(self, classes: Sequence[str], size: int, resize: ResizeName) -> ExtraImages:
        """The images at ``size``, as they join a training set whose images were resized in the same way.

        Drawn anew with the same settings a set may hold other pixels, so what is in the set is part of their name. Of a
        set of an older version only the run that made it tells.
        """
        from cxr_tasks.classifiers.training_set import ExtraImages

        content = {"synthetic": self.ref, **(self.content or {"made_by": self.made_by}), "size": size}
        if resize != FIRST_RESIZE:
            # Features of images that were resized before there was a choice are found by their names of then.
            content["resize"] = resize
        return ExtraImages(self.images(classes).resized(size, resize), content)


class Features(Artifact):
    """Features of one backbone in the store. ``computed`` and ``found`` count images."""

    step = "extract_features"

    backbone: str
    computed: int
    found: int


class TrainedModel(Artifact):
    """One training's model, with what it predicts.

    Attributes:
        training: Which training of the run it is.
        epochs: Epochs that were trained.
        steps: Optimiser steps that were taken.
        train_images: Images that were trained on.
        weights_digest: A hash of the weights: trained anew, a model has the same reference and other weights.
        resize: How the images were brought to the model's side, and are to be for a prediction.
        synthetic: What made the synthetic images that it was trained on, in words; empty where there were none.
    """

    step = "train_arm"
    has_run = True
    MODEL: ClassVar[str] = NETWORK_FILE
    PREDICTIONS: ClassVar[str] = "predictions.parquet"
    HISTORY: ClassVar[str] = "history.parquet"
    BLANKED: ClassVar[str] = "blanked.parquet"

    training: Training
    epochs: int
    steps: int
    train_images: int
    weights_digest: str
    resize: ResizeName = FIRST_RESIZE
    synthetic: str = ""

    def predictions(self) -> pd.DataFrame:
        """The prediction table of validation and test."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.PREDICTIONS)

    def blanked(self) -> dict[str, pd.DataFrame]:
        """Prediction tables of the test images, by what is blanked in them; empty where that was not asked for."""
        import pandas as pd

        path = self.folder() / self.BLANKED
        if not path.is_file():
            return {}
        rows = pd.read_parquet(path)
        return {str(name): table.drop(columns="blanked") for name, table in rows.groupby("blanked")}

    def history(self) -> pd.DataFrame:
        """Losses and accuracies, a row an epoch."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.HISTORY)

    def load(self) -> keras.Model:
        """The model: pixels (n, S, S, 1) 0–255 → probabilities."""
        return _load_model(self.folder() / self.MODEL)


class TrainedArm(Artifact):
    """A trained model and what is known of it by itself. Figures are fractions.

    Its folder also holds what those need who give image files to the model; see ``serving.model_facts``.

    Attributes:
        model: The model.
        model_uri: Where MLflow has the model with these facts; empty where nothing is tracked.
        validation_macro_f1: What it is chosen by.
        test_macro_f1: On the test images.
        test_accuracy: On the test images.
    """

    step = "evaluate_arm"
    FINDINGS: ClassVar[str] = "findings.json"

    model: TrainedModel
    model_uri: str = ""
    validation_macro_f1: float
    test_macro_f1: float
    test_accuracy: float

    @property
    def training(self) -> Training:
        """Which training of the run this is."""
        return self.model.training

    def findings(self) -> ArmFindings:
        """Metrics, calibration, operating points, shortcuts and figures by subgroup."""
        from cxr_tasks.evaluation.findings import ArmFindings

        return ArmFindings.model_validate_json((self.folder() / self.FINDINGS).read_text("utf-8"))


class LeakedModel(Artifact):
    """A training by the source report's protocol. Its figures are wrong on purpose; fractions."""

    step = "reproduce_leak"

    training: Training
    test_images: int
    synthetic_test_images: int
    leaked_test_accuracy: float
    leaked_test_macro_f1: float
    leaked_test_real_accuracy: float
    leaked_test_real_macro_f1: float


class Comparison(Artifact):
    """An arm beside its baseline or its control.

    Attributes:
        pair: What is compared.
        name: What the pair is called among those of its run, such as ``VGG16 both, seed 1``.
        baseline: What the arm is held against; ``None`` where it was not trained.
        augmented: The arm; ``None`` where it was not trained.
        verdict: What came out of this comparison by itself, in a few words.
    """

    step = "compare"
    RESULT: ClassVar[str] = "comparison.json"
    CURVES: ClassVar[str] = "curves.png"
    CONFUSION: ClassVar[str] = "confusion.png"
    RELIABILITY: ClassVar[str] = "reliability.png"

    pair: Pair
    name: str
    baseline: TrainedArm | None
    augmented: TrainedArm | None
    verdict: str

    @property
    def arms(self) -> dict[str, TrainedArm]:
        """The arms that were trained, by their role in the pair."""
        both = {"baseline": self.baseline, "augmented": self.augmented}
        return {role: arm for role, arm in both.items() if arm is not None}

    @property
    def is_complete(self) -> bool:
        """Whether both arms were trained, and so could be compared."""
        return len(self.arms) == 2

    def result(self) -> PairComparison:
        """The comparison of a complete pair."""
        from cxr_tasks.evaluation.comparison import PairComparison

        return PairComparison.model_validate_json((self.folder() / self.RESULT).read_text("utf-8"))


class Gallery(Artifact):
    """Test images that a pair disagrees on. ``comparison``: its reference. ``shown``: how many images."""

    step = "explain"
    PICTURE: ClassVar[str] = "gallery.png"

    comparison: str
    shown: int


class ExternalSet(Artifact):
    """A source that models are tested on, without the images that leak from what they were trained on.

    Attributes:
        name: What figures of it are called.
        source: The address.
        images: How many test, by class.
        leaks: How many are left out, by how they leak.
        checked: Whether leaks could be looked for.
        shards: References of the shards that the pixels lie in.
        rejected: Files that were set aside.
        warnings: Sentences on leaks, and on what is not used.
    """

    step = "read_external"
    ROWS: ClassVar[str] = "rows.parquet"
    LEAKS: ClassVar[str] = "leaks.parquet"

    name: str
    source: str
    images: dict[str, int]
    leaks: dict[str, int]
    checked: bool
    shards: tuple[str, ...]
    rejected: int
    warnings: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """A row for each image that tests, as ``data.ingest`` describes it."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.ROWS)

    def leaking(self) -> pd.DataFrame:
        """A row for each image that is left out, as ``data.external`` describes it."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.LEAKS)

    def pixels(self, shard: int, size: int) -> np.ndarray:
        """The images (n, size, size) uint8 of a shard, mapped into memory."""
        from cxr_tasks.data.ingest import pixels_file
        from cxr_tasks.data.stacks import mapped

        return mapped(open_store().fetch(self.shards[shard]) / pixels_file(size))


class ExternalTest(Artifact):
    """One model on one external set.

    Attributes:
        who: The model for people.
        external: The set's name.
        training: Which training of the run the model is of; ``None`` for a model of another run.
        remark: What a reader of its figures must know.
    """

    step = "test_external"
    PREDICTIONS: ClassVar[str] = "predictions.parquet"
    FINDINGS: ClassVar[str] = "findings.json"
    SUBGROUPS: ClassVar[str] = "subgroups.json"

    who: str
    external: str
    training: Training | None = None
    remark: str = ""

    def findings(self) -> ExternalFindings:
        """The figures."""
        from cxr_tasks.evaluation.external import ExternalFindings

        return ExternalFindings.model_validate_json((self.folder() / self.FINDINGS).read_text("utf-8"))

    def subgroups(self) -> SubgroupFindings | None:
        """The figures by subgroup; ``None`` where nothing is known by which the images could be divided."""
        from cxr_tasks.evaluation.subgroups import SubgroupFindings

        kept = self.file(self.SUBGROUPS)
        return None if kept is None else SubgroupFindings.model_validate_json(kept)

    def predictions(self) -> pd.DataFrame:
        """The prediction table of the set."""
        import pandas as pd

        return pd.read_parquet(self.folder() / self.PREDICTIONS)


class ExternalResults(Artifact):
    """Every model of a run on one external set.

    Attributes:
        external: The set.
        tests: Of each model.
        champion: The name of the test that is of the champion as the run found it; empty where there was none.
    """

    step = "evaluate_external"
    TABLE: ClassVar[str] = "external.json"

    external: ExternalSet
    tests: tuple[ExternalTest, ...]
    champion: str = ""


class Decision(Strict):
    """What became of the candidate of one registered model.

    Attributes:
        name: The registered model.
        version: The candidate's version.
        alias: The highest that it has now.
        arm: What was trained, in words.
        validation_macro_f1: What it was chosen by.
        decision: Why it is or is not champion.
        is_new: Whether it became champion.
        training: Which training of the run the candidate is of; ``None`` where a run of an older version decided.
        conditions: Every condition of the gate that was looked at.
        passes: Whether it may become champion by the gate.
        against: The version that was champion when the gate ruled; empty where there was none.
    """

    name: str
    version: str
    alias: str
    arm: str
    validation_macro_f1: float
    decision: str
    is_new: bool = False
    training: Training | None = None
    conditions: tuple[Condition, ...] = ()
    passes: bool = False
    against: str = ""


class Reply(Strict):
    """What a person said to the question whether challengers may become champions.

    Attributes:
        approved: The registered models whose challenger may; empty where the answer was no.
        who: Who answered; empty where nobody did.
        at: When, as ISO 8601.
        reason: Why.
        days: How long the answer was waited for.
    """

    approved: tuple[str, ...] = ()
    who: str = ""
    at: str = ""
    reason: str = ""
    days: float = 0.0

    def words(self, model: str) -> str:
        """What was said of one registered model."""
        if not self.who:
            return f"Nobody answered within {time_taken(86_400 * self.days)}, and then the answer is no."
        said = "approved" if model in self.approved else "declined"
        return f"{self.who} {said} at {self.at}{f': {self.reason}' if self.reason else ''}."


class Ruled(Artifact):
    """What was registered, and under which alias."""

    DECISIONS: ClassVar[str] = "decisions.json"

    decisions: tuple[Decision, ...]


class Challenge(Ruled):
    """The challengers of a run, and what the gate says of them."""

    step = "challenge"


class Promotion(Ruled):
    """What became of the challengers, some of which were made champion."""

    step = "promote"


class Watched(Artifact):
    """A champion beside the images that came after its dataset.

    Attributes:
        champion: For people; empty where there is none.
        images: New images by class.
        words: What was found.
        alarm: Whether the images, or what the champion says of them, have changed.
        warnings: What files of the new images have that those of its dataset have not.
        data_docs: The page that shows them; empty without new images.
    """

    step = "watch"
    IMAGES: ClassVar[str] = "images.parquet"
    DRIFT: ClassVar[str] = "drift.json"
    FIGURES: ClassVar[str] = "figures.json"

    champion: str
    images: dict[str, int]
    words: str
    alarm: bool = False
    warnings: tuple[str, ...] = ()
    data_docs: str = ""


class KeptChampion(Ruled):
    """What became of the challengers, none of which was made champion."""

    step = "keep_champion"


class ClaimRow(Strict):
    """What a run says of one arm of one classifier, corrected for how much it says. Differences are fractions.

    Attributes:
        seeds: How many seeds each arm was trained with.
        difference: From the baseline, with the interval that holds together with those of all claims.
        p_value: Corrected for the number of claims.
        control: The control of the arm; empty where none belongs to it.
        beyond_control: The difference from the control; ``None`` where that was not measured, as its interval.
        claims: How many claims the run makes.
    """

    classifier: str
    seeds: int
    baseline_arm: str
    arm: str
    difference: float
    low: float
    high: float
    p_value: float
    detectable: float | None
    control: str
    beyond_control: float | None
    beyond_control_low: float | None
    beyond_control_high: float | None
    claims: int
    verdict: str


class PairRow(Strict):
    """One pair's line in the table of a run, by itself. Differences are fractions."""

    classifier: str
    seed: int
    baseline_arm: str
    arm: str
    baseline_macro_f1: float
    augmented_macro_f1: float
    difference: float
    low: float
    high: float
    detectable: float | None
    p_value: float
    sign_p: float
    test_images: int
    verdict: str


class Failure(Strict):
    """A task of a run that failed.

    Attributes:
        step: The step that it runs.
        label: Tells mapped instances of the step apart, such as ``vgg16 none seed 0``; empty where there is one alone.
        task: What Airflow calls the task; empty where there is no Airflow.
        sentence: What its error says.
        link: Where people see its log.
    """

    step: str
    label: str = ""
    task: str = ""
    sentence: str
    link: str = ""

    @property
    def words(self) -> str:
        """What failed, and why."""
        return f"{self.task or self.step}{f' ({self.label})' if self.label else ''}: {self.sentence}"


class Missing(Strict):
    """A part of a run that the report does without: what it is, why it is missing, and the failed task, if one is."""

    what: str
    why: str
    task: str = ""
    link: str = ""


class ExternalRow(Strict):
    """What a report says of one model on one external set. Figures are fractions.

    Attributes:
        external: The set's name.
        model: The model for people.
        is_champion: Whether it is the champion.
        drop: The internal macro F1 less the external one; ``None`` where the internal one is not known.
    """

    external: str
    model: str
    is_champion: bool
    images: int
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None


class Report(Artifact):
    """The report of a run, and what it says in short.

    Attributes:
        answer: The first lines.
        claims: What the answer rests on.
        pairs: Every comparison by itself.
        external: Every model on every external set.
        address: Where people see the report.
        missing: What the run was to make and did not.
    """

    step = "write_report"
    PAGE: ClassVar[str] = "report.html"
    PDF: ClassVar[str] = "report.pdf"
    DATA: ClassVar[str] = "report-data"

    answer: str
    warnings: tuple[str, ...]
    claims: tuple[ClaimRow, ...]
    pairs: tuple[PairRow, ...]
    champions: tuple[Decision, ...]
    address: str
    missing: tuple[Missing, ...] = ()
    external: tuple[ExternalRow, ...] = ()


def _load_model(path: Path) -> Any:
    try:
        return read_network(path)
    except (ValueError, TypeError) as error:
        # Keras refuses lambdas and functions of other packages: they would run as code.
        raise DataError(
            f"The network {path} cannot be loaded ({in_one_line(error)}): make it anew, with its step in force."
        ) from error


def write_json(path: Path, value: BaseModel) -> None:
    """Write a model's fields as indented JSON."""
    path.write_text(json.dumps(value.model_dump(mode="json"), indent=2), encoding="utf-8")


# The steps that can be asked to be made anew.
STEPS = tuple(
    kind.step
    for kind in (
        Scan,
        Shard,
        Manifest,
        Validation,
        Split,
        Gan,
        ImportedImages,
        Judgement,
        SyntheticSet,
        Features,
        TrainedModel,
        TrainedArm,
        LeakedModel,
        Comparison,
        Gallery,
        ExternalSet,
        ExternalTest,
    )
)
