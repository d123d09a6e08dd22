"""Settings of single sources: a table that says which image is of which class, and sources in a list of several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from cxr_tasks.layouts import read_layout
from cxr_tasks.names import composed, slug
from cxr_tasks.strict import Strict

GivenSplit = Literal["train", "validation", "test"]
# Metrics of an external set are called by its name, and these are those of the run's own splits.
OWN_SPLITS = ("train", "training", "validation", "test")
# With nothing but zeros behind the point, as programs write whole numbers in a column with gaps.
_WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0*")


def cell_text(value: Any) -> Any:
    """A cell, or what a setting says of one, in one spelling: ``1``, ``1.0`` and `` 1 `` are the same text.

    Nothing else of a number changes: 007 is not 7, and an identifier of 40 digits keeps them all.
    """
    if not isinstance(value, str | int | float):
        return value
    text = composed(str(value)).strip()
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


Cell = Annotated[str, BeforeValidator(cell_text)]
Column = Annotated[str, AfterValidator(composed), Field(min_length=1)]
# A column, a text with {columns} in it, or several of both, of which the first counts that says something.
Said = Column | Annotated[tuple[Column, ...], Field(min_length=1)]


class JoinSettings(Strict):
    """A further table, whose columns join those of the first.

    Attributes:
        file: Its name below the source, or a pattern such as ``*metadata.csv*``.
        by: The columns that both tables have, and that say which rows belong together.
    """

    file: str
    by: Annotated[tuple[Column, ...], Field(min_length=1)]


class KeySettings(Strict):
    """What a row of a table names in the place of an image file: a study, of which there may be several images.

    Attributes:
        column: The column of the key.
        matches: What an image has of the key. ``folder``: a folder that it lies in is called so. Others are elements of
            a DICOM header. Zeros at the beginning, which spreadsheets drop, may be missing as long as no doubt is left.
    """

    column: Said
    matches: Literal["folder", "AccessionNumber", "StudyInstanceUID", "StudyID", "SOPInstanceUID"]


class TableSettings(Strict):
    """A table of labels, with a row an image, in the place of class folders. ``null``: folders say the classes.

    A column is named as the table names it; case, blanks and punctuation do not count. Where one column says too
    little, a text may hold several, as ``{subject_id}/{dicom_id}.jpg`` does, and ``{Path:patient[0-9]+}`` is the part
    of a column that a regular expression finds. Of a list the first counts that says something.

    Attributes:
        file: The table: its name below the source, a pattern, several of them, or one for each given split, of which
            some may be missing.
        columns: Names of the columns, where the file has no line of names.
        delimiter: What stands between columns. It is found where this is empty; a blank means any white space.
        path: The image file. Folders and endings may be missing, as long as no doubt is left.
        key: In the place of ``path``: what a row names instead, as a table with a row a study does.
        label: The column of labels.
        findings: Columns of one finding each, in the place of ``label``. The column's name is the label, or the first
            of several names that it may have.
        separator: What stands between the labels of one cell, such as ``|``. A list in Python's or JSON's way is
            read without.
        labels: The class of each label that is not called as its class; the empty label is that of a row without any.
        ignore: Labels that count for nothing.
        present: What says in a column of ``findings`` that the finding is there.
        uncertain: What says there that nobody is sure.
        uncertain_is: What becomes of an image with such a finding: ``absent`` and ``present`` decide it, ``set_aside``
            leaves the image out, if the finding matters to ``rule``.
        rule: Which images with several labels are used. ``exclusive``: those of one class that show nothing else;
            ``set_aside``: those of one class, whatever else they show; ``first``: all, of the first of their classes
            in the order of ``data.classes``.
        rows: What becomes of several rows for one image. ``agree``: rows that say the same are one, and others leave
            the image out; ``majority``: a label counts that more than half of the rows have; ``any``: that one has.
        keep: The values that a row must have in a column to be read.
        views: The views that are used, such as ``[PA, AP]``; all where it is empty.
        patient: Whose image it is.
        study: Of which study.
        view: The view.
        source: The collection, machine or institution.
        age: In years, or as DICOM has it (``057Y``).
        sex: Of the patient.
        split: The given split: a column, or a file that lists images for each split, of which some may be missing.
        joins: Further tables.
    """

    file: str | Annotated[tuple[str, ...], Field(min_length=1)] | dict[GivenSplit, str]
    columns: tuple[Column, ...] = ()
    delimiter: str = ""
    path: Said | None = None
    key: KeySettings | None = None
    label: str = ""
    findings: tuple[Said, ...] = ()
    separator: str = ""
    labels: dict[Cell, Annotated[str, AfterValidator(composed)]] = Field(default_factory=dict)
    ignore: tuple[Cell, ...] = ()
    present: tuple[Cell, ...] = ("1", "true", "yes")
    uncertain: tuple[Cell, ...] = ("-1",)
    uncertain_is: Literal["absent", "present", "set_aside"] = "set_aside"
    rule: Literal["exclusive", "set_aside", "first"] = "exclusive"
    rows: Literal["agree", "majority", "any"] = "agree"
    keep: dict[Column, tuple[Cell, ...]] = Field(default_factory=dict)
    views: tuple[str, ...] = ()
    patient: Said | None = None
    study: Said | None = None
    view: Said | None = None
    source: Said | None = None
    age: Said | None = None
    sex: Said | None = None
    split: Said | dict[GivenSplit, str] | None = None
    joins: tuple[JoinSettings, ...] = ()

    @model_validator(mode="after")
    def _says_labels(self) -> TableSettings:
        if bool(self.label) == bool(self.findings):
            raise ValueError("name either the column of labels in label, or a column for each finding in findings")
        if (self.path is None) == (self.key is None):
            raise ValueError("name either the column of image files in path, or that of studies in key")
        if self.views and self.view is None:
            raise ValueError("views needs view, the column that says the view of an image")
        return self


def without_credentials(text: str) -> str:
    """The address, which settings may show to anybody.

    Raises:
        ValueError: It is empty, or holds a user name, a password or a signature.
    """
    if not text.strip():
        raise ValueError("it is empty: give the address of images")
    # Settings go to MLflow and into the report as they are.
    if re.match(r"[a-z][a-z0-9+.-]*://[^/]*@", text, re.IGNORECASE) or re.search(r"[?&]X-Amz-", text):
        raise ValueError(
            "the address holds credentials, which the settings would show to everybody: leave them out, and set the "
            "variables of its kind of source, such as AWS_ACCESS_KEY_ID"
        )
    return text


def _one(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


class NamedSource(Strict):
    """A source in a list of several. It may lie otherwise than the settings beside that list say."""

    WHAT: ClassVar[str]

    name: str
    source: Annotated[str, AfterValidator(without_credentials)]
    classes: tuple[Annotated[str, AfterValidator(composed)], ...] = ()
    layout: str | None = None
    table: TableSettings | None = None
    folders: dict[Annotated[str, AfterValidator(composed)], Annotated[str, AfterValidator(composed)]] | None = None
    patients: Literal["shared", "own"] = "shared"

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        name = composed(name)
        if not name or slug(name) != name:
            raise ValueError(f"{name!r} is no name of {_one(cls.WHAT)}: give letters, digits, -, _ and . alone")
        if name.lower() in OWN_SPLITS:
            raise ValueError(
                f"{name!r} is no name of {_one(cls.WHAT)}, since a split of the run's own data is called so"
            )
        return name

    @model_validator(mode="after")
    def _laid_out_once(self) -> Self:
        if sum(said is not None for said in (self.layout, self.table, self.folders)) > 1:
            raise ValueError(f"the {self.WHAT} {self.name!r} must name one of layout, table and folders")
        return self


class ExternalSettings(NamedSource):
    """A source that every model is tested on, and none is trained on or chosen by.

    It is read as the run's own data are. One that lies otherwise names its ``layout``, its ``table`` or its
    ``folders``.

    Attributes:
        name: What figures of it are called, such as ``hospital-b``.
        source: The address.
        classes: Those of ``data.classes`` that it has; all where this is empty.
        layout: The ready-made settings of a public data set, of which folders and table count.
        table: A table of labels.
        folders: The class of each further folder name, where folders say the classes.
        patients: Whose numbers name its patients. With ``shared`` a patient of the same number in training is the same
            person, and leaks. With ``own`` nobody in training is meant.
    """

    WHAT: ClassVar[str] = "external set"


class SourceSettings(NamedSource):
    """One of several sources that make the dataset together.

    It is read as ``data`` says. One that lies otherwise names its ``layout``, its ``table`` or its ``folders``.

    Attributes:
        name: What the column ``site`` of the manifest calls it, such as ``hospital-a``. Paths begin with it.
        source: The address.
        classes: Those of ``data.classes`` that it has; all where this is empty.
        layout: The ready-made settings of a public data set, of which folders and table count.
        table: A table of labels.
        folders: The class of each further folder name, where folders say the classes.
        patients: Whose numbers name its patients. With ``shared`` a patient of the same number in another source is the
            same person, and all their images lie in one split. With ``own`` nobody outside this source is meant.
    """

    WHAT: ClassVar[str] = "source"


def check_named(named: Sequence[NamedSource], classes: Sequence[str]) -> None:
    """Check that each source of a list has a name, classes and a layout that can be.

    Raises:
        ValueError: One has not.
    """
    names = [each.name.lower() for each in named]
    for each in named:
        if names.count(each.name.lower()) > 1:
            raise ValueError(f"there are two {each.WHAT}s of the name {each.name!r}: give each its own")
        if unknown := set(each.classes) - set(classes):
            raise ValueError(f"the {each.WHAT} {each.name!r} names {sorted(unknown)}, which are not among classes")
        if each.layout is not None:
            read_layout(each.layout)
