"""The CPUs that a process may use."""

from __future__ import annotations

import os

import pytest

from echo_service import cpus

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def limited(tmp_path, monkeypatch):
    """A machine of 8 CPUs whose cgroup files say this."""

    def limited(group: str, **files: str) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        (tmp_path / "cgroup").write_text(group)
        for path, text in files.items():
            place = tmp_path / "fs" / path.replace("__", "/").replace("_DOT_", ".")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return cpus.available(tmp_path / "fs", tmp_path / "cgroup")

    return limited


def test_without_a_cgroup_the_affinity_counts(tmp_path):
    assert cpus.available(tmp_path, tmp_path / "none") == HERE


@pytest.mark.parametrize(
    "quota, expected",
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("1600000 100000", 8),
        ("what is this", 8),
    ],
)
def test_version_2_limits(limited, quota, expected):
    assert limited("0::/a/b\n", a__b__cpu_DOT_max=quota) == expected


def test_a_cgroup_above_limits_too(limited):
    files = {"a__b__cpu_DOT_max": "max 100000", "a__cpu_DOT_max": "300000 100000"}
    assert limited("0::/a/b\n", **files) == 3


def test_in_a_container_the_root_may_be_all_there_is(limited):
    assert limited("0::/host/path\n", cpu_DOT_max="100000 100000") == 1


@pytest.mark.parametrize("quota, expected", [("250000", 3), ("-1", 8)])
def test_version_1_limits(limited, quota, expected):
    files = {
        "cpu__a__cpu_DOT_cfs_quota_us": quota,
        "cpu__a__cpu_DOT_cfs_period_us": "100000",
        "cpu__m__cpu_DOT_cfs_quota_us": "100000",  # where another controller's path leads
        "cpu__m__cpu_DOT_cfs_period_us": "100000",
    }
    assert limited("4:memory:/m\n3:cpu,cpuacct:/a\n", **files) == expected
