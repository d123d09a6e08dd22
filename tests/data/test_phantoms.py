"""Phantoms: the layout, the bytes that must not change, the anatomy, and class signs that can be learned."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_tasks.data import phantoms
from cxr_tasks.data.phantoms import MASK_SIZE, PHANTOM_COUNTS, write_phantoms

SMALL = {"COVID": 5, "Normal": 6, "Viral Pneumonia": 4, "Lung_Opacity": 3}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / f"{name}.metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(folder: Path, name: str, n: int, kind: str = "images", side: int | None = None) -> np.ndarray:
    image = Image.open(folder / name / kind / f"{name}-{n}.png")
    return np.asarray(image.resize((side, side), Image.Resampling.BOX) if side else image, dtype=np.float64)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "small"
    write_phantoms(folder, SMALL)
    return folder


def test_layout_sizes_and_modes(small: Path) -> None:
    tables = {f"{name}.metadata.csv" for name in SMALL}
    assert {p.name for p in small.iterdir()} == set(SMALL) | tables
    for name, count in SMALL.items():
        names = {f"{name}-{n}.png" for n in range(1, count + 1)}
        for kind, side in (("images", 299), ("masks", MASK_SIZE)):
            assert {p.name for p in (small / name / kind).iterdir()} == names
            for path in (small / name / kind).iterdir():
                with Image.open(path) as image:
                    assert (image.mode, image.size, image.format) == ("L", (side, side), "PNG")
        assert set(np.unique(pixels(small, name, 1, "masks"))) == {0, 255}


def test_metadata_names_every_image_and_no_host(small: Path) -> None:
    for name, count in SMALL.items():
        table = rows(small, name)
        assert list(table[0]) == ["FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT"]
        assert [row["FILE NAME"] for row in table] == [f"{name}-{n}" for n in range(1, count + 1)]
        assert all(row["URL"].startswith("phantom-collection-") and "." not in row["URL"] for row in table)
        assert {(row["FORMAT"], row["SIZE"]) for row in table} == {("PNG", "299*299")}


def test_same_seed_same_bytes_other_seed_other_images(small: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "again", SMALL)
    write_phantoms(tmp_path / "other", {"Normal": 2}, seed=1)
    assert tree(tmp_path / "again") == tree(small)
    assert (pixels(tmp_path / "other", "Normal", 1) != pixels(small, "Normal", 1)).any()


def test_growing_one_class_keeps_every_earlier_image(small: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "grown", {"Viral Pneumonia": 4, "COVID": 9})
    before, after = tree(small), tree(tmp_path / "grown")
    kept = [p for p in before if p.startswith(("COVID/", "Viral Pneumonia/"))]
    assert len(kept) == 2 * (5 + 4)
    assert all(before[p] == after[p] for p in kept)
    assert rows(tmp_path / "grown", "COVID")[:5] == rows(small, "COVID")


def test_a_patient_has_one_anatomy_in_other_positions(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "set", {"Normal": 60}, image_size=64)
    patients = [row["PATIENT"] for row in rows(tmp_path / "set", "Normal")]
    sizes = {patients.count(patient) for patient in patients}
    assert {1, 2} <= sizes <= {1, 2, 3}
    masks = [pixels(tmp_path / "set", "Normal", n, "masks") > 0 for n in range(1, 61)]

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        # Centred first, so that anatomy is compared and not position.
        a, b = (np.roll(m, (128 - np.argwhere(m).mean(0)).astype(int), (0, 1)) for m in (a, b))
        return float((a & b).sum() / (a | b).sum())

    together = [overlap(masks[i], masks[i + 1]) for i in range(59) if patients[i] == patients[i + 1]]
    apart = [overlap(masks[i], masks[i + 1]) for i in range(59) if patients[i] != patients[i + 1]]
    assert np.mean(together) > np.mean(apart) + 0.03
    assert len({pixels(tmp_path / "set", "Normal", n).tobytes() for n in range(1, 61)}) == 60


def test_masks_cover_the_dark_lungs(small: Path) -> None:
    for n in range(1, SMALL["Normal"] + 1):
        image = pixels(small, "Normal", n, side=MASK_SIZE)
        mask = pixels(small, "Normal", n, "masks") > 0
        ys, xs = np.nonzero(mask)
        thorax = np.zeros_like(mask)
        thorax[ys.min() : ys.max(), xs.min() : xs.max()] = True
        assert 0.12 < mask.mean() < 0.45
        assert image[mask].mean() < image[thorax & ~mask].mean() - 25


def test_existing_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        write_phantoms(tmp_path / "set", {"COVID": 1})
    assert list((tmp_path / "set").iterdir()) == []


@pytest.mark.parametrize("stop", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    expose, calls = phantoms._expose, []

    def fail_on_third(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise stop
        return expose(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(phantoms, "_expose", fail_on_third)
    with pytest.raises(type(stop)):
        write_phantoms(tmp_path / "set", {"COVID": 5}, image_size=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("counts", "options"),
    [({"Covid": 1}, {}), ({"COVID": -1}, {}), ({"COVID": 1}, {"image_size": 8}), ({"COVID": 1}, {"seed": -1})],
)
def test_impossible_requests_are_refused(tmp_path: Path, counts: dict[str, int], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"COVID|at least"):
        write_phantoms(tmp_path / "set", counts, **options)
    assert list(tmp_path.iterdir()) == []


def test_signs_can_be_learned_and_are_not_trivial(tmp_path: Path) -> None:
    """Fisher's linear discriminant on 12x12 pixels, on patients it never saw: above chance, below perfect."""
    count = {name: 60 for name in list(PHANTOM_COUNTS)[:3]}
    write_phantoms(tmp_path / "set", count, image_size=64)
    x, y, held_out = [], [], []
    for label, name in enumerate(count):
        for n, row in enumerate(rows(tmp_path / "set", name), start=1):
            x.append(pixels(tmp_path / "set", name, n, side=12).ravel() / 255)
            y.append(label)
            held_out.append(int(row["PATIENT"].split("-P")[1]) > 40)
    features, labels, test = np.array(x), np.array(y), np.array(held_out)
    features -= features[~test].mean(0)
    means = np.stack([features[~test & (labels == k)].mean(0) for k in range(3)])
    within = (features - means[labels])[~test]
    covariance = within.T @ within / len(within)
    weights = np.linalg.solve(covariance + 0.1 * np.trace(covariance) / 144 * np.eye(144), means.T)
    scores = features[test] @ weights - 0.5 * (means.T * weights).sum(0)
    accuracy = (scores.argmax(1) == labels[test]).mean()
    assert 0.5 < accuracy < 0.98
