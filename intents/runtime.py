"""Answers texts with an exported classifier; imports numpy, tokenizers and onnxruntime, no torch, no transformers.

    from intents.runtime import IntentClassifier

    classifier = IntentClassifier.load("models/onnx")
    intents, confidences = classifier.predict(["roll my window down"])

Shapes: n texts, b texts of one batch, t tokens, c intents.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

try:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray
    from tokenizers import Tokenizer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error.name} is not installed: pip install numpy tokenizers onnxruntime") from error

from intents.deciding import acts, decide, softmax
from intents.exported import (
    MODEL_FILES,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    ExportSettings,
    check_file,
    damaged,
    read_settings,
)
from intents.huge_pages import huge_pages as on_huge_pages
from intents.sessions import OPTIMISATION, cached_path, open_session
from intents.texts import is_empty


class IntentClassifier:
    """A tokenizer and an ONNX session. Thread-safe: one instance may serve many threads."""

    def __init__(self, settings: ExportSettings, tokenizer: Tokenizer, session: onnxruntime.InferenceSession) -> None:
        self.settings = settings
        self._tokenizer = tokenizer
        self._session = session

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        variant: str = "int8",
        *,
        num_threads: int = 1,
        arena: bool = True,
        optimisation: Literal["none", "basic", "extended", "all"] = "all",
        huge_pages: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        verify: bool = False,
    ) -> "IntentClassifier":
        """Open the exported classifier in `folder`.

        Args:
            folder: what the export stage wrote, models/onnx.
            variant: int8 (small, fast) or fp32 (the trained weights as they are).
            num_threads: threads of one answer; 1 starts none.
            arena: keep freed memory for the next text (faster) or give it back (less resident memory).
            optimisation: how far onnxruntime rewrites the graph at start-up; more starts later and answers sooner.
            huge_pages: put the weights on huge pages, where Linux has them: starts a little later and answers sooner.
            cache_dir: keep the rewritten graph in this folder, if there is room, and start from it the next time.
            verify: compare the files' SHA-256 with those noted at export; without it, only their sizes.

        Raises:
            ValueError: the folder is incomplete or damaged, or an argument is not valid.

        """
        folder = Path(folder)
        if variant not in MODEL_FILES:
            raise ValueError(f"variant must be one of {', '.join(MODEL_FILES)}, got {variant!r}")
        if optimisation not in OPTIMISATION:
            raise ValueError(f"optimisation must be one of {', '.join(OPTIMISATION)}, got {optimisation!r}")
        if not isinstance(num_threads, int) or num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads!r}")
        settings = read_settings(folder)
        for name in (MODEL_FILES[variant], TOKENIZER_FILE):
            check_file(folder / name, settings.files.get(name), verify)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = arena
        options.log_severity_level = 3  # what goes wrong is raised; the rest is not for the user
        with on_huge_pages(huge_pages):
            tokenizer = _open_tokenizer(folder / TOKENIZER_FILE)
            cached = None
            if cache_dir is not None:
                sha256 = settings.files[MODEL_FILES[variant]]["sha256"]
                cached = cached_path(folder / MODEL_FILES[variant], sha256, optimisation, Path(cache_dir))
            session = open_session(folder / MODEL_FILES[variant], options, optimisation, cached)
        num_scores = session.get_outputs()[0].shape[1]  # a name where the graph leaves it open
        fits = num_scores == len(settings.intents) or not isinstance(num_scores, int)
        if not fits or settings.pad_token_id >= tokenizer.get_vocab_size():
            raise damaged(
                folder / SETTINGS_FILE,
                f"it names {len(settings.intents)} intents and the token {settings.pad_token_id}; the model scores"
                f" {num_scores} intents, the tokenizer has {tokenizer.get_vocab_size()} tokens",
            )
        return cls(settings, tokenizer, session)

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into token ids; it cuts as training did."""
        return self._tokenizer

    @property
    def intents(self) -> list[str]:
        """Names of the intents, in the order of the columns of `probabilities`."""
        return self.settings.intents

    def predict(self, texts: Sequence[str], batch_size: int = 32) -> tuple[list[str], NDArray[np.float32]]:
        """Return the answer to each text, and the probability of its likeliest intent, (n,).

        The answer is the likeliest intent, or what stands for "do nothing" where that one is not sure enough.
        """
        return decide(self.probabilities(texts, batch_size), self.intents, self.settings.calibration)

    def probabilities(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent for each text, (n, c)."""
        return softmax(self.logits(texts, batch_size), self.settings.temperature)

    def acts(self, intents: Sequence[str], confidences: Sequence[float] | NDArray[np.float32]) -> list[bool]:
        """Return for each answer whether it is one to act on: it asks for something, and is sure enough."""
        return acts(intents, confidences, self.settings.calibration)

    def logits(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Return the raw scores, (n, c); texts of similar length share a batch, the order of `texts` is kept."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size!r}")
        texts = _checked(texts)
        ids = [self._tokenizer.encode(text).ids for text in texts]
        logits_nc = np.empty((len(texts), len(self.intents)), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            logits_nc[chosen] = self.logits_of_tokens([ids[i] for i in chosen])
        return logits_nc

    def logits_of_tokens(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the raw scores, (b, c), of texts given as token ids; they are one batch, padded to the longest."""
        shape_bt = (len(ids), max(len(text) for text in ids))
        ids_bt = np.full(shape_bt, self.settings.pad_token_id, dtype=np.int64)
        mask_bt = np.zeros(shape_bt, dtype=np.int64)
        for row, text in enumerate(ids):
            ids_bt[row, : len(text)] = text
            mask_bt[row, : len(text)] = 1
        logits: NDArray[np.float32] = self._session.run(None, {"input_ids": ids_bt, "attention_mask": mask_bt})[0]
        return logits


def _checked(texts: Iterable[str]) -> list[str]:
    """Return the texts without the blanks around them, as training saw them, if each can be answered."""
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of texts; for one text pass [{texts[:40]!r}]")
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{row}] must be a text, got {type(text).__name__} {text!r}")
        if is_empty(text):
            raise ValueError(f"texts[{row}] is empty: leave it out, there is nothing to recognise")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"texts[{row}] holds half a character (a lone surrogate): decode it anew, got {text!r}")
    return [text.strip() for text in texts]


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise damaged(path, error) from None
