"""An artifact is made once, taken by whoever asks for the same again, and made anew where it was asked for."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks.artifacts import Artifact, RunContext
from cxr_tasks.config import resolve
from cxr_tasks.pipeline import Made, Postponed, ShownTraining, is_forced, load_settings, perform
from cxr_tasks.store import FolderStore, S3Store, Store, artifact_ref, open_store

RUN = RunContext(dag_run="one", settings="settings/one")


class Before(Artifact):
    """What the first of two steps makes."""

    step = "before"
    answer: int


class After(Artifact):
    """What the second of two steps makes."""

    step = "after"
    answer: int


class Make:
    """Fills an artifact, with a count of how often it was asked to."""

    def __init__(self, kind: type[Artifact] = Before, *, volatile: bool = False) -> None:
        self.kind, self.volatile, self.calls = kind, volatile, 0

    def __call__(self, folder: Path) -> Made[Any]:
        self.calls += 1
        (folder / "made.txt").write_text(f"call {self.calls}")
        artifact = self.kind.model_validate({"answer": self.calls, "notes": (f"note {self.calls}",)})
        return Made(artifact, {"accuracy": 0.5}, [{"step": 1, "loss": 3.0}], self.volatile)


def step(make: Callable[[Path], Made[Any]], run: RunContext = RUN, **options: Any) -> Any:
    kind = options.pop("kind", getattr(make, "kind", Before))
    of_a_step: dict[str, Any] = {"settings": {"epochs": 3}, "inputs": {"data": "x"}} | options
    return perform(run, kind, make, **of_a_step)


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_MLFLOW", "off")


def content(store: FolderStore, handle: Artifact) -> str:
    return (store.fetch(handle.ref) / "made.txt").read_text()


def test_what_is_not_there_is_made(store: FolderStore) -> None:
    make = Make()

    made = step(make)

    assert (make.calls, content(store, made)) == (1, "call 1")
    assert (made.answer, made.notes, made.reused, made.forced) == (1, ("note 1",), False, False)
    assert made.mlflow_run_id == made.made_by != ""
    assert made.ref == artifact_ref("before", 1, {"epochs": 3}, {"data": "x"})


def test_its_record_says_what_it_was_made_of_and_nothing_of_the_moment(store: FolderStore) -> None:
    made = step(Make(), inputs={"data": step(Make(After), kind=After), "other": "y"})

    record = store.record(made.ref)
    assert record is not None
    assert (record["step"], record["settings"], record["mlflow_run_id"]) == ("before", {"epochs": 3}, made.made_by)
    assert record["inputs"] == {"data": artifact_ref("after", 1, {"epochs": 3}, {"data": "x"}), "other": "y"}
    assert record["made"] == {"answer": 1, "notes": ["note 1"]}
    assert (record["metrics"], record["curves"]) == ({"accuracy": 0.5}, [{"step": 1, "loss": 3.0}])


def test_what_is_there_is_taken_as_it_is(store: FolderStore) -> None:
    make, again = Make(), Make()
    first = step(make)

    second = step(again, run=RunContext(dag_run="two", settings="settings/other"))

    assert (make.calls, again.calls) == (1, 0)
    assert (second.ref, second.answer, second.notes) == (first.ref, 1, ("note 1",))
    assert (second.reused, second.made_by, second.seconds) == (True, first.made_by, first.seconds)
    assert second.mlflow_run_id != first.mlflow_run_id


@pytest.mark.usefixtures("store")
def test_how_a_step_is_called_changes_nothing_of_what_it_makes() -> None:
    make = Make()

    refs = {step(make, label=label, training=ShownTraining(label)).ref for label in ("", "vgg16", "cnn")}

    assert (len(refs), make.calls) == (1, 1)


@pytest.mark.usefixtures("store")
def test_an_artifact_that_cannot_be_understood_any_more_is_made_anew() -> None:
    class Grown(Artifact):
        """What the step makes since its handle has one field more."""

        step = "before"
        answer: int
        further: str

    def fill(folder: Path) -> Made[Grown]:
        return Made(Grown(answer=7, further="more"))

    old = step(Make())

    grown = step(fill, kind=Grown)

    assert (grown.ref, grown.answer, grown.reused) == (old.ref, 7, False)
    assert step(fill, kind=Grown).reused


def test_an_artifact_of_an_older_form_is_made_anew_and_then_taken(store: FolderStore) -> None:
    ref = artifact_ref("before", 1, {"epochs": 3}, {"data": "x"})
    with store.publish(ref, {"step": "before", "summary": {"answer": 42}, "mlflow_run_id": "old"}) as folder:
        (folder / "made.txt").write_text("of an older form")
    make = Make()

    first, second = step(make), step(make)

    assert (first.ref, first.reused, second.reused, make.calls) == (ref, False, True, 1)
    assert content(store, second) == "call 1"


def test_forcing_a_step_makes_it_and_what_follows_anew(store: FolderStore) -> None:
    before, after = Make(), Make(After)

    def both(run: RunContext) -> list[Any]:
        first = step(before, run)
        return [first, step(after, run, inputs={"before": first})]

    forced = RUN.model_copy(update={"force": ("before",)})
    old, anew, later = both(RUN), both(forced), both(RUN)

    assert [handle.forced for handle in (*old, *anew, *later)] == [False, False, True, True, False, False]
    assert [handle.reused for handle in (*old, *anew, *later)] == [False, False, False, False, True, True]
    assert (before.calls, after.calls) == (2, 2)
    assert [handle.ref for handle in anew] == [handle.ref for handle in old]
    assert content(store, old[1]) == "call 2" and later[1].answer == 2


@pytest.mark.usefixtures("store")
def test_forcing_a_later_step_leaves_the_earlier_ones() -> None:
    before, after = Make(), Make(After)

    for run in (RUN, RUN.model_copy(update={"force": ("after",)})):
        step(after, run, inputs={"before": step(before, run)})

    assert (before.calls, after.calls) == (1, 2)


@pytest.mark.usefixtures("store")
def test_a_step_comes_after_handles_whose_content_its_inputs_name_already() -> None:
    make, elsewhere = Make(), Before(ref="before/elsewhere", answer=1)

    plain, beside = step(make), step(make, after=[elsewhere])
    forced = step(make, after=[elsewhere.model_copy(update={"forced": True})])

    assert plain.ref == beside.ref == forced.ref
    assert [handle.forced for handle in (plain, beside, forced)] == [False, False, True]
    assert [handle.reused for handle in (plain, beside, forced)] == [False, True, False]


def test_forced_is_what_was_named_or_what_follows_from_it() -> None:
    gan = Before(ref="train_gan/a", answer=1)
    named = RUN.model_copy(update={"force": ("train_gan",)})

    assert is_forced(named, "train_gan", {})
    assert is_forced(RUN, "synthesize", {"gan": gan.model_copy(update={"forced": True})})
    assert not is_forced(RUN, "synthesize", {"gan": gan, "other": "text"})


def test_what_was_made_under_passing_circumstances_is_made_anew_every_time(store: FolderStore) -> None:
    make = Make(volatile=True)

    first, second = step(make), step(make)

    assert first.ref == second.ref and make.calls == 2
    assert [handle.reused for handle in (first, second)] == [False, False]
    assert (second.answer, content(store, second)) == (2, "call 2")


def test_when_the_circumstances_have_passed_the_artifact_stays(store: FolderStore) -> None:
    step(Make(volatile=True))
    make = Make()

    made, taken = step(make), step(make)

    assert (made.reused, taken.reused, make.calls) == (False, True, 1)
    assert content(store, taken) == "call 1"


def test_postponed_work_leaves_a_handle_and_no_artifact(store: FolderStore) -> None:
    def postpone(folder: Path) -> Made[Before]:
        (folder / "half.txt").write_text("half")
        raise Postponed(Before(answer=0), "The work stands half-way.")

    waiting = step(postpone)

    assert (waiting.ref, waiting.answer, waiting.reused, waiting.forced) == ("", 0, False, False)
    assert waiting.mlflow_run_id != "" == waiting.made_by
    assert not list(store.root.rglob("half.txt"))
    assert step(Make()).answer == 1
    assert step(postpone, run=RUN.model_copy(update={"force": ("before",)})).forced


def test_a_failure_leaves_no_artifact(store: FolderStore) -> None:
    def fails(folder: Path) -> Made[Before]:
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step(fails)

    assert not list(store.root.rglob("half.txt"))
    assert not step(Make()).reused


def test_a_failure_to_make_anew_leaves_what_was_there(store: FolderStore) -> None:
    def fails(folder: Path) -> Made[Before]:
        raise ZeroDivisionError

    step(Make())
    with pytest.raises(ZeroDivisionError):
        step(fails, run=RUN.model_copy(update={"force": ("before",)}))

    taken = step(Make())
    assert taken.reused and content(store, taken) == "call 1"


@pytest.mark.usefixtures("store")
def test_a_step_within_earlier_work_shares_its_run() -> None:
    earlier = step(Make())

    within = step(Make(After), inputs={"earlier": earlier}, within=earlier)

    assert within.mlflow_run_id == earlier.mlflow_run_id == within.made_by
    assert not within.reused
    assert step(Make(After), inputs={"earlier": earlier}, within=step(Make())).reused


def counting(kind: Callable[..., Any] = Before, *, volatile: bool = False) -> tuple[list[int], Callable[..., Any]]:
    """What fills an artifact, slowly, and a list of a number a call."""
    calls: list[int] = []

    def fill(folder: Path) -> Made[Any]:
        calls.append(len(calls))
        time.sleep(0.2)
        (folder / "made.txt").write_text(f"call {len(calls)}")
        return Made(kind(answer=len(calls)), volatile=volatile)

    return calls, fill


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    address = str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3")
    monkeypatch.setenv("CXR_STORE", address)
    return open_store()


@pytest.mark.parametrize("volatile", [False, True])
@pytest.mark.parametrize("force", [(), ("before",)])
def test_of_many_that_want_the_same_one_makes_it_and_the_others_wait_for_it(
    any_store: Store, force: tuple[str, ...], volatile: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if force:
        step(Make())
    run, at_once = RUN.model_copy(update={"force": force}), Barrier(4)
    calls, fill = counting(volatile=volatile)

    def make(_: int) -> Any:
        at_once.wait(timeout=30)
        return step(fill, run)

    with ThreadPoolExecutor(4) as threads:
        handles = list(threads.map(make, range(4)))

    assert calls == [0]
    assert {(handle.ref, handle.answer, handle.made_by) for handle in handles} == {
        (handles[0].ref, 1, handles[0].made_by)
    }
    assert sorted(handle.reused for handle in handles) == [False, True, True, True]
    assert (any_store.fetch(handles[0].ref) / "made.txt").read_text() == "call 1"
    assert "before is under way in another run (" in caplog.text


def test_where_the_first_fails_the_second_makes_it(any_store: Store) -> None:
    began = Event()

    def fails(folder: Path) -> Made[Before]:
        began.set()
        time.sleep(0.2)
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(step, fails)
        began.wait(timeout=30)
        second = step(Make())
        with pytest.raises(ZeroDivisionError):
            first.result()

    assert (second.answer, second.reused) == (1, False)


class TestWithoutLeases:
    """As on a file system without locks, or on an S3 server without conditional writes."""

    @pytest.mark.parametrize("force", [(), ("before",)])
    def test_of_two_that_make_it_at_once_one_is_published_and_both_go_on_with_it(
        self, any_store: Store, force: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if force:
            step(Make())
        lease = type(any_store).lease

        def not_for_making(store: Store, name: str, work: str, **options: Any) -> Any:
            return nullcontext() if name.startswith("artifact/") else lease(store, name, work, **options)

        monkeypatch.setattr(type(any_store), "lease", not_for_making)
        both, published = Barrier(2), Barrier(2)
        commit = type(any_store)._commit

        def committed(*given: Any) -> bool:
            won = commit(*given)
            published.wait(timeout=30)
            return won

        monkeypatch.setattr(type(any_store), "_commit", committed)

        def maker(answer: int) -> Callable[[Path], Made[Before]]:
            def fill(folder: Path) -> Made[Before]:
                both.wait(timeout=30)
                (folder / "made.txt").write_text(f"call {answer}")
                return Made(Before(answer=answer))

            return fill

        run = RUN.model_copy(update={"force": force})
        with ThreadPoolExecutor(2) as threads:
            one, other = threads.map(lambda answer: step(maker(answer), run), (11, 12))

        assert (one.ref, one.answer, one.made_by) == (other.ref, other.answer, other.made_by)
        assert sorted(handle.reused for handle in (one, other)) == [False, True]
        assert (any_store.fetch(one.ref) / "made.txt").read_text() == f"call {one.answer}"


# What may happen to a file, to an artifact's folder, or to its record.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "another content": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_artifact_is_made_anew_with_a_word(
    store: FolderStore, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = step(Make())
    DAMAGE[what](store.fetch(first.ref) / "made.txt")

    again, taken = step(Make()), step(Make())

    assert (again.reused, taken.reused) == (False, True)
    assert content(store, again) == "call 1"
    assert f"artifact {first.ref} is damaged, its file made.txt " in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"made": {"answer": 1}}', "\0\0\0\0"])
def test_an_artifact_whose_record_is_damaged_is_made_anew(any_store: Store, text: str) -> None:
    ref = step(Make()).ref
    if isinstance(any_store, S3Store):
        any_store.bucket.put(f"{ref}/artifact.json", text.encode())
    else:
        (any_store.root / ref / "artifact.json").write_text(text)  # type: ignore[attr-defined]

    again, taken = step(Make()), step(Make())

    assert (again.reused, taken.reused) == (False, True)
    assert (any_store.fetch(ref) / "made.txt").read_text() == "call 1"


@pytest.mark.parametrize("content", [None, b"", b"call x", b"call 1 and more"])
def test_a_damaged_object_is_found_and_made_anew(s3: str, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setenv("CXR_STORE", s3)
    opened = open_store()
    assert isinstance(opened, S3Store)
    ref = step(Make()).ref
    path = f"{ref}/{opened.record(ref)['objects']}/made.txt"  # type: ignore[index]
    opened.bucket.delete([path]) if content is None else opened.bucket.put(path, content)

    again, taken = step(Make()), step(Make())

    assert (again.reused, taken.reused) == (False, True)
    assert (opened.fetch(ref) / "made.txt").read_text() == "call 1"


def test_what_follows_from_a_damaged_artifact_is_made_anew_where_it_came_out_differently(store: FolderStore) -> None:
    make = Make()

    def both(make_first: Make) -> list[Any]:
        first = step(make_first)
        return [first, step(Make(After), inputs={"before": first})]

    first = both(make)
    (store.fetch(first[0].ref) / "made.txt").unlink()
    same = both(Make())
    (store.fetch(first[0].ref) / "made.txt").unlink()
    other = both(make)

    assert [handle.reused for handle in same] == [False, True]
    assert [handle.reused for handle in other] == [False, False]


def test_settings_are_those_that_the_run_was_configured_with(store: FolderStore) -> None:
    settings = resolve("quick", {"gan": {"epochs": 7}})
    with store.publish("settings/one", {}) as folder:
        (folder / "settings.json").write_text(settings.model_dump_json())

    assert load_settings(RUN) == settings


# The laws of the key. Values are text and whole numbers: JSON, and so the key, tells 1 from 1.0 and from true.
plain = st.integers(0, 3) | st.sampled_from(["", "a", "b"]) | st.none()
values = plain | st.lists(plain, max_size=2) | st.dictionaries(st.sampled_from("pq"), plain, max_size=2)
settings_of_a_step = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
inputs_of_a_step = st.dictionaries(st.sampled_from(["data", "gan"]), st.sampled_from(["x", "y"]), max_size=2)
works = st.tuples(st.sampled_from([Before, After]), st.integers(1, 2), settings_of_a_step, inputs_of_a_step)
Work = tuple[type[Artifact], int, dict[str, Any], dict[str, str]]


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderStore]:
    """One store for all examples of a test."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_STORE", str(folder))
        patch.setenv("CXR_MLFLOW", "off")
        yield FolderStore(folder)


def made(work: Work, **options: Any) -> Any:
    kind, version, settings, inputs = work
    return step(Make(kind), kind=kind, version=version, settings=settings, inputs=inputs, **options)


@pytest.mark.usefixtures("shared_store")
class TestKey:
    @given(works, works)
    def test_the_same_step_version_settings_and_inputs_are_the_same_work_and_nothing_else_is(
        self, one: Work, other: Work
    ) -> None:
        first, second = made(one), made(other)

        assert (first.ref == second.ref) == (one == other)
        assert second.reused or first.ref != second.ref

    @given(works, st.randoms(use_true_random=False))
    def test_the_order_of_settings_and_inputs_does_not_count(self, work: Work, random: Any) -> None:
        kind, version, *named = work
        turned = [dict(random.sample(list(each.items()), len(each))) for each in named]

        assert made((kind, version, *turned)).ref == made(work).ref

    @given(works, st.booleans(), st.floats(0, 1), st.text(max_size=3))
    def test_of_a_handle_only_its_reference_counts(self, work: Work, flag: bool, seconds: float, text: str) -> None:
        kind, version, settings, inputs = work
        handles: dict[str, Any] = {
            name: After(ref=ref, answer=1, reused=flag, seconds=seconds, url=text, mlflow_run_id=text, notes=(text,))
            for name, ref in inputs.items()
        }

        assert made((kind, version, settings, handles)).ref == made(work).ref

    @given(works)
    def test_forcing_changes_no_key(self, work: Work) -> None:
        forced = made(work, run=RUN.model_copy(update={"force": (work[0].step,)}))

        assert forced.ref == made(work).ref and not forced.reused
