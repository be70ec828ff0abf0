"""Supervised contrastive loss.

Shapes: b texts, d feature size.
"""

import torch
from torch import nn

_NEVER = -1e4  # finite: a batch of one text would otherwise have a gradient of 0 * inf


def supervised_contrastive_loss(features_bd: torch.Tensor, labels_b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean over the texts of -log p(another text of the same label), by cosine similarity / `temperature`.

    Khosla et al. 2020, "Supervised contrastive learning", equation 2 (the sum outside the logarithm). A text without
    another of its label in the batch takes no part; the loss of a batch of such texts is 0.
    """
    directions_bd = nn.functional.normalize(features_bd.float(), dim=-1)
    itself_bb = torch.eye(len(labels_b), dtype=torch.bool, device=labels_b.device)
    similarity_bb = (directions_bd @ directions_bd.T / temperature).masked_fill(itself_bb, _NEVER)
    log_shares_bb = similarity_bb - similarity_bb.logsumexp(dim=1, keepdim=True)
    partners_bb = (labels_b.unsqueeze(0) == labels_b.unsqueeze(1)) & ~itself_bb
    counts_b = partners_bb.sum(1)
    sums_b = log_shares_bb.masked_fill(~partners_bb, 0.0).sum(1)
    return -(sums_b / counts_b.clamp(min=1)).sum() / (counts_b > 0).sum().clamp(min=1)
