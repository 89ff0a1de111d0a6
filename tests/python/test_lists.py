"""Every kind of list of integers that a framework passes."""

import array

import pytest
from mooncake import _lists


def test_kinds_of_lists():
    wanted = array.array("Q", [1, 2, 2**64 - 1])
    assert _lists.integers([1, 2, 2**64 - 1], "x") == wanted
    assert _lists.integers((1, 2, 2**64 - 1), "x") == wanted
    assert _lists.integers(wanted, "x") == wanted and _lists.integers(wanted, "x") is not wanted
    assert _lists.integers(range(1, 4), "x").tolist() == [1, 2, 3]
    assert _lists.integers(array.array("q", [5, 6]), "x").tolist() == [5, 6]
    assert _lists.integers(array.array("i", [5, 6]), "x").tolist() == [5, 6]
    with pytest.raises(TypeError, match="negative"):
        _lists.integers(array.array("q", [5, -6]), "x")
    with pytest.raises(TypeError, match="x"):
        _lists.integers(array.array("i", [5, -6]), "x")


def test_numpy_integers():
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    for kind in (numpy.int64, numpy.uint64, numpy.int32, numpy.uint8):
        values = numpy.array([1, 2, 3], dtype=kind)
        assert _lists.integers(values, "x").tolist() == [1, 2, 3]
        assert _lists.integers(list(values), "x").tolist() == [1, 2, 3]
        assert _lists.integers(values[::2], "x").tolist() == [1, 3]
        assert _lists.integer(values[1], "x") == 2
    for bad in (numpy.array([1.5]), [numpy.float64(2)], numpy.array([-1]), numpy.array([[1, 2]])):
        with pytest.raises(TypeError, match="x"):
            _lists.integers(bad, "x")
