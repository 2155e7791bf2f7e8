"""Which GPU a process draws on, by what is visible to it."""

from __future__ import annotations

import pytest

from memo_habitat.simulator.habitat_sim import device


@pytest.fixture
def visible(monkeypatch):
    """Sets CUDA_VISIBLE_DEVICES (None: unset) on a machine that has a driver."""
    monkeypatch.setattr(device, "has_nvidia_gpu", lambda: True)

    def set_to(value):
        if value is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    return set_to


@pytest.mark.parametrize(
    ("devices", "local_rank", "expected"),
    [
        (None, 0, 0),
        (None, 3, 3),
        ("0,1,2,3", 3, 3),
        ("3", 3, 0),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", 1, 0),
        ("2,-1,3", 1, 0),
        ("", 1, -1),
        ("-1", 0, -1),
    ],
)
def test_a_rank_takes_the_only_visible_gpu_or_the_one_of_its_number(
    visible, devices, local_rank, expected
):
    visible(devices)
    assert device.gpu_index(local_rank) == expected
    if expected >= 0:
        assert device.rendering_device(local_rank) == expected


@pytest.mark.parametrize("devices", [None, "0", "0,1"])
def test_software_stays_software(visible, devices):
    visible(devices)
    assert device.gpu_index(device.SOFTWARE) == device.SOFTWARE


def test_without_a_driver_there_is_no_gpu_whatever_is_said_to_be_visible(visible, monkeypatch):
    visible("0,1")
    monkeypatch.setattr(device, "has_nvidia_gpu", lambda: False)
    assert device.gpu_index(1) == device.SOFTWARE
