import sys

import numpy as np
import pytest

from intents.suspects import (
    find_contradictions,
    find_mislabelled,
    nearest,
    out_of_fold_probabilities,
    require_cleanlab,
)

CENTRES = np.eye(4, dtype=np.float32)


def clusters(num_per_intent=60, noise=0.3):
    """Features of length 1 around one direction per intent, the intents, and a group of its own for each row."""
    random = np.random.default_rng(0)
    labels_n = np.repeat(np.arange(len(CENTRES)), num_per_intent)
    features_nd = CENTRES[labels_n] + noise * random.standard_normal((len(labels_n), len(CENTRES))).astype(np.float32)
    features_nd /= np.linalg.norm(features_nd, axis=1, keepdims=True)
    return features_nd, labels_n, np.arange(len(labels_n))


def test_planted_wrong_labels_come_first():
    features_nd, labels_n, groups_n = clusters()
    planted = [5, 70, 130, 200]
    labels_n[planted] = (labels_n[planted] + 1) % len(CENTRES)
    suspects = find_mislabelled(labels_n, out_of_fold_probabilities(features_nd, labels_n, groups_n))
    assert set(suspects[:4]) == set(planted)


def test_a_copy_of_a_wrong_row_does_not_vouch_for_it():
    features_nd, labels_n, groups_n = clusters()
    copies = np.arange(20, 30)
    features_nd[copies], labels_n[copies], groups_n[copies] = features_nd[20], 3, 20
    together = out_of_fold_probabilities(features_nd, labels_n, groups_n)
    apart = out_of_fold_probabilities(features_nd, labels_n, np.arange(len(labels_n)))
    assert (together[copies].argmax(axis=1) == 0).all()
    assert (apart[copies, 3] > together[copies, 3]).all()


def test_an_intent_of_two_rows_is_judged_like_the_others():
    features_nd, labels_n, groups_n = clusters()
    kept = np.concatenate([np.arange(180), [180, 181]])
    labels_n[5] = 3  # wrong: that intent has no more than its two rows
    probabilities_nc = out_of_fold_probabilities(features_nd[kept], labels_n[kept], groups_n[kept])
    assert probabilities_nc.shape == (182, 4)
    assert list(find_mislabelled(labels_n[kept], probabilities_nc)) == [5]


def test_contradicting_neighbours_are_found_the_less_credible_row_first():
    features_nd, labels_n, groups_n = clusters()
    features_nd[10] = features_nd[11]  # the same features under two intents, in the midst of intent 0
    labels_n[10] = 2
    probabilities_nc = out_of_fold_probabilities(features_nd, labels_n, groups_n)
    found = find_contradictions(features_nd, labels_n, probabilities_nc, min_similarity=0.99)
    assert (found[0].row, found[0].neighbour) == (10, 11)
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    rows = [row for pair in found for row in (pair.row, pair.neighbour)]
    assert len(rows) == len(set(rows))
    assert all(pair.similarity >= 0.99 and labels_n[pair.row] != labels_n[pair.neighbour] for pair in found)


def test_the_nearest_row_is_the_most_similar_one():
    features_nd, _, _ = clusters()
    shuffled = np.random.default_rng(1).permutation(len(features_nd))
    assert (shuffled[nearest(features_nd, features_nd[shuffled])] == np.arange(len(features_nd))).all()


def test_without_cleanlab_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ValueError, match=r"needs cleanlab: pip install -c constraints.txt -e '\.\[review\]'"):
        require_cleanlab()


def test_few_rows_of_each_intent_are_doubted_in_fewer_folds_and_one_of_each_is_refused():
    features_nd, labels_n, groups_n = clusters()
    few = np.concatenate([np.flatnonzero(labels_n == label)[:3] for label in range(4)])
    assert out_of_fold_probabilities(features_nd[few], labels_n[few], groups_n[few]).shape == (12, 4)
    for rows in (few[::3], few[:3]):
        with pytest.raises(ValueError, match="rows of . intent.s. are too few, or too much alike, to doubt any"):
            out_of_fold_probabilities(features_nd[rows], labels_n[rows], groups_n[rows])


def test_an_intent_in_one_group_beside_a_single_other_one_is_refused():
    features_nd = np.eye(12)
    with pytest.raises(ValueError, match="12 rows of 2 intent.* label more"):
        out_of_fold_probabilities(features_nd, np.array([0] * 11 + [1]), np.arange(12))
    with pytest.raises(ValueError, match="12 rows of 2 intent.* label more"):
        out_of_fold_probabilities(features_nd, np.array([0] * 10 + [1] * 2), np.array([*range(11), 10]))
