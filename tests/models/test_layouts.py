"""Inputs of one model arranged for another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import refused

from deepjudge_core.errors import InputError
from deepjudge_core.models.input_spec import InputSpec
from deepjudge_core.models.layouts import arrangement
from deepjudge_core.types import Array, Layout


def arrange(x: Array, spec: tuple[int | None, ...], ours: Layout | None = None, theirs: Layout | None = None) -> Array:
    return arrangement("m", x.shape[1:], InputSpec(spec, layout=theirs), ours)(x)


def numbered(*shape: int) -> Array:
    return np.arange(np.prod((2, *shape)), dtype=np.float32).reshape(2, *shape)


FIRST, LAST = "channels_first", "channels_last"


@pytest.mark.parametrize(
    ("shape", "spec", "axes"),
    [
        ((5,), (5,), (0, 1)),
        ((4, 6, 3), (4, 6, 3), (0, 1, 2, 3)),
        ((4, 6, 3), (3, 4, 6), (0, 3, 1, 2)),
        ((3, 4, 6), (4, 6, 3), (0, 2, 3, 1)),
        ((4, 4, 1), (1, 4, 4), (0, 3, 1, 2)),
        ((3, 4, 6), (None, None, 3), (0, 2, 3, 1)),
        ((4, 6, 3), (3, None, None), (0, 3, 1, 2)),
        ((7, 2), (2, 7), (0, 2, 1)),
        ((7, 2), (None, 7), (0, 2, 1)),
        ((2, 4, 5, 6), (4, 5, 6, 2), (0, 2, 3, 4, 1)),
        ((7, 2), (None, 2), (0, 1, 2)),
    ],
)
def test_axes_are_moved(shape: tuple[int, ...], spec: tuple[int | None, ...], axes: tuple[int, ...]) -> None:
    x = numbered(*shape)
    np.testing.assert_array_equal(arrange(x, spec), x.transpose(axes))


@pytest.mark.parametrize(
    ("shape", "spec", "expected"),
    [
        ((4, 6), (4, 6, 1), (4, 6, 1)),
        ((4, 6), (1, 4, 6), (1, 4, 6)),
        ((4, 6, 1), (4, 6), (4, 6)),
        ((1, 4, 6), (4, 6), (4, 6)),
        ((4, 6), (None, None, 1), (4, 6, 1)),
    ],
)
def test_an_axis_of_one_channel_more_or_less(
    shape: tuple[int, ...], spec: tuple[int | None, ...], expected: tuple[int, ...]
) -> None:
    x = numbered(*shape)
    arranged = arrange(x, spec)
    assert arranged.shape == (2, *expected)
    np.testing.assert_array_equal(arranged.ravel(), x.ravel())


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((5,), (6,)),
        ((4, 6, 3), (6, 4, 3)),
        ((4, 6, 3), (4, 6)),
        ((4, 6, 3), (12, 6)),
        ((4, 6), (25,)),
        ((4, 6, 3), (3, 6, 4)),
        ((4, 6), (3, 4, 6)),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], spec: tuple[int, ...]) -> None:
    with refused(InputError, "m: ", *("x".join(map(str, s)) for s in (spec, shape))):
        arrange(numbered(*shape), spec)


def test_a_cube_is_told_by_the_layouts() -> None:
    x = numbered(3, 3, 3)
    np.testing.assert_array_equal(arrange(x, (3, 3, 3), FIRST, FIRST), x)
    np.testing.assert_array_equal(arrange(x, (3, 3, 3), LAST, FIRST), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(arrange(x, (3, 3, 3), FIRST, LAST), x.transpose(0, 2, 3, 1))
    for ours, theirs in ((None, None), (FIRST, None), (None, LAST)):
        with refused(InputError, "3x3x3", "layout="):
            arrange(x, (3, 3, 3), ours, theirs)


def test_a_shape_that_fits_by_chance_is_told_by_the_layouts() -> None:
    x = numbered(4, 4)
    np.testing.assert_array_equal(arrange(x, (4, 4)), x)
    np.testing.assert_array_equal(arrange(x, (4, 4), FIRST, LAST), x.transpose(0, 2, 1))
    x = numbered(3, 4, 5)
    np.testing.assert_array_equal(arrange(x, (None, None, None), FIRST, LAST), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(arrange(x, (None, None, None), LAST, FIRST), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(arrange(x, (None, None, None)), x)


def test_layouts_that_differ_where_only_one_way_fits() -> None:
    # 28x28x1 as it is, whatever is said of its layout.
    x = numbered(4, 4, 1)
    np.testing.assert_array_equal(arrange(x, (4, 4, 1), FIRST, LAST), x)


def test_both_moves_fit() -> None:
    x = numbered(3, 5, 3)
    spec = (None, 3, None)
    with refused(InputError, "3x5x3", "?x3x?", "layout="):
        arrange(x, spec)
    np.testing.assert_array_equal(arrange(x, spec, LAST), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(arrange(x, spec, FIRST), x.transpose(0, 2, 3, 1))


arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=5, max_side=5), elements=st.integers(0, 99))
layouts = st.sampled_from([None, FIRST, LAST])


@settings(deadline=None)
@given(x=arrays, move=st.sampled_from(["keep", "first", "last", "add-last", "add-first"]), ours=layouts, theirs=layouts)
def test_every_value_of_a_row_stays_in_it(x: Array, move: str, ours: Layout | None, theirs: Layout | None) -> None:
    shape = x.shape[1:]
    spec = {
        "keep": shape,
        "first": (shape[-1], *shape[:-1]),
        "last": (*shape[1:], shape[0]),
        "add-last": (*shape, 1),
        "add-first": (1, *shape),
    }[move]
    try:
        arranged = arrange(x, spec, ours, theirs)
    except InputError:
        return
    assert arranged.shape == (len(x), *spec)
    np.testing.assert_array_equal(np.sort(arranged.reshape(len(x), -1)), np.sort(x.reshape(len(x), -1)))


@settings(deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=3, max_size=3, unique=True).map(tuple))
def test_there_and_back(shape: tuple[int, ...]) -> None:
    x = numbered(*shape)
    first = (shape[-1], *shape[:-1])
    np.testing.assert_array_equal(arrange(arrange(x, first), shape), x)
