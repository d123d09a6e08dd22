"""Where a class and a subgroup coincide: a model can then tell the class by the age, or the site, and not the disease.

A model that does so shows good figures on images of the same sources, and fails elsewhere (Zech and others, PLOS
Medicine 15, 2018; DeGrave, Janizek and Lee, Nature Machine Intelligence 3, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pandas as pd

from cxr_tasks.config import SubgroupSettings
from cxr_tasks.data.ingest import USED
from cxr_tasks.data.subgroups import members, subgroups_of
from cxr_tasks.strict import Strict

# Coincidences of one attribute that are told each by itself.
TOLD_SINGLY = 3


class Coincidence(Strict):
    """A class and a subgroup that coincide. All are images of which the attribute is known.

    Attributes:
        attribute: Such as ``age``.
        subgroup: Such as ``under 18``.
        label: The class.
        inside: Images of the class that are in the subgroup.
        of_class: Images of the class.
        others_inside: Images of other classes that are in the subgroup.
        others: Images of other classes.
        unknown: Images of the class of which the attribute is not known.
    """

    attribute: str
    subgroup: str
    label: str
    inside: int
    of_class: int
    others_inside: int
    others: int
    unknown: int

    @property
    def strength(self) -> float:
        """How much more frequent the subgroup is in the class than elsewhere, 0 to 1."""
        return self.inside / self.of_class - self.others_inside / self.others

    @property
    def sentence(self) -> str:
        """What coincides, with its figures; without a full stop."""
        many = f"all {self.of_class:,}" if self.inside == self.of_class else f"{self.inside:,} of the {self.of_class:,}"
        known = f" whose {self.attribute} is known" if self.unknown else ""
        too = "so is none" if not self.others_inside else f"so are {self.others_inside:,}"
        rest = f"and {'so is 1' if self.others_inside == 1 else too} of the {self.others:,} others"
        told = f"{many} images of {self.label}{known} are of {self.attribute} {self.subgroup}, {rest}"
        which = "" if 2 * self.inside > self.of_class else " of these"
        return f"{told[0].upper()}{told[1:]}: a model can tell the class{which} by the {self.attribute}"


def coincidences(manifest: pd.DataFrame, classes: Sequence[str], settings: SubgroupSettings) -> list[Coincidence]:
    """The classes and subgroups of the used images that coincide, by attribute, the strongest first.

    ``s`` is the share of a class that is in a subgroup, and ``o`` that of the images of all other classes. Both
    coincide

    - where the class is in the subgroup, and the others are not: ``s`` is at least ``settings.coincide``, and ``o`` at
      most ``settings.others``, or
    - where the subgroup is of the class: ``s / (s + o)`` is at least ``settings.coincide``. This is the share that the
      class would have of the subgroup if there were as many images of the class as of all others. A frequent class
      does not coincide with every subgroup for that reason.

    Small numbers coincide by chance. So the class and the others have ``settings.min_groups`` groups each, and as many
    groups of the others would be expected in the subgroup if it had nothing to do with the class.

    Args:
        manifest: A row an image, with ``label``, ``group``, ``status`` and the columns of attributes.
        classes: The classes in their order.
        settings: The limits.
    """
    used = manifest[manifest["status"] == USED]
    found: list[Coincidence] = []
    for attribute, subgroups in subgroups_of(used, settings).items():
        known = used[subgroups.notna()]
        groups = known["group"].nunique()
        of_attribute = []
        for label in classes:
            is_class, others = known[known["label"] == label], known[known["label"] != label]
            others_groups = others["group"].nunique()
            if min(is_class["group"].nunique(), others_groups) < settings.min_groups:
                continue
            for subgroup, rows in members(known, subgroups[known.index], settings):
                inside = int((rows["label"] == label).sum())
                each = Coincidence(
                    attribute=str(attribute),
                    subgroup=subgroup,
                    label=label,
                    inside=inside,
                    of_class=len(is_class),
                    others_inside=len(rows) - inside,
                    others=len(others),
                    unknown=int((used["label"] == label).sum()) - len(is_class),
                )
                expected = rows["group"].nunique() * others_groups / groups
                if _coincide(each, settings, enough=expected >= settings.min_groups):
                    of_attribute.append(each)
        found += sorted(of_attribute, key=lambda each: -each.strength)
    return found


def coincidences_told(found: Sequence[Coincidence]) -> list[str]:
    """The strongest coincidences of each attribute as sentences without a full stop, and how many more there are."""
    told = []
    for attribute, of_attribute in groupby(found, key=lambda each: each.attribute):
        sentences = [each.sentence for each in of_attribute]
        told += sentences[:TOLD_SINGLY]
        if (more := len(sentences) - TOLD_SINGLY) > 0:
            told.append(f"{more} more classes and subgroups by {attribute} coincide")
    return told


def association_of(subgroups: pd.Series, labels: pd.Series) -> float | None:
    """Cramér's V of subgroups and classes, 0 to 1; ``None`` where either has one value alone (Cramér 1946, p. 282)."""
    from scipy.stats.contingency import association

    counts = pd.crosstab(subgroups, labels).to_numpy()
    return float(association(counts, method="cramer")) if min(counts.shape) > 1 else None


def _coincide(each: Coincidence, settings: SubgroupSettings, *, enough: bool) -> bool:
    share, others = each.inside / each.of_class, each.others_inside / each.others
    in_subgroup = share >= settings.coincide and others <= settings.others
    # As (share / (share + others)) >= coincide, where both may be 0.
    of_class = enough and share > 0 and share * (1 - settings.coincide) >= others * settings.coincide
    return in_subgroup or of_class
