"""Two processes under DDP find the scores that one finds."""

from pathlib import Path

import numpy as np
import pytest
from rank_runs import two_ranks
from two_ranks_quality import CASES, evaluate


def test_two_ranks(tmp_path):
    # One test, since its checks share two processes that take long to start.
    folder, alone = tmp_path / "two", tmp_path / "one"
    ranks, output = two_ranks(Path(__file__).with_name("two_ranks_quality.py"), folder)
    for name in CASES:
        expected = evaluate(alone, name)["scores"]
        assert {"val/fid", "val/kid", "val/precision", "val/inception_score", "val/class_accuracy"} <= expected.keys()
        for seen in ranks:
            assert seen[name]["scores"] == pytest.approx(expected, rel=1e-5)
            assert abs(seen[name]["own"]["val/fid"]) < 1e-3
            assert seen[name]["own"]["val/recall"] == 1
        one, two = (np.load(path / name / "quality_validate.npz")["arr_0"] for path in (alone, folder))
        assert np.array_equal(one, two)
    # Twice each, the second time with the reference from the cache; one canvas is a probe.
    assert [seen["ten"]["asked"] for seen in ranks] == [[[0, [0, 1, 2, 3]], [0, [8, 9]]] * 2, [[0, [4, 5, 6, 7]]] * 2]
    assert [seen["four"]["asked"] for seen in ranks] == [[[0, [0, 1, 2, 3]]] * 2, []]
    assert [seen["ten"]["seen"] for seen in ranks] == [[1 + 6 + 6, 1 + 6], [1 + 4 + 5, 1 + 4]]
    assert output.count("class_accuracy") == 3 * len(CASES)
