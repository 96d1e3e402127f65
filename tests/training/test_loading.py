import numpy as np
import pytest
import torch
from PIL import Image

from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.models.view import TrainingView
from relevit.training.batches import Batch, Items, Plan, as_sample, check_dataset, collate, loader, seed_from
from tiny_run import SIZE, TinySamples

CONFIG = {"input_size": (3, SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}


def keys_of(plan: Plan, epoch: int) -> list[tuple[int, int]]:
    pairs = [pair for step in plan.epoch(epoch) for pair in zip(step.parts, step.counts, strict=True)]
    return [key for part, count in pairs for key in part[:count]]


@pytest.mark.parametrize(("length", "batch", "accumulation", "processes"), [(23, 4, 1, 1), (23, 3, 2, 2), (7, 2, 3, 4)])
def test_every_sample_once_an_epoch_over_all_processes(length, batch, accumulation, processes):
    plans = [Plan(length, batch, 0, accumulation, processes, rank) for rank in range(processes)]
    for epoch in range(3):
        seen = sorted(key for plan in plans for key in keys_of(plan, epoch))
        assert seen == [(epoch, index) for index in range(length)]
        steps = [list(plan.epoch(epoch)) for plan in plans]
        assert len({len(own) for own in steps}) == 1 and len(steps[0]) == plans[0].steps_per_epoch
        for together in zip(*steps, strict=True):  # the same numbers of micro-batches, none of them empty
            assert len({len(step.parts) for step in together}) == 1
            assert all(part for step in together for part in step.parts)
            assert sum(sum(step.counts) for step in together) == together[0].samples


def test_a_step_sees_the_same_samples_however_it_is_divided():
    def groups(plans):
        return [sorted(k for s in together for p, c in zip(s.parts, s.counts, strict=True) for k in p[:c])
                for together in zip(*[plan.epoch(1) for plan in plans], strict=True)]  # fmt: skip

    whole = groups([Plan(23, 8, 5)])
    assert groups([Plan(23, 2, 5, accumulation=4)]) == whole
    assert groups([Plan(23, 2, 5, accumulation=2, processes=2, rank=rank) for rank in range(2)]) == whole


def test_order_depends_on_seed_and_epoch_and_starts_anywhere():
    plan = Plan(31, 4, 0)
    assert keys_of(plan, 0) == keys_of(Plan(31, 4, 0), 0)
    orders = [[index for _, index in keys_of(p, e)] for p in (plan, Plan(31, 4, 1)) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert list(plan.epoch(2, 5)) == list(plan.epoch(2))[5:]
    rest = list(plan.batches(4, 2, 5))
    assert rest == [part for epoch in (2, 3) for step in plan.epoch(epoch) for part in step.parts][5:]


def test_seeds_differ():
    assert len({seed_from(a, b, c) for a in range(5) for b in range(5) for c in range(5)}) == 125


def items(samples, seed: int = 0, flip: float = 0.5) -> Items:
    return Items(samples, TrainingView(CONFIG, 1.5, flip), seed)


def test_items_depend_on_seed_epoch_and_index_alone():
    samples = TinySamples(5)
    first, again = items(samples)[3, 2], items(samples)[3, 2]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[3] == samples[2].label and first[4] == "picture-2"
    assert not torch.equal(items(samples)[4, 2][0], first[0])
    assert not torch.equal(items(samples, seed=1)[3, 2][0], first[0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with few cores
@pytest.mark.parametrize("workers", [0, 2])
def test_loader(workers):
    samples = TinySamples(9, ignore=True)
    plan = Plan(9, 4, 0)
    batches = list(loader(items(samples), lambda: plan.batches(2, 0, 0), workers, pinned=False))
    assert [len(batch.names) for batch in batches] == [4, 4, 1] * 2
    expected = [collate([items(samples)[key] for key in part]) for part in plan.batches(2, 0, 0)]
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.images, other.images) and torch.equal(batch.ignore, other.ignore)
        assert batch.names == other.names and batch.images.shape[1:] == (3, SIZE, SIZE)


def test_collate_without_ignore_regions():
    batch = collate([items(TinySamples(3))[0, index] for index in range(3)])
    assert isinstance(batch, Batch) and batch.ignore is None


def test_tensors_are_used_as_they_are():
    image = torch.randn(3, 5, 7)
    mask = np.ones((5, 7), np.float32)
    item = Items([(image, mask, 4)], TrainingView(CONFIG), 0)[0, 0]
    assert item[0] is image and torch.equal(item[1], torch.ones(5, 7)) and item[3:] == (4, "sample 0")


def test_check_lists_all_faults():
    good = TinySamples(1)[0]
    wrong_mask = good._replace(mask=good.mask[:, 1:], name="narrow")
    bad = [
        good,
        good._replace(mask=np.zeros_like(good.mask), name="empty"),
        wrong_mask,
        good._replace(label=5, name="other class"),
        good._replace(image=Image.fromarray(good.image).resize((9, 9)), name="small"),
        good._replace(image=good.image.astype(np.float32), name="float"),
        good._replace(mask=good.mask * 255, name="bytes"),  # floats above 1
    ]
    with pytest.raises(UserError) as error:
        check_dataset(bad, 5, True, "training")
    text = str(error.value)
    assert "6 faults" in text
    for name in ("empty", "narrow", "label 5 is not one", "small", "training sample 5", "bytes"):
        assert name in text
    checked = check_dataset(bad, 5, True, "training", skip_bad=True)
    assert len(checked.samples) == len(checked.rows) == 1 and checked.samples[0] is good
    with pytest.raises(UserError):
        check_dataset(bad[1:], 5, True, "training", skip_bad=True)
    with pytest.raises(UserError, match="no samples for validation"):
        check_dataset([], 5, True, "validation")


def test_labels_may_be_unknown_where_none_are_needed():
    sample = TinySamples(1)[0]._replace(label=None)
    assert check_dataset([sample], 5, False, "training").rows[0].label == -1
    with pytest.raises(UserError, match="label -1 is not one"):
        check_dataset([sample], 5, True, "training")


def test_fingerprint():
    samples = list(TinySamples(4))
    whole = check_dataset(samples, 5, True, "training").fingerprint
    assert check_dataset(list(TinySamples(4)), 5, True, "training").fingerprint == whole
    image = samples[1].image.copy()
    image[3, 4, 1] ^= 1
    others = [samples[1]._replace(image=image), samples[1]._replace(label=(samples[1].label + 1) % 5)]
    for other in others:
        assert check_dataset([samples[0], other, *samples[2:]], 5, True, "training").fingerprint != whole


def test_a_data_set_that_draws_at_random_has_a_fingerprint():
    class Restless(TinySamples):
        def __getitem__(self, index):
            noise = np.random.default_rng().integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
            return super().__getitem__(index)._replace(image=noise)

    first, second = (check_dataset(Restless(4), 5, True, "training").fingerprint for _ in range(2))
    assert first == second


def test_as_sample():
    mask = np.ones((5, 7), bool)
    sample = as_sample((np.zeros((5, 7, 3), np.uint8), mask, np.int64(3)), 12)
    assert isinstance(sample, Sample) and sample.label == 3 and sample.name == "sample 12"
    assert sample.mask.dtype == np.float32 and sample.ignore is None
