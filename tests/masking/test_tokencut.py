"""TokenCut against a second derivation: W built in loops, the generalised eigenproblem as it stands, its own flood fill."""

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_info, threadpool_limits

import relevit
from relevit.masking import normalized_cut
from relevit.masking import tokencut as module
from relevit.masking.normalized_cut import batched_cut, dense_cut

SOLVERS = ["dense", "batched", "auto"]
GRIDS = [(5, 7), (7, 11), (13, 17)]


def clustered(seed, grid, dim=19, groups=3, noise=0.7, lone=0):
    """Features of a few groups of patches: each patch belongs to the group of the nearest of some random points."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    points = random.uniform((0, 0), grid, size=(2 * groups, 2))
    nearest = np.hypot(rows[..., None] - points[:, 0], columns[..., None] - points[:, 1]).argmin(-1)
    features = random.normal(size=(groups, dim))[nearest % groups].reshape(-1, dim)
    features = features + noise * random.normal(size=features.shape)
    for index in random.choice(len(features), lone, replace=False):
        features[index] = random.normal(size=dim) * 3
    return features


def weights_by_loops(features, tau=0.2, eps=1e-5):
    count = len(features)
    weights = np.empty((count, count))
    for i in range(count):
        for j in range(i + 1):
            cosine = features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
            weights[i, j] = weights[j, i] = 1.0 if cosine > tau else eps
    return weights


def flood(side, start):
    """The patches that are reached from `start` over edges within `side`."""
    seen, front = {start}, [start]
    while front:
        row, column = front.pop()
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= near[0] < side.shape[0] and 0 <= near[1] < side.shape[1]
            if inside and near not in seen and side[near]:
                seen.add(near)
                front.append(near)
    mask = np.zeros_like(side)
    for patch in seen:
        mask[patch] = True
    return mask


def cut_by_hand(features, grid, tau=0.2, eps=1e-5):
    """(mask, side, seed, second and third eigenvalue, |v|) by the protocol."""
    weights = weights_by_loops(features, tau, eps)
    degrees = np.diag(weights.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degrees - weights, degrees)
    v = vectors[:, 1]
    size = np.abs(v)
    seed = next(i for i in range(len(v)) if size[i] > size.max() * (1 - 1e-6))  # the first of equals
    side = v > v.mean()
    if not side[seed]:
        side = ~side
    side = side.reshape(grid)
    return flood(side, divmod(seed, grid[1])), side, seed, values[1:3], size


@pytest.fixture(scope="module", params=[(grid, lone) for grid in GRIDS for lone in (0, 4)], ids=str)
def by_hand(request):
    """A grid, the features of six images of it, and the cut of each."""
    grid, lone = request.param
    features = np.stack([clustered(seed, grid, lone=lone, groups=2 + seed % 3) for seed in range(6)])
    return grid, features, [cut_by_hand(single, grid) for single in features]


@pytest.mark.parametrize("solver", SOLVERS)
def test_against_a_second_derivation(by_hand, solver):
    grid, features, cuts = by_hand
    cut = relevit.tokencut(torch.from_numpy(features), grid, solver=solver)
    assert cut.found.all()
    parted = 0
    for index, (mask, side, seed, values, size) in enumerate(cuts):
        np.testing.assert_allclose(cut.eigenvalues[index], values, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(cut.eigenvectors[index].abs(), size, atol=1e-6 * size.max())
        assert cut.seeds[index] == seed
        assert np.array_equal(cut.sides[index], side)
        assert np.array_equal(cut.masks[index], mask)
        parted += not np.array_equal(side, mask)
    assert parted or grid == GRIDS[0]  # the component matters in some of them


@pytest.mark.parametrize("seed", range(3))
def test_other_constants(seed):
    grid = (7, 11)
    features = clustered(seed, grid)
    cut = relevit.tokencut(torch.from_numpy(features)[None], grid, tau=0.35, eps=1e-3)
    mask, _, _, values, _ = cut_by_hand(features, grid, tau=0.35, eps=1e-3)
    np.testing.assert_allclose(cut.eigenvalues[0], values, rtol=1e-9)
    assert np.array_equal(cut.masks[0], mask)


@pytest.mark.parametrize("patches", [11, 300])
def test_similarity_is_decided_in_double_precision(patches):
    """Cosines that differ from tau by far less than single precision resolves."""
    angles = np.arccos(0.2 + 1e-10 * np.arange(-5, 6))
    others = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = np.concatenate([[[3.0, 0.0]], others, np.random.default_rng(0).normal(size=(patches, 2))])
    weights = module._weights(torch.from_numpy(features)[None], 0.2, 1e-5)
    assert weights[0, 0, 1:12].tolist() == [1e-5] * 5 + [float(weights[0, 0, 6])] + [1.0] * 5
    assert np.array_equal(weights[0, 12:, 12:], weights_by_loops(features[12:]))
    assert torch.equal(weights, weights.mT)


def object_on_background(grid=(11, 17), noise=0.1):
    """A block of similar patches, rows 2 to 4 and columns 5 to 10, on a background of another kind."""
    random = np.random.default_rng(0)
    kinds = np.eye(23)[:2]
    inside = np.zeros(grid, dtype=int)
    inside[2:5, 5:11] = 1
    features = kinds[inside] + noise * random.normal(size=(*grid, 23))
    return features.reshape(-1, 23), inside.astype(bool)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_small_group_is_the_foreground(solver, dtype):
    """Polarity and axes: the object is True, at its place, not its transpose or mirror image."""
    features, inside = object_on_background()
    cut = relevit.tokencut(torch.from_numpy(features)[None].to(dtype), (11, 17), solver=solver)
    assert np.array_equal(cut.masks[0], inside)
    assert cut.masks[0].flatten()[cut.seeds[0]] and cut.eigenvectors[0, cut.seeds[0]] > 0
    assert cut.eigenvectors.dtype == cut.eigenvalues.dtype == torch.float64


def test_patches_that_touch_at_a_corner_are_apart():
    features, inside = object_on_background()
    features = features.reshape(11, 17, 23)
    features[5, 11] = features[3, 7]  # a corner touches the block's
    features[8, 2:4] = features[4, 7]  # and one piece lies elsewhere
    cut = relevit.tokencut(torch.from_numpy(features).reshape(1, -1, 23), (11, 17))
    inside[5, 11] = inside[8, 2:4] = True
    assert np.array_equal(cut.sides[0], inside)
    component = flood(inside, divmod(int(cut.seeds[0]), 17))
    assert np.array_equal(cut.masks[0], component) and component.sum() < inside.sum()


@pytest.mark.parametrize("solver", ["dense", "batched"])
def test_a_batch_gives_what_single_images_give(solver, monkeypatch):
    grid = (13, 17)
    features = torch.from_numpy(np.stack([clustered(seed, grid, lone=seed) for seed in range(7)]))
    features[3] = 1.0  # one without an object among them
    together = relevit.tokencut(features, grid, solver=solver)
    monkeypatch.setattr(module, "_ELEMENTS", {"cpu": 3 * (13 * 17) ** 2})  # parts of three
    others = [(relevit.tokencut(features, grid, solver=solver), slice(None))]
    for index in range(7):
        part = slice(index, index + 1)
        others.append((relevit.tokencut(features[part], grid, solver=solver), part))
    assert together.found.tolist() == [True] * 3 + [False] + [True] * 3
    for other, part in others:
        for name in ("masks", "sides", "found"):
            assert torch.equal(getattr(other, name), getattr(together, name)[part])
        torch.testing.assert_close(other.eigenvalues, together.eigenvalues[part], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_sign_of_the_eigenvector_does_not_matter(solver, monkeypatch):
    grid = (7, 11)
    features = torch.from_numpy(np.stack([clustered(seed, grid) for seed in range(5)]))
    before = relevit.tokencut(features, grid, solver=solver)
    for name, solve in (("dense_cut", dense_cut), ("batched_cut", batched_cut)):

        def mirrored(weights, solve=solve):
            values, vectors = solve(weights)
            return values, -vectors

        monkeypatch.setattr(module, name, mirrored)
    after = relevit.tokencut(features, grid, solver=solver)
    for name in ("masks", "sides", "seeds", "eigenvectors"):
        assert torch.equal(getattr(before, name), getattr(after, name))


def test_equal_patches_tie_for_the_seed_and_the_first_wins():
    """Two lone patches have exactly the same |v|, whatever rounding says."""
    grid = (7, 11)
    features = np.zeros((77, 5))
    features[:, 0] = 1.0
    features[[24, 61]] = np.eye(5)[[1, 2]]
    for solver in SOLVERS:
        cut = relevit.tokencut(torch.from_numpy(features)[None], grid, solver=solver)
        assert cut.found[0] and cut.seeds[0] == 24
        assert cut.masks[0].flatten().nonzero().flatten().tolist() == [24]
        assert cut.sides[0].flatten().nonzero().flatten().tolist() == [24, 61]


DEGENERATE = {
    "all alike": torch.ones(35, 3),
    "all zero": torch.zeros(35, 3),
    "none like another": torch.eye(35),
    "three equal groups": torch.eye(3).repeat(13, 1)[:33],
    "five equal groups": torch.eye(5).repeat(7, 1),
    "alike but for rounding": torch.ones(35, 3) + 1e-7 * torch.arange(105).reshape(35, 3),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_no_object(case, solver):
    features = DEGENERATE[case]
    grid = (len(features) // 5, 5) if len(features) == 35 else (3, 11)
    cut = relevit.tokencut(features[None], grid, solver=solver)
    assert not cut.found[0] and not cut.masks.any() and not cut.sides.any()
    assert cut.masks.shape == (1, *grid)
    assert cut.eigenvectors.isfinite().all() and 0 <= cut.seeds[0] < len(features)
    torch.testing.assert_close(*cut.eigenvalues[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("solve", [dense_cut, batched_cut])
def test_a_double_eigenvalue_is_seen(solve):
    """Three copies of one part, each alike to the others: the second eigenvalue is double, among many single ones."""
    inner = torch.from_numpy(weights_by_loops(clustered(0, (7, 13), noise=1.5)))
    weights = torch.where(torch.eye(3).bool()[:, None, :, None], inner[:, None, :], 1e-3).reshape(273, 273)
    values, vectors = solve(weights[None])
    assert 0.0 <= values[0, 1] - values[0, 0] < 1e-12
    degrees = weights.sum(dim=1)
    left = (degrees * vectors[0] - weights @ vectors[0]) - values[0, 0] * degrees * vectors[0]
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_groups_that_nearly_equal_each_other_are_cut(solver):
    """A group of one patch more than the other two leaves a gap of about eps / patches: small, and far above rounding."""
    features = np.eye(3)[[0] * 200 + [1] * 200 + [2] * 201]
    cut = relevit.tokencut(torch.from_numpy(features)[None], (1, 601), solver=solver)
    gap = float(cut.eigenvalues[0, 1] - cut.eigenvalues[0, 0])
    assert cut.found[0] and 1e-8 < gap < 1e-6
    assert cut.sides[0].flatten().nonzero().flatten().tolist() == list(range(400, 601))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 5), (2, 7)])
def test_tiny_grids(grid, solver):
    patches = grid[0] * grid[1]
    features = torch.eye(2, dtype=torch.float64)[[0] * (patches - 1) + [1]][None]
    cut = relevit.tokencut(features, grid, solver=solver)
    assert bool(cut.found[0]) == (patches > 2)
    if patches > 2:
        mask = cut_by_hand(features[0].numpy(), grid)[0]
        assert np.array_equal(cut.masks[0], mask) and mask.any() and not mask.all()
    else:
        assert not cut.masks.any() and cut.eigenvalues.isfinite().all()


def test_what_does_not_converge_goes_to_the_dense_solver(monkeypatch):
    weights = torch.from_numpy(np.stack([weights_by_loops(clustered(seed, (5, 7))) for seed in range(3)]))
    expected = dense_cut(weights)
    asked = []

    def counting(weights):
        asked.append(len(weights))
        return dense_cut(weights)

    monkeypatch.setattr(normalized_cut, "dense_cut", counting)
    batched_cut(weights)
    assert asked == []
    monkeypatch.setattr(normalized_cut, "_STEPS", 1)
    values, vectors = batched_cut(weights)
    assert asked == [3]
    torch.testing.assert_close((values, vectors), expected)
    # a graph in two parts that hang together by less than rounding: not positive definite, or nearly so
    monkeypatch.undo()
    parts = torch.block_diag(torch.ones(17, 17), torch.ones(19, 19)).double().clamp_min(1e-300)
    values, _ = batched_cut(parts[None])
    torch.testing.assert_close(values[0, 0], torch.tensor(0.0, dtype=torch.float64), rtol=0, atol=1e-14)


GOOD = {"features": torch.rand(2, 35, 3), "grid": (5, 7)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.rand(35, 3)}, r"features are torch.float32 of shape \(35, 3\)"),
        ({"features": torch.ones(2, 35, 3, dtype=torch.int64)}, "must be floating-point numbers"),
        ({"grid": (5, 6)}, r"must be \(batch, 5 x 6 patches, dim\)"),
        ({"grid": (-5, -7)}, "-5 x -7 patches"),
        ({"features": torch.rand(0, 35, 3)}, "at least one image"),
        ({"tau": 1.0}, "tau is 1.0"),
        ({"tau": float("nan")}, "tau is nan"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"solver": "sparse"}, "solver must be one of auto, dense, batched, not 'sparse'"),
        ({"features": torch.rand(2, 35, 3).index_fill(0, torch.tensor(1), torch.nan)}, "image 1 of the batch are NaN"),
        ({"features": torch.full((2, 35, 3), torch.inf)}, "image 0 of the batch are NaN or infinite"),
    ],
)
def test_user_errors(change, message):
    arguments = GOOD | change
    with pytest.raises(relevit.UserError, match=message):
        relevit.tokencut(arguments.pop("features"), arguments.pop("grid"), **arguments)


def test_features_are_left_alone():
    features = torch.from_numpy(clustered(0, (5, 7)))[None].requires_grad_()
    before = features.detach().clone()
    cut = relevit.tokencut(features, (5, 7))
    assert torch.equal(features, before) and not cut.eigenvectors.requires_grad


def test_the_threads_of_other_libraries_are_as_before() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = [(library["filepath"], library["num_threads"]) for library in threadpool_info()]
        relevit.tokencut(torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(0)), (3, 4))
        assert [(library["filepath"], library["num_threads"]) for library in threadpool_info()] == before
