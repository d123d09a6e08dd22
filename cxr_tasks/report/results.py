"""What the steps of one run handed on, as its report reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cxr_tasks.artifacts import (
    Comparison,
    Dataset,
    ExternalResults,
    Features,
    Gallery,
    Gan,
    ImportedImages,
    Judgement,
    LeakedModel,
    Missing,
    Ruled,
    SyntheticSet,
    TrainedArm,
)


@dataclass(frozen=True)
class Results:
    """The handles of one run; ``None`` and empty lists stand for what was skipped or failed.

    ``trained``: the arms, also those whose comparison is missing. ``missing``: what the run was to make and did not.
    """

    dataset: Dataset
    gan: Gan | None = None
    judgement: Judgement | None = None
    synthetic: SyntheticSet | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    leaks: list[LeakedModel] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    ruled: Ruled | None = None
    trained: list[TrainedArm] = field(default_factory=list)
    imported: ImportedImages | None = None
    external: list[ExternalResults] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    @property
    def complete(self) -> list[Comparison]:
        """The pairs whose arms were both trained."""
        return [comparison for comparison in self.comparisons if comparison.is_complete]

    @property
    def arms(self) -> list[TrainedArm]:
        """Each trained arm once, though a baseline is in several comparisons."""
        found: dict[str, TrainedArm] = {}
        for comparison in self.comparisons:
            for arm in comparison.arms.values():
                found.setdefault(arm.model.ref, arm)
        for arm in self.trained:
            found.setdefault(arm.model.ref, arm)
        return list(found.values())
