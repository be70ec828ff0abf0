"""The few metrics that training chooses by and experiments are compared by.

Shapes: n examples, c intents.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax


def headline_metrics(labels_n: NDArray[np.int64], logits_nc: NDArray[np.float32]) -> dict[str, float]:
    """Return accuracy, macro_f1 and log_loss (mean negative log-likelihood in nats).

    macro_f1 averages over the intents that are true or answered somewhere, as scikit-learn does.
    """
    from sklearn.metrics import accuracy_score, f1_score, log_loss  # a second that training need not wait for

    predicted = logits_nc.argmax(1)
    intents = np.arange(logits_nc.shape[1])
    probabilities = np.exp(log_softmax(logits_nc.astype(np.float64), axis=1))
    return {
        "accuracy": float(accuracy_score(labels_n, predicted)),
        "macro_f1": float(f1_score(labels_n, predicted, average="macro", zero_division=0)),
        "log_loss": float(log_loss(labels_n, probabilities, labels=intents)),
    }
