"""A random BERT and examples so small that the whole pipeline takes seconds: the only tiny BERT of the tests."""

import csv
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BertTokenizerFast

WORDS = "open close my the window door please turn on off light music seat it now is cold warm a b c".split()
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_WORDS_OF = {
    "window_down": ["open", "lower", "window", "glass", "air", "pane"],
    "wipers_on": ["wipers", "rain", "windshield", "wipe", "drops", "wet"],
    "cooling_on": ["cool", "hot", "conditioner", "temperature", "warm", "climate"],
}
_FILLERS = [
    f"{a}{b}"
    for a in ("ka", "lo", "mi", "nu", "re", "so", "ti", "va")
    for b in ("bra", "den", "fil", "gor", "hup", "jex")
]


def write_examples(path: Path, num_per_intent: int = 30) -> None:
    """Write labelled texts, alike within an intent and no two of them near-duplicates."""
    random_ = random.Random(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "intent"])
        for intent, words in _WORDS_OF.items():
            for _ in range(num_per_intent):
                chosen = random_.sample(words, 2) + random_.sample(_FILLERS, 4)
                writer.writerow([" ".join(random_.sample(chosen, 6)), intent])


def make_tokenizer(words: Iterable[str], max_length: int | None = None) -> "BertTokenizerFast":
    """Return a tokenizer that lowers case and knows `words`; all others are [UNK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return BertTokenizerFast(tokenizer_object=tokenizer, **({"model_max_length": max_length} if max_length else {}))


def write_bert(folder: Path, words: Iterable[str] = WORDS, *, seed: int = 0, **config: object) -> "BertTokenizerFast":
    """Write a random BERT (2 layers, 32 wide, 40 positions, unless `config` says otherwise); return its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = make_tokenizer(words, config.get("max_position_embeddings"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    settings = _SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 40} | config
    BertModel(BertConfig(**settings)).save_pretrained(folder)
    return tokenizer


def write_encoder(folder: Path, examples: Path) -> None:
    """Write a random BERT that knows the words of `examples`, a CSV file with the texts in its first column."""
    lines = examples.read_text(encoding="utf-8").splitlines()[1:]
    words = sorted({word for line in lines for word in line.split(",")[0].lower().split()})
    write_bert(folder, words, max_position_embeddings=64)
