"""DRAM planning: no two live buffers share a byte, and the report is honest."""

from hypothesis import given
from hypothesis import strategies as st

from focusc.backends.dram import ALIGNMENT, LiveRange, align, first_fit, plan


@st.composite
def live_ranges(draw: st.DrawFn) -> list[LiveRange]:
    found = []
    for i in range(draw(st.integers(0, 25))):
        start = draw(st.integers(0, 20))
        found.append(LiveRange(f"b{i}", draw(st.integers(1, 5000)), start, start + draw(st.integers(0, 10))))
    return found


@given(live_ranges())
def test_live_buffers_never_overlap(ranges: list[LiveRange]) -> None:
    found = plan(ranges)
    for i, a in enumerate(ranges):
        at = found.offsets[a.name]
        assert at % ALIGNMENT == 0 and at + a.size <= found.peak
        for b in ranges[:i]:
            other = found.offsets[b.name]
            assert not a.overlaps(b) or at + a.size <= other or other + b.size <= at


@given(live_ranges())
def test_peak_lies_between_lower_bound_and_no_reuse(ranges: list[LiveRange]) -> None:
    found = plan(ranges)
    assert found.lower_bound <= found.peak <= sum(align(r.size) for r in ranges)


def test_a_dead_buffer_gives_its_bytes_to_the_next() -> None:
    found = plan([LiveRange("a", 640, 0, 1), LiveRange("b", 640, 1, 2), LiveRange("c", 640, 2, 3)])
    assert found.offsets["a"] == found.offsets["c"] != found.offsets["b"]
    assert found.peak == found.lower_bound == 1280


def test_first_fit_takes_the_lowest_gap() -> None:
    assert first_fit(64, [(0, 64), (192, 64)]) == 64
    assert first_fit(129, [(0, 64), (192, 64)]) == 256
