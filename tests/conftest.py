"""Fixtures shared by the tests: a tiny encoder and a small data set, both made on the spot."""

import csv
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
WORDS = "open close my the window door please turn on off light music seat it now is cold warm a b c".split()


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Folder of a random BERT (32 wide, 40 positions) with a WordPiece tokenizer. Never write into it."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def driver_texts():
    """(text, intent) of every row of the repository's own data."""
    with (REPOSITORY / "data/raw/driver_intents.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["intent"]) for row in csv.DictReader(file)]


@pytest.fixture
def default_params():
    """All of params.yaml, to change and write elsewhere."""
    return yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def workspace(tmp_path, monkeypatch, default_params):
    """Return a function that changes settings in the params.yaml of an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write_params(section, **changes):
        default_params[section] |= changes
        Path("params.yaml").write_text(yaml.safe_dump(default_params), encoding="utf-8")

    return write_params


@pytest.fixture
def write_csv(tmp_path):
    """Return a function that writes rows under a header as a CSV file and returns its path."""

    def write(name, header, rows):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write
