import numpy as np
import pyarrow as pa
import pytest
import torch

from intents.batching import BucketBatchSampler, PaddingCollator, TokenizedTexts, sorted_batches
from intents.tables import write_table
from intents.tokenizing import SCHEMA

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1003)


def padding_of(batches, lengths):
    """Padded tokens per useful one."""
    return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum()


def test_tokenized_texts_are_those_of_the_table(tmp_path):
    ids = [[2, 5, 3], [2, 3], [2, 9, 9, 9, 3]]
    write_table(tmp_path / "t.parquet", {"input_ids": ids, "label": [1, 0, 1]}, SCHEMA)
    texts = TokenizedTexts(tmp_path / "t.parquet")
    assert len(texts) == 3
    assert [texts[i]["input_ids"].tolist() for i in range(3)] == ids
    assert [int(texts[i]["label"]) for i in range(3)] == texts.labels.tolist() == [1, 0, 1]
    assert texts.lengths.tolist() == [3, 2, 5]


def test_tokenized_texts_of_several_row_groups_are_joined(tmp_path):
    import pyarrow.parquet as pq

    ids = [[i] * (i % 4 + 1) for i in range(100)]
    table = pa.table({"input_ids": ids, "label": list(range(100))}, schema=SCHEMA)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    texts = TokenizedTexts(tmp_path / "t.parquet")
    assert [texts[i]["input_ids"].tolist() for i in range(100)] == ids


@pytest.mark.parametrize("batch_size", [1, 4, 32, 5000])
def test_a_pass_draws_every_text_once(batch_size):
    sampler = BucketBatchSampler(LENGTHS, batch_size, seed=0)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    assert len(batches) == len(sampler)
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_an_epoch_of_several_passes_draws_every_text_so_often_each_time_in_another_order():
    sampler = BucketBatchSampler(LENGTHS, 32, seed=0, passes=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3 * 32
    passes = [batches[i : i + 32] for i in range(0, len(batches), 32)]
    for drawn in passes:
        assert sorted(i for batch in drawn for i in batch) == list(range(len(LENGTHS)))
    sampler.set_epoch(1)
    orders = {tuple(map(tuple, drawn)) for drawn in [*passes, list(sampler)[:32]]}
    assert len(orders) == 4


def test_batches_hold_little_padding():
    random_order = np.random.default_rng(1).permutation(len(LENGTHS))
    shuffled = [random_order[i : i + 16] for i in range(0, len(LENGTHS), 16)]
    assert padding_of(shuffled, LENGTHS) > 1.6
    assert padding_of(list(BucketBatchSampler(LENGTHS, 16, seed=0)), LENGTHS) < 1.1
    assert padding_of(sorted_batches(LENGTHS, 16), LENGTHS) < 1.05


def test_each_pass_and_each_seed_has_its_own_order_and_can_be_repeated():
    sampler = BucketBatchSampler(LENGTHS, 16, seed=0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert {frozenset(batch) for batch in second} != {frozenset(batch) for batch in first}
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(BucketBatchSampler(LENGTHS, 16, seed=1)) != first


def test_short_and_long_batches_are_mixed_over_the_pass():
    longest = [LENGTHS[batch].max() for batch in BucketBatchSampler(LENGTHS, 16, seed=0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.4


def test_sorted_batches_hold_every_text_once_longest_first():
    batches = sorted_batches(LENGTHS, 32)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    in_order = [LENGTHS[i] for batch in batches for i in batch]
    assert in_order == sorted(in_order, reverse=True)


def test_collator_pads_to_the_longest_text_and_masks_the_padding():
    collate = PaddingCollator(pad_token_id=7)
    examples = [{"input_ids": np.array([2, 5, 3]), "label": 1}, {"input_ids": np.array([2]), "label": 0}]
    batch = collate(examples)
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_collator_pads_to_a_length_that_no_text_must_have():
    texts = [{"input_ids": np.arange(1, length + 1), "label": 0} for length in (3, 9)]
    assert PaddingCollator(0, length=12)(texts)["input_ids"].shape == (2, 12)
    assert PaddingCollator(0, length=4)(texts)["input_ids"].shape == (2, 9)


def test_collator_counts_what_passed_through():
    collate = PaddingCollator(pad_token_id=0)
    for lengths in ([3, 1], [2, 2, 5]):
        collate([{"input_ids": np.ones(length, np.int32), "label": 0} for length in lengths])
    assert (collate.examples, collate.useful_tokens, collate.padded_tokens) == (5, 13, 21)


def test_joined_texts_are_these_and_the_chosen_ones_of_others(tmp_path):
    def write(name, ids, labels):
        write_table(tmp_path / name, {"input_ids": ids, "label": labels}, SCHEMA)
        return TokenizedTexts(tmp_path / name)

    texts = write("a.parquet", [[2, 7, 3], [2, 3]], [0, 1])
    others = write("b.parquet", [[2, 8, 8, 3], [2, 9, 3], [2, 4, 3]], [-1, -1, -1])
    joint = texts.joined(others, np.array([0, 2]), np.array([1, 0]))
    assert [joint[i]["input_ids"].tolist() for i in range(4)] == [[2, 7, 3], [2, 3], [2, 8, 8, 3], [2, 4, 3]]
    assert joint.labels.tolist() == [0, 1, 1, 0]
    assert joint.lengths.tolist() == [3, 2, 4, 3]
    assert joint.tokens().tolist() == [2, 3, 4, 7, 8]
    assert len(texts) == 2 and texts.tokens().tolist() == [2, 3, 7]
