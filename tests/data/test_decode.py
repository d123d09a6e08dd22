"""Whatever bytes a file holds, decoding gives its pixels and facts or one clear reason, and never fails otherwise."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cxr_tasks.data.decode import Decoded, HowToRead, Limits, decode
from cxr_tasks.data.formats import Unusable
from tests.data.bad_files import (
    bad_files,
    changed,
    chunk,
    encoded,
    lungs,
    noise,
    orientation,
    png_that_claims,
    ribs,
    with_chunk,
    with_hole,
    write_bad_files,
)
from tests.data.wide_files import WIDE_FILES

MASK = "a few gray levels make up almost the whole image: it is a mask, a drawing or blank, and no X-ray"
REASONS = {
    "zero bytes": "the file is empty (0 bytes): copy it again",
    "truncated PNG": "the file is cut off before its end: copy it again",
    "truncated JPEG": "the file is cut off before its end: copy it again",
    "PNG cut in its header": "the file is cut off before its end: copy it again",
    "not an image": "the file is not an image",
    "DICOM named PNG": "the DICOM file holds no pixels, or is cut off before them: copy or export it again",
    "DICOM": "the DICOM file holds no pixels, or is cut off before them: copy or export it again",
    "HTML": "the file holds a web page and no image, as where a login is missing: download the image again",
    "HTML of a drive": "the file holds a web page of Google Drive and no image, as where a login is missing: "
    "download the image again",
    "XML": "the file holds XML and no image, as where a download is refused: download the image again",
    "pointer of Git LFS": "the file is a pointer of Git LFS and not the image itself: run git lfs pull",
    "pointer of git-annex": "the file is a pointer of git-annex and not the image itself: run git annex get",
    "placeholder of iCloud": "the file is a placeholder of iCloud: make the image available offline",
    "placeholder of Google Drive": "the file holds a placeholder of Google Drive: download the image again",
    "zeros": "all bytes of the file are zero, as a cloud drive or a broken copy leaves them: copy it again",
    "unfinished": "files that end in .crdownload are unfinished: download the image again, or rename the file if it is "
    "whole",
    "old version": "files that end in .bak are old versions: rename the file if it is meant",
    "zip": "the file holds a zip archive: unpack it",
    "RAR": "the file holds a RAR archive: unpack it",
    "7z": "the file holds a 7z archive: unpack it",
    "tar": "the file holds a tar archive: unpack it",
    "packed PNG": "the file holds what gzip has packed: unpack it",
    "part of an archive": "one part of a split archive is not read: put the parts together, unpack them, and give the "
    "folder",
    "PDF": "the file holds PDF: export the image as PNG or JPEG",
    "AVIF": "the file holds AVIF: export the image as PNG or JPEG",
    "HEIC": "the file holds HEIC: export the image as PNG or JPEG",
    "rotated TIFF": "the file says it is rotated (EXIF orientation 6): save it upright",
    "pages of a TIFF": "the file holds 2 images: save the one that is meant",
    "cut TIFF": "the file is cut off before its end: copy it again",
    "animated GIF": "the file holds 2 images: save the one that is meant",
    "animated WebP": "the file holds 2 images: save the one that is meant",
    "transparent WebP": "parts of the image are transparent: save it without transparency",
    "cut WebP": "the file is cut off before its end: copy it again",
    "WebP bomb": "16384×16384 pixels: at most 50,000,000 in all are decoded, make the image smaller",
    "cut JPEG 2000": "the image is damaged (broken data stream when reading image file): copy or export it again",
    "JPEG-LS": "the image is damaged (something else stands where a JPEG segment should begin): "
    "copy or export it again",
    "two levels": MASK,
    "levels 0 and 1": MASK,
    "two levels as JPEG": MASK,
    "two levels made small": MASK,
    "few levels": MASK,
    "PNG bomb": "50000×50000 pixels: at most 50,000,000 in all are decoded, make the image smaller",
    "JPEG bomb": "50000×50000 pixels: at most 50,000,000 in all are decoded, make the image smaller",
    "JPEG of many scans": "more than 100 passes over the pixels: save the image again as PNG or JPEG",
    "16-bit colour": "colours of 16 bits a channel are not read: save the image as gray, or with 8 bits",
    "JPEG of arithmetic coding": "a kind of JPEG that is not read (hierarchical or arithmetic): save the image as PNG",
    "colour palette": "the image is in colour and not a gray X-ray",
    "black and white": "1 bit a pixel, black or white: export the image as 8-bit gray",
    "CMYK": "the colours are CMYK, made for printing: save the image as 8-bit gray",
    "transparent RGBA": "parts of the image are transparent: save it without transparency",
    "transparent LA": "parts of the image are transparent: save it without transparency",
    "transparent level": "parts of the image are transparent: save it without transparency",
    "colour photo": "the image is in colour and not a gray X-ray",
    "rotated by EXIF, JPEG": "the file says it is rotated (EXIF orientation 6): save it upright",
    "rotated by EXIF, PNG": "the file says it is rotated (EXIF orientation 3): save it upright",
    "damaged EXIF": "its EXIF data is damaged and may say that it is rotated: save it without EXIF",
    "animated PNG": "the file holds 2 images: save the one that is meant",
    "several images in a JPEG": "the file holds 2 images: save the one that is meant",
    "1×1": "1×1 pixels: at least 32 a side are needed",
    "too narrow": "31×500 pixels: at least 32 a side are needed",
    "all one colour": "the image is all one colour",
    "corrupt header": "the image is damaged (the checksum of its IHDR chunk is wrong): copy or export it again",
    "corrupt pixels": "the image is damaged (the checksum of its IDAT chunk is wrong): copy or export it again",
    "enormous text": "too much text or too large a colour profile: save the image without metadata",
    "enormous profile": "too much text or too large a colour profile: save the image without metadata",
    "garbage behind a JPEG header": "the image is damaged (there is no JPEG marker 0x3f): copy or export it again",
    "garbage in a JPEG header": "the image is damaged (something else stands where a JPEG segment should begin): "
    "copy or export it again",
    "long name": "the file name has 251 bytes: at most 200 are possible, rename the file",
    "name that is not UTF-8": "the file name is not UTF-8: rename the file",
}
GRAY = ribs()
PNG, JPEG = encoded(GRAY), encoded(GRAY, "JPEG", quality=90)
SEEDS = {"a.png": PNG, "b.jpg": JPEG, "c.jpg": encoded(GRAY.convert("RGB"), "JPEG", progressive=True)}
OTHER_SEEDS = {
    "d.webp": encoded(GRAY, "WEBP"),
    "e.webp": encoded(GRAY.convert("RGBA"), "WEBP", lossless=True),
    "f.jp2": encoded(GRAY, "JPEG2000"),
    "g.j2k": encoded(GRAY.convert("RGB"), "JPEG2000", no_jp2=True, irreversible=True),
    "h.gif": encoded(GRAY, "GIF"),
    "i.bmp": encoded(GRAY.convert("RGB"), "BMP"),
    "j.tif": encoded(GRAY, "TIFF"),
    "k.png": encoded(GRAY.convert("P")),
}


def reason(content: bytes, name: str = "a.png") -> str:
    with pytest.raises(Unusable) as raised:
        decode(content, name, (16,))
    return str(raised.value)


def outcome(content: bytes, name: str) -> str:
    """'' for a usable file and else the reason; lets any other exception through."""
    try:
        decoded = decode(content, name, (16,))
    except Unusable as unusable:
        assert str(unusable)
        return str(unusable)
    assert decoded.images[0].shape == (16, 16)
    return ""


def facts(decoded: Decoded) -> tuple[object, ...]:
    """All but the mode, comparable."""
    arrays = (decoded.thumbnail, *decoded.images)
    return (
        decoded.width,
        decoded.height,
        decoded.mean,
        decoded.contrast,
        decoded.dhash,
        *(array.tobytes() for array in arrays),
    )


def differing_bits(one: Decoded, other: Decoded) -> int:
    return (one.dhash ^ other.dhash).bit_count()


def correlation(one: Decoded, other: Decoded) -> float:
    return float(np.corrcoef(one.thumbnail.ravel(), other.thumbnail.ravel())[0, 1])


@pytest.mark.parametrize("kind", bad_files())
def test_each_bad_file_has_its_own_reason(kind: str) -> None:
    name, content = bad_files()[kind]

    assert reason(content, name) == REASONS[kind]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jfif", "a.jpe", "a.dcm", "a", "IM0001", "a.WEBP"])
@pytest.mark.parametrize("seed", SEEDS | OTHER_SEEDS)
def test_an_image_is_known_by_its_content_and_not_by_its_name(seed: str, name: str) -> None:
    content = (SEEDS | OTHER_SEEDS)[seed]
    gray = Image.open(BytesIO(content)).convert("L")

    decoded = decode(content, f"COVID/images/{name}", (40,))

    np.testing.assert_array_equal(decoded.images[0], gray.resize((40, 40), Image.Resampling.BILINEAR))
    assert np.abs(np.asarray(gray, int) - np.asarray(GRAY, int)).mean() < 4


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_a_tiff_of_one_page_is_read(compression: str | None) -> None:
    assert outcome(encoded(GRAY, "TIFF", compression=compression), "a.tif") == ""


def test_black_is_black_in_a_tiff_that_counts_from_white() -> None:
    negative = encoded(GRAY, "TIFF", tiffinfo={262: 0})
    assert ImageOps.invert(GRAY).tobytes() in negative

    assert decode(negative, "a.tif", ()).mean == pytest.approx(decode(PNG, "a.png", ()).mean)


@pytest.mark.parametrize("tint", [(0.8, 0.88, 1), (0.6, 0.75, 1), (1, 0.9, 0.7), (0.7, 1, 0.8)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_tinted_film_is_read_as_gray(tint: tuple[float, ...], format: str) -> None:
    film = Image.merge("RGB", [GRAY.point([int(value * share) for value in range(256)]) for share in tint])
    content = encoded(film, format)

    assert outcome(content, "a") == ""
    np.testing.assert_array_equal(
        decode(content, "a", (40,)).images[0],
        Image.open(BytesIO(content)).convert("L").resize((40, 40), Image.Resampling.BILINEAR),
    )


@given(st.integers(0, 255), st.integers(0, 255), st.integers(50, 95), st.integers(100, 300), st.booleans())
@settings(max_examples=60)
def test_a_mask_of_any_two_levels_is_no_x_ray(low: int, high: int, quality: int, side: int, as_jpeg: bool) -> None:
    # Levels nearer to each other than this drown in what JPEG adds.
    if abs(high - low) < (60 if as_jpeg else 1):
        high = (low + 100) % 256
    mask = lungs((256, 256)).resize((side, side)).point(lambda value: low + (high - low) * value // 255)

    assert reason(encoded(mask, "JPEG", quality=quality) if as_jpeg else encoded(mask), "a") == MASK


@given(st.integers(0, 10**6), st.floats(0.15, 1), st.booleans())
@settings(max_examples=40)
def test_an_image_of_many_levels_is_no_mask_at_any_contrast(seed: int, contrast: float, inverted: bool) -> None:
    image = ribs(seed=seed).point(lambda value: int(128 + contrast * (value - 128)))

    assert outcome(encoded(ImageOps.invert(image) if inverted else image), "a.png") == ""


def test_limits_are_those_that_are_given() -> None:
    narrow = HowToRead(Limits(smallest_side=80, most_pixels=96 * 80))

    assert decode(PNG, "a.png", (), narrow).width == 96
    for side, area in ((81, 96 * 80), (80, 96 * 80 - 1)):
        with pytest.raises(Unusable, match=r"at least 81 a side|at most 7,679 in all"):
            decode(PNG, "a.png", (), HowToRead(Limits(side, area)))


def test_bad_files_can_be_written_and_listed_again(tmp_path: Path) -> None:
    kinds = write_bad_files(tmp_path)

    assert set(kinds.values()) == set(REASONS)
    assert {path.name for path in tmp_path.iterdir()} == set(kinds)
    assert {outcome(path.read_bytes(), path.name) for path in tmp_path.iterdir()} == set(REASONS.values())


def test_threads_and_filters_of_warnings_change_nothing() -> None:
    files = [*bad_files().values(), *((name, content) for name, content in SEEDS.items())] * 5
    before = list(warnings.filters)
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as threads:
        warnings.simplefilter("error")
        together = list(threads.map(lambda file: outcome(file[1], file[0]), files))

    assert together == [outcome(content, name) for name, content in files]
    assert warnings.filters == before


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_gray_image_is_decoded_as_pillow_would(mode: str, format: str) -> None:
    content = encoded(GRAY.convert(mode), format)
    gray = Image.open(BytesIO(content)).convert("L")

    decoded = decode(content, f"COVID/images/a.{'jpeg' if format == 'JPEG' else 'PNG'}", (40, 16, 224))

    assert (decoded.width, decoded.height, decoded.mode) == (*GRAY.size, mode)
    assert decoded.mean == pytest.approx(np.asarray(gray).mean())
    assert decoded.contrast == pytest.approx(np.asarray(gray).std())
    assert (decoded.thumbnail.dtype, decoded.thumbnail.shape) == (np.uint8, (32, 32))
    assert 0 <= decoded.dhash < 2**64
    for size, pixels in zip((40, 16, 224), decoded.images, strict=True):
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, gray.resize((size, size), Image.Resampling.BILINEAR))


def test_hash_says_where_brightness_falls_from_left_to_right() -> None:
    falling = np.tile(np.arange(255, 155, -1, dtype=np.uint8), (100, 1))
    halves = np.concatenate([falling[:, :50], falling[:, 49::-1]], axis=1)

    assert decode(encoded(Image.fromarray(falling)), "a.png", ()).dhash == 2**64 - 1
    assert decode(encoded(Image.fromarray(falling[:, ::-1])), "a.png", ()).dhash == 0
    assert decode(encoded(Image.fromarray(halves)), "a.png", ()).dhash == 0xF0F0F0F0F0F0F0F0


def test_sizes_change_neither_hash_nor_thumbnail() -> None:
    few, many = decode(PNG, "a.png", ()), decode(PNG, "a.png", (8, 300))

    assert few.dhash == many.dhash
    np.testing.assert_array_equal(few.thumbnail, many.thumbnail)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_accepted(mode: str) -> None:
    decoded = decode(encoded(GRAY.convert(mode)), "a.png", (16,))

    assert decoded.mode == mode
    assert facts(decoded) == facts(decode(PNG, "a.png", (16,)))


def test_a_transparent_level_that_no_pixel_has_is_accepted() -> None:
    unused = GRAY.point(lambda value: max(value, 1))

    assert decode(encoded(unused, transparency=0), "a.png", (16,)).mode == "L"


def test_a_small_coloured_mark_on_a_gray_image_is_accepted() -> None:
    image = GRAY.convert("RGB")
    image.paste((255, 0, 0), (2, 2, 14, 14))

    assert decode(encoded(image), "a.png", (16,)).mode == "RGB"


@pytest.mark.parametrize("name", ["a.PNG", "Normal/images/" + "x" * 196 + ".png", "Lungenröntgen.png"])
def test_name_is_accepted(name: str) -> None:
    assert outcome(PNG, name) == ""


@pytest.mark.parametrize("value", [0, 1, 9])
def test_an_orientation_that_turns_nothing_is_accepted(value: int) -> None:
    assert outcome(encoded(GRAY, "JPEG", exif=orientation(value)), "a.jpg") == ""


def test_an_ordinary_profile_comment_and_trailer_are_accepted() -> None:
    content = encoded(GRAY, "JPEG", icc_profile=noise(100_000), comment=b"\xff\xda" * 500)

    assert outcome(content + noise(1000), "a.jpg") == ""
    assert outcome(with_chunk(PNG, b"tEXt", b"Comment\0" + b"x" * 3_000_000) + noise(1000), "a.png") == ""


def test_the_limit_lies_above_fifty_megapixels() -> None:
    assert reason(png_that_claims(10_000, 5000)).startswith("the image is damaged")
    assert reason(png_that_claims(10_000, 5001)).startswith("10000×5001 pixels: at most")


@pytest.mark.parametrize("place", range(8, len(PNG), 97))
def test_no_changed_bit_of_a_png_goes_unnoticed(place: int) -> None:
    assert reason(changed(PNG, place))


@pytest.mark.parametrize("seed", range(8))
def test_a_jpeg_copy_lies_within_two_bits(seed: int) -> None:
    image = ribs((299, 299), seed)

    one, other = decode(encoded(image), "a.png", ()), decode(encoded(image, "JPEG", quality=90), "a.jpg", ())

    assert differing_bits(one, other) <= 2
    assert correlation(one, other) > 0.99


@given(st.integers(0, 10**6), st.integers(80, 95), st.integers(150, 400))
@settings(max_examples=30)
def test_a_copy_encoded_again_or_resized_is_near(seed: int, quality: int, side: int) -> None:
    image = ribs((299, 299), seed)
    original = decode(encoded(image), "a.png", ())

    again = decode(encoded(image, "JPEG", quality=quality), "a.jpg", ())
    resized = decode(encoded(image.resize((side, side))), "a.png", ())

    # Neighbours of the same brightness can fall either way, so that no copy is sure to keep every bit.
    assert max(differing_bits(original, again), differing_bits(original, resized)) <= 6
    assert min(correlation(original, again), correlation(original, resized)) > 0.95


@given(st.integers(0, 10**6), st.integers(32, 90), st.integers(32, 90))
def test_gray_in_three_channels_is_the_same_image(seed: int, width: int, height: int) -> None:
    image = ribs((width, height), seed)
    rows = [
        facts(decode(encoded(image.convert(mode), optimize=mode == "L"), "a.png", (16, 50)))
        for mode in ("L", "RGB", "RGBA", "LA", "P")
    ]

    assert rows == rows[:1] * 5


any_bytes = st.binary(max_size=300)
starts = st.sampled_from([b"", PNG[:8], PNG[:33], PNG[:60], JPEG[:3], JPEG[:20], JPEG[: JPEG.index(b"\xff\xda") + 12]])


@pytest.mark.timeout(240)
@given(starts, any_bytes, st.sampled_from(["a.png", "a.jpg", "a.gif"]))
@settings(max_examples=300)
def test_random_bytes_are_decoded_or_have_a_reason(start: bytes, rest: bytes, name: str) -> None:
    outcome(start + rest, name)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A real file with some bytes replaced, mostly in its header, perhaps with a piece taken out or cut off."""
    files = SEEDS | OTHER_SEEDS | WIDE_FILES
    name = draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    places = st.one_of(st.integers(0, 199), st.integers(0, len(content) - 1))
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = value
    if draw(st.booleans()):
        start = draw(places)
        del content[start : start + draw(st.integers(1, 40))]
    return name, bytes(content[: draw(st.one_of(st.none(), places))])


@pytest.mark.timeout(240)
@given(mutated())
@settings(max_examples=400)
def test_mutated_files_are_decoded_or_have_a_reason(file: tuple[str, bytes]) -> None:
    name, content = file
    outcome(content, name)


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, png[position + 8 : position + 8 + length]
        position += 12 + length


kinds = st.sampled_from(
    b"IHDR PLTE IDAT tRNS gAMA cHRM sRGB pHYs tEXt zTXt iTXt iCCP eXIf acTL fcTL fdAT IEND ruNK".split()
)
texts = st.sampled_from(
    [b"transparency\0\x01", b"exif\0II*\0\xff", b"bbox\x00abcd", b"interlace\x001", b"xmp\0\0\0\0\0"]
)
contents = st.one_of(any_bytes, texts, any_bytes.map(lambda data: b"x\0\0" + zlib.compress(data)))


@pytest.mark.timeout(240)
@given(st.lists(st.tuples(st.integers(0, 3), kinds, contents), min_size=1, max_size=4), st.binary(max_size=13))
@settings(max_examples=400)
def test_nonsense_with_right_checksums_is_decoded_or_has_a_reason(
    extra: list[tuple[int, bytes, bytes]], header: bytes
) -> None:
    """Checksums keep most mutations from Pillow; these come through to it."""
    parts = list(chunks(PNG))
    # Only the fields behind the size, so that most files still have pixels to decode.
    parts[0] = (b"IHDR", parts[0][1][: 13 - min(5, len(header))] + header[:5])
    for place, kind, content in extra:
        parts.insert(place, (kind, content))
    outcome(PNG[:8] + b"".join(chunk(kind, content) for kind, content in parts), "a.png")


def test_a_hole_of_one_pixel_is_seen() -> None:
    assert "transparent" in reason(encoded(with_hole(GRAY, "RGBA")))


@pytest.fixture(scope="module")
def real_images() -> list[Path]:
    folder = Path(os.environ.get("CXR_SAMPLE") or Path(__file__).parents[3] / "shared" / "cxr" / "sample")
    images = sorted(folder.rglob("*.png"))
    if not images:
        pytest.skip(f"no real X-rays in {folder}: name a folder of them in CXR_SAMPLE")
    return images[:: max(1, len(images) // 50)][:50]


def test_real_x_rays_are_accepted_and_recognised_when_encoded_again(real_images: list[Path]) -> None:
    for path in real_images:
        original = decode(path.read_bytes(), path.name, (112, 224))
        assert original.contrast > 10
        with Image.open(path) as image:
            copy = decode(encoded(image.convert("L"), "JPEG", quality=90), "a.jpg", ())
        assert differing_bits(original, copy) <= 2
        assert correlation(original, copy) > 0.99
