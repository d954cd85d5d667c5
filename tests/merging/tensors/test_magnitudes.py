import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boom_ray.merging.tensors import magnitudes, vectors
from boom_ray.merging.tensors.magnitudes import (
    EVERYTHING,
    NOTHING,
    Cut,
    Histograms,
    Tally,
    cuts,
    histograms,
    keep_count,
    kept,
)
from boom_ray.merging.tensors.vectors import MemoryVectors, Pool


class Counted(MemoryVectors):
    """Counts how often a strip was loaded."""

    loads = 0

    def load(self, span):
        self.loads += 1
        return super().load(span)


@pytest.fixture
def small_strips(monkeypatch):
    monkeypatch.setattr(vectors, "STRIP", 64)


def random_members(shape, count=3, dtype=torch.float64, seed=0, width=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).mul(width).to(dtype) for _ in range(count)]


def masks(found, chosen, by_rows=False):
    pieces = found.map(lambda s: kept(s.rows, s.start, chosen, found.name, found.labels), by_rows)
    return torch.cat(pieces, dim=1).numpy().astype(bool)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_histograms_count_upper_bits(dtype, small_strips):
    tensors = random_members((37, 11), dtype=dtype)
    with Pool(2) as pool:
        found = histograms(MemoryVectors("w", tensors, pool=pool))
    for row, tensor in zip(found.counts, tensors, strict=True):
        pattern = np.abs(tensor.to(torch.float32).numpy()).ravel().view(np.uint32) >> 16
        assert np.array_equal(row, np.bincount(pattern, minlength=32768))


def test_tally_leaves_what_it_counts():
    block = torch.tensor([[-1.5, 0.0, 2.0]])
    tally = Tally(1)
    tally.add(block)
    tally.add(block[:, :1])
    found = tally.histograms()
    assert block.tolist() == [[-1.5, 0.0, 2.0]]
    assert found.counts.sum() == 4 and found.counts[0, 0] == 1 and found.nonzero.tolist() == [3]


@pytest.mark.parametrize("count, narrow", [(3, np.uint8), (300, np.uint16), (70_000, np.uint32)])
def test_histograms_come_back_from_arrays(count, narrow):
    counts = np.zeros((2, 32768), dtype=np.int64)
    counts[0, [0, 15000, 16000]] = 10**12, 1, count
    counts[1, 32767] = 2
    arrays = Histograms(counts).to_arrays()
    assert arrays["counts"].shape == (2, 32767 - 15000 + 1) and arrays["counts"].dtype == narrow
    assert np.array_equal(Histograms.from_arrays(arrays).counts, counts)


def test_histograms_of_zeros_need_no_buckets():
    arrays = histograms(MemoryVectors("w", [torch.zeros(5)])).to_arrays()
    assert arrays["counts"].size == 0
    assert Histograms.from_arrays(arrays).counts[0, 0] == 5


def test_histograms_of_tensors_add_up():
    one, two = random_members(100, seed=1), random_members(50, seed=2)
    joint = [torch.cat(pair) for pair in zip(one, two, strict=True)]
    added = histograms(MemoryVectors("a", one)) + histograms(MemoryVectors("b", two))
    assert np.array_equal(added.counts, histograms(MemoryVectors("w", joint)).counts)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(0, 10**6), st.data())
def test_exactly_the_largest_are_kept(size, seed, data):
    keep = data.draw(st.integers(0, size))
    order = np.random.default_rng(seed).permutation(size)
    # Magnitudes that are distinct in float32, many of them within one bucket.
    sizes = (np.float32(1.0) + order.astype(np.float32) * np.float32(2.0**-20)).astype(np.float64)
    found = MemoryVectors("w", [torch.from_numpy(sizes * np.where(order % 2, 1, -1))])
    mask = masks(found, cuts(found, [keep]))
    assert np.array_equal(mask[0], order >= size - keep)


def test_every_member_and_every_cut_has_its_own_number(small_strips):
    tensors = random_members((20, 30))
    found = Counted("w", tensors, labels=["a", "b", "c"])
    _ = found.histograms
    before = found.loads
    low = cuts(found, [10, 100, 500, 7, 8, 9], rows=[0, 1, 2, 2, 1, 0])
    assert found.loads - before == -(-600 // 64)  # one pass for all six
    for cut, row, keep in zip(low, [0, 1, 2, 2, 1, 0], [10, 100, 500, 7, 8, 9], strict=True):
        ranked = np.sort(np.abs(tensors[row].float().numpy()).ravel())[::-1]
        assert cut == Cut(float(ranked[keep - 1]), 1.0)


def test_no_pass_where_the_histogram_tells_all():
    found = Counted("w", [torch.ones(9), torch.ones(9), torch.zeros(9)])
    _ = found.histograms
    before = found.loads
    assert cuts(found, [9, 0, 4]) == [EVERYTHING, NOTHING, EVERYTHING]
    assert found.loads == before
    mask = masks(found, [EVERYTHING, NOTHING, EVERYTHING])
    assert mask[0].all() and not mask[1].any() and mask[2].all()


def test_zeros_are_not_worth_trimming():
    """Three of ten are not zero, five are to be kept: whichever zeros are added changes nothing."""
    found = MemoryVectors("w", [torch.tensor([0.0, 1, 0, 0, -2, 0, 0, 3, 0, 0])])
    assert cuts(found, [5]) == [EVERYTHING]
    assert cuts(found, [3]) == [Cut(1.0, 1.0)]


def test_sixteen_bit_members_tie_and_the_number_kept_is_close(small_strips):
    base = random_members(40_000, 1, torch.bfloat16)[0].mul(0.1).add(1)  # so that all are quantised alike
    tensors = [(base.double() + d).to(torch.bfloat16) for d in random_members(40_000, 3, seed=1, width=0.02)]
    found = MemoryVectors("w", tensors, base)
    chosen = cuts(found, [8000, 8000, 12_345])
    assert all(0 < cut.share < 1 for cut in chosen)
    mask = masks(found, chosen)
    for row, tensor, cut, keep in zip(mask, tensors, chosen, [8000, 8000, 12_345], strict=True):
        sizes = (tensor.double() - base.double()).abs().numpy()
        equal = int((sizes == cut.threshold).sum())
        assert equal > 20
        assert row[sizes > cut.threshold].all() and not row[sizes < cut.threshold].any()
        assert abs(int(row.sum()) - keep) < 5 * np.sqrt(equal * cut.share * (1 - cut.share)) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=300), st.data())
def test_of_equals_exactly_as_many_are_kept_as_are_wanted(values, data):
    """Two cuts of one vector, the higher one's elements among the lower one's."""
    sizes = np.abs(np.array(values))
    wanted = sorted(data.draw(st.tuples(st.integers(0, len(values)), st.integers(0, len(values)))))
    found = MemoryVectors("w", [torch.tensor(values, dtype=torch.float64)], labels=["m"])
    found.strip = 64
    one, two = (masks(found, [cut])[0] for cut in cuts(found, wanted, rows=[0, 0]))
    assert not (one & ~two).any()
    for mask, keep in ((one, wanted[0]), (two, wanted[1])):
        assert int((mask & (sizes > 0)).sum()) == min(keep, int((sizes > 0).sum()))
        assert sizes[mask].min(initial=9) >= sizes[~mask].max(initial=0)


def test_the_exact_number_takes_a_pass_where_numbers_are_small_and_some_are_equal(monkeypatch):
    tensors = [torch.ones(1000), torch.arange(1.0, 1001)]
    for exact, loads in ((magnitudes.EXACT, 2), (99, 1)):
        monkeypatch.setattr(magnitudes, "EXACT", exact)
        found = Counted("w", tensors)
        _ = found.histograms
        before = found.loads
        chosen = cuts(found, [100, 100])
        assert found.loads - before == loads
        assert chosen[1] == Cut(901.0, 1.0)
        assert (int(masks(found, chosen)[0].sum()) == 100) == (loads == 2)


@pytest.mark.parametrize("seed", range(8))
def test_something_is_kept_of_every_vector_that_is_not_zero(seed):
    """Four equal elements, one to keep: drawn one by one, all of them are lost for three labels of ten."""
    found = MemoryVectors("w", [torch.full((4,), -0.5)] * 3, labels=[f"{seed}{label}" for label in "abc"])
    assert masks(found, cuts(found, [1, 1, 1])).sum(axis=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("strip", [16, 100, 10_000])
def test_strips_and_threads_do_not_change_what_is_kept(monkeypatch, threads, strip):
    tensors = [torch.round(tensor * 8) / 8 for tensor in random_members((70, 10))]
    expected_from = MemoryVectors("w", tensors)
    chosen = cuts(expected_from, [100, 200, 300])
    expected = masks(expected_from, chosen)
    monkeypatch.setattr(vectors, "STRIP", strip)
    with Pool(threads) as pool:
        found = MemoryVectors("w", tensors, pool=pool)
        assert cuts(found, [100, 200, 300]) == chosen
        assert np.array_equal(masks(found, chosen), expected)
        assert np.array_equal(masks(found, chosen, by_rows=True), expected)


def test_ties_do_not_favour_the_first_rows():
    found = MemoryVectors("w", [torch.full((200, 100), 0.5), torch.full((200, 100), -0.5)], labels=["a", "b"])
    mask = masks(found, cuts(found, [5000, 5000]))
    sigma = np.sqrt(10_000 * 0.25 * 0.75)
    assert abs(mask[0, :10_000].sum() - 2500) < 5 * sigma and abs(mask[0, 10_000:].sum() - 2500) < 5 * sigma
    assert not np.array_equal(mask[0], mask[1])  # each member draws for itself


def test_magnitudes_beyond_float32_are_ranked_as_infinite_or_zero():
    found = MemoryVectors("w", [torch.tensor([1e300, -1.0, 1e-60, 2.0], dtype=torch.float64)])
    assert masks(found, cuts(found, [1])).tolist() == [[True, False, False, False]]
    assert masks(found, cuts(found, [2])).tolist() == [[True, False, False, True]]
    assert masks(found, cuts(found, [3])).tolist() == [[True, True, False, True]]


def test_a_tensor_without_elements():
    found = MemoryVectors("w", [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert histograms(found).counts.sum() == 0
    assert cuts(found, [0, 0]) == [EVERYTHING, EVERYTHING]


def test_any_function_of_a_strip_can_be_ranked(small_strips):
    tensors = random_members(500)
    found = MemoryVectors("w", tensors)
    counts = histograms(found, lambda strip: strip.rows.sum(dim=0, keepdim=True), rows=1)
    (cut,) = magnitudes.find(
        magnitudes.Search(counts, [0], [50]), found, ["sum"], lambda strip: strip.rows.sum(dim=0, keepdim=True)
    )
    sums = np.sort(np.abs(torch.stack(tensors).sum(dim=0).float().numpy()))[::-1]
    assert cut == Cut(float(sums[49]), 1.0)


@pytest.mark.parametrize(
    "density, numel, expected",
    [(0.29, 100, 29), (0.2, 10, 2), (0.2, 9, 1), (0.2, 1, 1), (0.2, 0, 0), (1.0, 7, 7), (0.999, 10, 9)],
)
def test_keep_count_rounds_down_to_at_least_one(density, numel, expected):
    assert keep_count(density, numel) == expected
