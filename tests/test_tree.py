"""States of any nesting become matrices and come back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deqzoo.errors import DeqzooError, StructureError
from deqzoo.tree import Layout, leaves

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
nests = st.recursive(
    st.tuples(shapes, st.booleans()),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda x: ["nest", *x]),
    max_leaves=5,
)
floats = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def build(nest, batch: int, dtype: torch.dtype, counter=None):
    """A state whose numbers are all different."""
    counter = counter if counter is not None else [0]
    if isinstance(nest, list):
        return tuple(build(part, batch, dtype, counter) for part in nest[1:])
    shape, channels_last = nest
    size = torch.Size((batch, *shape)).numel()
    leaf = torch.arange(counter[0], counter[0] + size).reshape(batch, *shape).to(dtype)
    counter[0] += size
    return leaf.to(memory_format=torch.channels_last) if channels_last and leaf.ndim == 4 else leaf


def same(a, b) -> bool:
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return a.dtype == b.dtype and torch.equal(a, b)


@given(nest=nests, batch=st.integers(0, 3), dtype=floats)
def test_a_state_survives_the_round_trip(nest, batch, dtype):
    state = build(nest, batch, dtype)
    layout = Layout(state)
    matrix = layout.ravel(state)
    assert matrix.ndim == 2
    assert matrix.shape == (
        batch,
        sum(leaf[:1].numel() if batch else leaf.shape[1:].numel() for leaf in leaves(state)),
    )
    assert matrix.dtype == dtype
    assert same(state, layout.unravel(matrix))
    layout.check(state)


@given(nest=nests, dtype=floats)
def test_rows_are_samples(nest, dtype):
    state = build(nest, 3, dtype)
    matrix = Layout(state).ravel(state)
    for i in range(3):
        alone = build_rows(state, i)
        assert torch.equal(Layout(state).ravel(state)[i : i + 1], matrix[i : i + 1])
        assert sorted(matrix[i].tolist()) == sorted(torch.cat([leaf.flatten() for leaf in leaves(alone)]).tolist())


def build_rows(state, i: int):
    return tuple(build_rows(part, i) for part in state) if isinstance(state, tuple) else state[i : i + 1]


@given(nest=nests)
def test_numbers_arrive_in_the_dtype_of_the_state(nest):
    """As when f computes in half precision under autocast."""
    layout = Layout(build(nest, 2, torch.float32))
    half = build(nest, 2, torch.bfloat16)
    matrix = layout.ravel(half)
    assert matrix.dtype == torch.float32
    layout.check(half)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_single_leaf_is_never_copied(memory_format):
    image = torch.randn(2, 3, 4, 5).to(memory_format=memory_format)
    layout = Layout(image)
    matrix = layout.ravel(image)
    back = layout.unravel(matrix)
    assert matrix.data_ptr() == back.data_ptr() == image.data_ptr()
    assert matrix.is_contiguous()
    assert back.is_contiguous(memory_format=memory_format)
    assert back.stride() == image.stride()


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 1, 1), (1, 3, 4, 5)])
def test_ambiguous_memory_formats_survive(shape):
    image = torch.randn(shape).to(memory_format=torch.channels_last)
    back = Layout(image).unravel(Layout(image).ravel(image))
    assert torch.equal(back, image)
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_leaves_of_a_nest_are_dense():
    state = torch.randn(3, 2, 2), (torch.randn(3, 5).to(torch.float32),)
    layout = Layout(state)
    assert all(leaf.is_contiguous() for leaf in leaves(layout.unravel(layout.ravel(state))))


def test_strided_and_expanded_states_work():
    for state in (
        torch.randn(4, 6)[:, ::2],
        torch.randn(6, 4).T,
        torch.ones(1, 6).expand(4, 6),
        torch.zeros(()).expand(4, 2, 3),
    ):
        layout = Layout(state)
        assert torch.equal(layout.unravel(layout.ravel(state)), state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((), r"empty tuple.*at least one tensor of shape \(B, \.\.\.\)"),
        (((), ()), r"empty tuple"),
        (torch.tensor(1.0), r"Leaf 0 of the state is a scalar.*B = 1"),
        ((torch.zeros(2), torch.tensor(1.0)), r"Leaf 1 of the state is a scalar"),
        (torch.zeros(2, 3, dtype=torch.int64), r"Leaf 0 of the state has dtype torch\.int64.*`\.float\(\)`"),
        (torch.zeros(2, 3, dtype=torch.complex64), r"dtype torch\.complex64"),
        (torch.zeros(2, 3, dtype=torch.bool), r"dtype torch\.bool"),
        (
            (torch.zeros(2, 3), torch.zeros(3, 3)),
            r"Leaf 1 of the state has batch 3.*leaf 0 has batch 2.*share one batch",
        ),
        ((torch.zeros(2, 3), torch.zeros(2, 3).double()), r"Leaf 1.*torch\.float64.*leaf 0.*torch\.float32"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, device="meta")), r"Leaf 1.*on meta.*leaf 0.*on cpu"),
        ([torch.zeros(2, 3)], r"Found list in a state.*turn lists into tuples"),
        ((torch.zeros(2, 3), 1.0), r"Found float in a state.*wrap numbers in tensors"),
        (None, r"Found NoneType in a state"),
        ({"z": torch.zeros(2, 3)}, r"Found dict in a state"),
    ],
)
def test_what_is_no_state_is_named(state, message):
    with pytest.raises(StructureError, match=message) as caught:
        Layout(state)
    assert isinstance(caught.value, DeqzooError | ValueError)


@pytest.mark.parametrize(
    ("state", "value", "message"),
    [
        (
            torch.zeros(2, 3, 4, 4),
            torch.zeros(2, 3, 2, 2),
            r"shape of leaf 0 from \(2, 3, 4, 4\) to \(2, 3, 2, 2\).*strided",
        ),
        (torch.zeros(2, 3), torch.zeros(1, 3), r"shape of leaf 0 from \(2, 3\) to \(1, 3\)"),
        (torch.zeros(2, 3), torch.zeros(3), r"shape of leaf 0 from \(2, 3\) to \(3,\)"),
        (
            (torch.zeros(2), torch.zeros(2, 3)),
            (torch.zeros(2), torch.zeros(2, 4)),
            r"leaf 1 from \(2, 3\) to \(2, 4\)",
        ),
        (
            torch.zeros(2, 3),
            (torch.zeros(2, 3),),
            r"structure \(2, 3\) into \(\(2, 3\),\).*same nest of tuples",
        ),
        (
            (torch.zeros(2), torch.zeros(2)),
            (torch.zeros(2),),
            r"structure \(\(2,\), \(2,\)\) into \(\(2,\),\)",
        ),
        ((torch.zeros(2), (torch.zeros(2),)), (torch.zeros(2), torch.zeros(2)), r"same nest of tuples"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3, dtype=torch.int32),
            r"returned torch\.int32 on cpu for leaf 0.*floating",
        ),
        (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), r"on meta for leaf 0.*on cpu.*`\.to\(\)`"),
        (torch.zeros(2, 3), [torch.zeros(2, 3)], r"Found list"),
        (torch.zeros(2, 3), None, r"Found NoneType"),
    ],
)
def test_a_map_that_changes_its_state_is_named(state, value, message):
    with pytest.raises(StructureError, match=message):
        Layout(state).check(value)
