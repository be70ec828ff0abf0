import math

import torch

from intents.contrastive import supervised_contrastive_loss


def test_the_loss_is_that_of_the_definition():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    labels = torch.tensor([0, 1, 0])
    # The two texts of label 0 point the same way (similarity 1), the third at a right angle (0); temperature 0.5.
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(0)))
    torch.testing.assert_close(supervised_contrastive_loss(features, labels, 0.5), torch.tensor(expected))


def test_a_batch_without_partners_costs_nothing_and_has_a_gradient():
    for size in (1, 3):
        features = torch.randn(size, 4, requires_grad=True)
        loss = supervised_contrastive_loss(features, torch.arange(size), 0.1)
        loss.backward()
        assert loss == 0
        assert torch.equal(features.grad, torch.zeros(size, 4))


def test_texts_of_one_label_are_drawn_together():
    torch.manual_seed(0)
    features = torch.randn(12, 8, requires_grad=True)
    labels = torch.arange(12) % 3
    before = supervised_contrastive_loss(features, labels, 0.1)
    before.backward()
    assert supervised_contrastive_loss(features - 0.5 * features.grad, labels, 0.1) < before
