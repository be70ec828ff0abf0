import numpy as np

from intents.querying import margins, most_worth_labelling


def two_intents(*likeliest):
    return np.array([[p, 1 - p] for p in likeliest], dtype=np.float32)


def no_features(positions):
    raise AssertionError("features are not needed where every text has a place")


def test_the_margin_is_the_lead_of_the_likeliest_intent():
    assert np.allclose(margins(np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]])), [0.5, 0.0])


def test_ambiguous_texts_come_before_clear_ones():
    probabilities_nc = two_intents(0.99, 0.52, 0.9, 0.6)
    assert most_worth_labelling(probabilities_nc, np.arange(4), no_features, 10) == [1, 3, 2, 0]


def test_of_near_duplicates_only_the_least_certain_is_listed():
    probabilities_nc = two_intents(0.52, 0.51, 0.9, 0.53)
    assert most_worth_labelling(probabilities_nc, np.array([0, 0, 2, 0]), no_features, 10) == [1, 2]


def test_one_confusing_topic_does_not_take_all_the_places():
    probabilities_nc = two_intents(*np.linspace(0.5, 0.54, 15), 0.6, 0.62)  # 15 texts of one topic, then two others
    topics_nd = np.eye(3, dtype=np.float32)[[0] * 15 + [1, 2]]
    chosen = most_worth_labelling(probabilities_nc, np.arange(17), lambda positions: topics_nd[positions], 3)
    assert chosen == [0, 15, 16]


def test_clear_texts_do_not_take_part_where_enough_are_ambiguous():
    probabilities_nc = two_intents(*[0.5] * 20, *[0.99] * 20)
    features_nd = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    chosen = most_worth_labelling(probabilities_nc, np.arange(40), lambda positions: features_nd[positions], 2)
    assert len(chosen) == 2
    assert max(chosen) < 20
