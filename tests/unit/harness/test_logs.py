# SPDX-License-Identifier: Apache-2.0
"""LoadGen's logs: what a full disk cuts off is named, never half read."""

from pathlib import Path

import pytest

from septet.errors import RunCrashed
from septet.harness.logs import read_outcome


def test_a_log_cut_off_in_the_middle_of_a_line_names_the_file_and_the_likely_reason(tmp_path: Path) -> None:
    log = tmp_path / "mlperf_log_detail.txt"
    log.write_text(':::MLLOG {"key": "result_validity", "val')
    (tmp_path / "mlperf_log_summary.txt").write_text("")
    with pytest.raises(RunCrashed, match=r"mlperf_log_detail\.txt is cut off: is the disk full"):
        read_outcome(tmp_path, {})
