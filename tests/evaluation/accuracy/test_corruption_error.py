"""The mean corruption error: AlexNet's own, by hand, and what it needs."""

import pytest

from relevit.data.benchmarks.table import CORRUPTED as SETS
from relevit.data.benchmarks.table import CORRUPTIONS, EXTRA
from relevit.errors import UserError
from relevit.evaluation.accuracy.corruption_error import ALEXNET, mean_corruption_error


def test_alexnet_has_a_mean_corruption_error_of_100() -> None:
    errors = {
        f"imagenet-c/{corruption}/{severity}": error
        for corruption, error in ALEXNET.items()
        for severity in range(1, 6)
    }
    found = mean_corruption_error(errors)
    assert found.mean == pytest.approx(100, abs=1e-9) and set(found.by_corruption) == set(CORRUPTIONS)
    assert dict(found)["mean_corruption_error"] == found.mean and len(list(found)) == 16
    assert (ALEXNET["gaussian_noise"], ALEXNET["jpeg_compression"], ALEXNET["brightness"]) == (88.6428, 60.65, 56.4592)
    assert len(CORRUPTIONS) == 15 and len(SETS) == 75 and not set(EXTRA) & set(CORRUPTIONS)


def test_corruption_errors_by_hand() -> None:
    errors = {name: 0.0 for name in SETS} | {"imagenet-c/spatter/1": 70.0, "imagenet": 20.0}
    errors |= {
        f"imagenet-c/fog/{severity}": value for severity, value in zip(range(1, 6), (10, 20, 30, 40, 63), strict=True)
    }
    found = mean_corruption_error(errors)
    assert found.by_corruption["fog"] == pytest.approx(100 * 163 / (5 * 81.9324), abs=1e-12)
    assert found.mean == pytest.approx(100 * 32.6 / 81.9324 / 15, abs=1e-12)
    assert found.to_dict()["corruption_errors"]["snow"] == 0


def test_an_incomplete_mean_corruption_error_is_refused() -> None:
    errors = {name: 50.0 for name in SETS if name not in ("imagenet-c/fog/4", "imagenet-c/snow/1", "imagenet-c/snow/5")}
    with pytest.raises(UserError, match=r"no result of snow: severity 1, 5; fog: severity 4$"):
        mean_corruption_error(errors)
    with pytest.raises(UserError, match=r"imagenet-c/fog/4 must lie in 0 to 100 percent, not 101"):
        mean_corruption_error({name: 50.0 for name in SETS} | {"imagenet-c/fog/4": 101})
