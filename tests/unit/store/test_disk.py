"""Whether the disk takes writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from service.store.disk import disk_problem


def test_directory_need_not_exist_yet(tmp_path: Path) -> None:
    """It can be made."""
    assert disk_problem(tmp_path / "conversations" / "below") is None


def test_file_in_the_way_is_told(tmp_path: Path) -> None:
    """Nothing can be made below it."""
    (tmp_path / "file").touch()
    assert disk_problem(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is not a directory"


def test_stale_disk_does_not_answer(tmp_path: Path) -> None:
    """As a network disk whose server was started anew."""

    def stat_stale(path: Any, **options: Any) -> os.stat_result:
        if Path(path) == tmp_path:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_stat(path, **options)

    real_stat = os.stat
    with patch.object(os, "stat", stat_stale):
        assert disk_problem(tmp_path) == f"The disk of {tmp_path} does not answer: Stale file handle"
    assert disk_problem(tmp_path) is None


def test_disk_that_tells_no_sizes_is_not_full(tmp_path: Path) -> None:
    """Some network disks say that they have no blocks at all; /proc does too."""
    with patch.object(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))):
        assert disk_problem(tmp_path) is None
