from collections import Counter

import numpy as np
import pytest

from intents.splitting import stratified_group_split

SHARES = {"test": 0.2, "validation": 0.15, "train": 0.65}


def split_rows(labels, groups=None, keys=None, seed=0, shares=SHARES):
    size = len(labels)
    keys = keys or [f"text {i}" for i in range(size)]
    return stratified_group_split(labels, list(range(size)) if groups is None else groups, keys, shares, seed)


def random_rows(seed):
    """600 rows of 4 labels of unequal sizes, many in groups, some of those across two labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(4, size=600, p=[0.7, 0.2, 0.06, 0.04]).tolist()
    groups = np.arange(600)
    for _ in range(100):
        groups[random.integers(600)] = groups[random.integers(600)]
    return labels, groups.tolist()


def test_every_label_is_shared_out_as_the_shares_say():
    labels = [0] * 1000 + [1] * 100 + [2] * 20
    found = Counter(zip(labels, split_rows(labels), strict=True))
    assert [found[0, split] for split in SHARES] == [200, 150, 650]
    assert [found[1, split] for split in SHARES] == [20, 15, 65]
    assert [found[2, split] for split in SHARES] == [4, 3, 13]


def test_a_label_with_three_rows_is_in_every_split():
    labels = [0] * 100 + [1] * 3
    assert Counter(split_rows(labels)[100:]) == dict.fromkeys(SHARES, 1)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_shares_hold_within_a_few_rows(seed):
    labels, groups = random_rows(seed)
    splits = split_rows(labels, groups, seed=seed)
    of_group = {}
    for group, split in zip(groups, splits, strict=True):
        assert of_group.setdefault(group, split) == split
    found = Counter(zip(labels, splits, strict=True))
    for label, size in Counter(labels).items():
        for split, share in SHARES.items():
            assert found[label, split] >= 1
            assert abs(found[label, split] - share * size) <= 3


def test_rows_do_not_depend_on_the_order_of_the_file():
    keys = [f"text {i}" for i in range(300)]
    labels = [i % 3 for i in range(300)]
    expected = dict(zip(keys, split_rows(labels, keys=keys), strict=True))
    order = np.random.default_rng(1).permutation(300)
    shuffled = split_rows([labels[i] for i in order], keys=[keys[i] for i in order])
    assert {keys[i]: split for i, split in zip(order, shuffled, strict=True)} == expected


@pytest.mark.parametrize("size", [10, 57, 200])
def test_one_more_row_moves_at_most_one_other_across_each_boundary(size):
    keys = [f"text {i}" for i in range(size)]
    before = split_rows([0] * size, keys=keys)
    for new in range(30):
        after = split_rows([0] * (size + 1), keys=[*keys, f"new {new}"])
        moved = Counter((a, b) for a, b in zip(before, after[:-1], strict=True) if a != b)
        assert all(count == 1 for count in moved.values())
        # test | validation | train: only neighbours exchange rows
        assert all({"test", "train"} != {a, b} for a, b in moved)


def test_the_other_labels_stay_as_they_are_when_one_grows():
    keys = [f"text {i}" for i in range(200)]
    labels = [i % 2 for i in range(200)]
    before = split_rows(labels, keys=keys)
    after = split_rows([*labels, *[1] * 50], keys=[*keys, *(f"new {i}" for i in range(50))])
    assert [s for s, label in zip(before, labels, strict=True) if label == 0] == [
        s for s, label in zip(after, labels, strict=False) if label == 0
    ]


def test_the_seed_changes_who_is_where_and_nothing_else():
    labels = [i % 3 for i in range(300)]
    one, other = split_rows(labels, seed=0), split_rows(labels, seed=1)
    assert one == split_rows(labels, seed=0)
    assert one != other
    assert Counter(zip(labels, one, strict=True)) == Counter(zip(labels, other, strict=True))


def test_rejects_a_label_with_fewer_groups_than_splits():
    with pytest.raises(ValueError, match="label 1 has too few groups of its own"):
        split_rows([0, 0, 0, 1, 1, 1], groups=[0, 1, 2, 3, 3, 4])


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_several_rows_are_shared_out_as_single_rows_are(seed):
    labels = [i // 500 for i in range(1500)]
    groups = [i if i % 500 < 200 else i // 3 + 10_000 for i in range(1500)]  # a third alone, the others in threes
    splits = split_rows(labels, groups, seed=seed)
    assert Counter(splits) == pytest.approx({split: share * 1500 for split, share in SHARES.items()}, abs=9)
    grouped = Counter(split for split, group in zip(splits, groups, strict=True) if group >= 10_000)
    for split, share in SHARES.items():
        assert grouped[split] / 900 == pytest.approx(share, abs=0.08)  # three standard deviations


def test_one_more_group_moves_no_other_group():
    keys = [f"text {i}" for i in range(600)]
    groups = [i // 2 if i < 300 else i + 10_000 for i in range(600)]
    before = split_rows([0] * 600, groups, keys)
    after = split_rows([0] * 602, [*groups, 5000, 5000], [*keys, "new a", "new b"])
    assert before[:300] == after[:300]
