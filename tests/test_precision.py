"""Precision by the hardware of the worker: what each kind of it is given, and that artifacts are named by that."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_tasks import precision
from cxr_tasks.config import resolve
from cxr_tasks.precision import backbone_precision, cpu_flags, gan_in_bfloat16

MODERN, OLD = {"avx2", "avx512_bf16"}, {"avx2", "avx512f"}
HARDWARE = [
    # An H200, an A100, a V100, a GPU before tensor cores, one that tells nothing; and processors without a GPU.
    ([(9, 0)], OLD, "bfloat16", True),
    ([(8, 0)], OLD, "bfloat16", True),
    ([(7, 0)], MODERN, "float16", False),
    ([(6, 1)], MODERN, "float32", False),
    ([(0, 0)], MODERN, "float32", False),
    ([(9, 0), (7, 5)], OLD, "float16", False),
    ([], MODERN, "bfloat16", False),
    ([], {"amx_bf16"}, "bfloat16", False),
    ([], OLD, "float32", False),
]


def forget() -> None:
    precision._of_gpus.cache_clear()
    precision._of_processors.cache_clear()


@pytest.fixture
def hardware(monkeypatch):
    """Gives the machine other GPUs and processors."""

    def have(gpus: list[tuple[int, int]], flags: set[str]) -> None:
        forget()
        monkeypatch.setattr(precision, "gpu_capabilities", lambda: gpus)
        monkeypatch.setattr(precision, "cpu_flags", lambda: flags)

    yield have
    forget()


@pytest.mark.parametrize(("gpus", "flags", "backbone", "gan"), HARDWARE)
def test_auto_takes_what_the_hardware_has_instructions_for_and_says_so(hardware, caplog, gpus, flags, backbone, gan):
    hardware(gpus, flags)

    with caplog.at_level(logging.INFO, precision.__name__):
        assert (backbone_precision("auto"), gan_in_bfloat16("auto")) == (backbone, gan)

    assert caplog.messages[0].startswith(f"Precision auto: {backbone}, on ")


@given(st.sampled_from(["float32", "float16", "bfloat16"]), st.booleans())
def test_what_is_said_outright_is_done_and_no_hardware_is_asked(asked, mixed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_of_gpus", None)
        patch.setattr(precision, "_of_processors", None)

        assert backbone_precision(asked) == asked and gan_in_bfloat16(mixed) is mixed


def test_the_kernel_is_asked_what_processors_can_do(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\nbugs\t\t: none\n")
    monkeypatch.setattr(precision, "CPU_INFO", info)
    assert cpu_flags() == {"fpu", "avx2", "avx512_bf16"}

    info.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_flags() == set()
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "missing")
    assert cpu_flags() == set()


def test_profiles_take_no_precision_by_the_hardware():
    for name in ("paper", "quick"):
        settings = resolve(name)
        assert settings.classifiers.precision == "float32" and settings.gan.mixed_precision is False


def test_auto_is_a_setting_like_others():
    settings = resolve("quick", {"classifiers": {"precision": "auto"}, "gan": {"mixed_precision": "auto"}})

    assert (settings.classifiers.precision, settings.gan.mixed_precision) == ("auto", "auto")
