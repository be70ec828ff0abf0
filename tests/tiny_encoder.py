"""An encoder and examples so small that the whole pipeline takes seconds."""

import csv
import random
from pathlib import Path

_WORDS = {
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
        for intent, words in _WORDS.items():
            for _ in range(num_per_intent):
                chosen = random_.sample(words, 2) + random_.sample(_FILLERS, 4)
                writer.writerow([" ".join(random_.sample(chosen, 6)), intent])


def write_encoder(folder: Path, examples: Path) -> None:
    """Write a random BERT (2 layers, 32 wide) and a word tokenizer that knows the words of `examples`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for line in examples.read_text().splitlines()[1:] for word in line.split(",")[0].split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
