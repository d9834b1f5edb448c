"""How many cores a process takes for its own: affinity and cgroup quotas."""

import os

import pytest

from ocr_serving.cores import usable_cores


@pytest.fixture
def affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def found(tmp_path, memberships, files):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(memberships)
    return usable_cores(tmp_path / "self", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("memberships", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "800000 100000\n"}, 4),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("2:memory:/m\n1:cpu,cpuacct:/c\n", {"cpu,cpuacct/c/cpu.cfs_quota_us": "150000\n",
                                             "cpu,cpuacct/c/cpu.cfs_period_us": "50000\n"}, 3),
        ("1:cpu:/c\n", {"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, 16),
        ("1:cpu:/of/the/host\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("", {}, 16),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("affinity")
def test_a_quota_of_any_cgroup_above_counts(tmp_path, memberships, files, cores):
    assert found(tmp_path, memberships, files) == cores


def test_without_cgroups_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path / "none", tmp_path / "none") == len(os.sched_getaffinity(0))
