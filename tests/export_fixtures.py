"""Tiny classifiers of every kind that the export must carry, and the data around them.

A plugin that a test module names in `pytest_plugins`, and imports from (PYTEST_DONT_REWRITE).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import transformers
from filelock import FileLock
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from intents.calibrations import Calibration
from intents.classifier import IntentClassifier, IntentClassifierConfig, load_classifier
from intents.exported import MODEL_FILES, SETTINGS_FILE, TOKENIZER_FILE, ExportSettings
from intents.exporting import export_onnx
from intents.files import write_json
from intents.quantising import quantise
from intents.tables import with_facts, write_table

INTENTS = ["air_conditioner_on", "driver_window_down", "no_intent"]
WORDS = [f"word{i}" for i in range(290)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
MAX_LENGTH = 24
_OWN_SETTINGS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},  # positions are counted from the padding id on
    "electra": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
    # A window of 8 tokens: some padding is out of every token's sight.
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "initializer_cutoff_factor": 100.0},
}
# A second layer makes an export up to half as long again and shows nothing more here: bert has two with our heads, and
# deberta-v2, whose layers share the embeddings of distances as deberta's do.
_OF_ONE_LAYER = {(architecture, "native") for architecture in ("bert", "electra", "deberta")}


def tiny_classifier(architecture: str, head: str, num_labels: int = len(INTENTS)) -> transformers.PreTrainedModel:
    """Return a random classifier whose answers depend on every token: default weights are too small for that.

    Its biases are random, too; a new model's are 0, and what the export loses of them would not show.
    """
    config = AutoConfig.for_model(
        architecture,
        **{
            "hidden_size": 32,
            "num_hidden_layers": 1 if (architecture, head) in _OF_ONE_LAYER else 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "vocab_size": len(SPECIAL) + len(WORDS),
            "max_position_embeddings": 66,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "initializer_range": 0.3,
        }
        | _OWN_SETTINGS[architecture],
    )
    torch.manual_seed(0)
    names = dict(enumerate([*INTENTS, *map(str, range(num_labels))][:num_labels]))
    labels = {name: label for label, name in names.items()}
    if head == "native":
        config.id2label, config.label2id = names, labels
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = IntentClassifier(IntentClassifierConfig(encoder=config, pooling=head, id2label=names, label2id=labels))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="session")
def exported(shared_folder: Path) -> Callable[[str, str], Path]:
    """Return a function that gives the ONNX graph of a tiny classifier, exported once. Never write to it."""

    def export(architecture: str, head: str) -> Path:
        path = shared_folder / f"{architecture}-{head}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                export_onnx(tiny_classifier(architecture, head), path)
        return path

    return export


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer whose file, like many published ones, pads to 40 tokens and cuts at 40."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    backend.enable_truncation(40)
    backend.enable_padding(length=40)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=MAX_LENGTH,
    )


def random_texts(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    """Return texts of 1 to `longest` words; the longest are cut by the tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=generator).tolist()) for n in lengths
    ]


def write_checkpoint(folder: Path, model: transformers.PreTrainedModel) -> None:
    """Save `model` and the tiny tokenizer the way the train stage does."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def write_exported(
    checkpoint: Path, folder: Path, calibration: Calibration, variants: Sequence[str] = ("fp32", "int8")
) -> None:
    """Write the classifier in `checkpoint` to `folder` as the export stage does, the gate left out."""
    model = load_classifier(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(model, folder / MODEL_FILES["fp32"])
    if "int8" in variants:
        texts = tokenizer(random_texts(100, seed=1), truncation=True, padding=False)["input_ids"]
        quantise(folder / MODEL_FILES["fp32"], folder / MODEL_FILES["int8"], "tokens", texts)
    tokenizer.backend_tokenizer.enable_truncation(tokenizer.model_max_length)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    names = [*(MODEL_FILES[variant] for variant in variants), TOKENIZER_FILE]
    settings = ExportSettings(
        intents=[model.config.id2label[label] for label in range(model.config.num_labels)],
        max_length=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        **asdict(calibration),
        checkpoint_sha256="",
        files={name: {"bytes": (folder / name).stat().st_size, "sha256": ""} for name in names},
    )
    write_json(folder / SETTINGS_FILE, asdict(settings))


def sure_texts(model: transformers.PreTrainedModel, count: int) -> list[str]:
    """Return the texts, of three times as many, that a random classifier is surest of; a trained one is of most."""
    texts = random_texts(3 * count)
    with torch.inference_mode():
        best = [
            model(input_ids=torch.tensor([ids])).logits[0].topk(2).values
            for ids in tiny_tokenizer()(texts, truncation=True, padding=False)["input_ids"]
        ]
    margins = [float(first - second) for first, second in best]
    return [texts[i] for i in sorted(sorted(range(len(texts)), key=lambda i: -margins[i])[:count])]


def write_validation(root: Path, model: transformers.PreTrainedModel, texts: list[str]) -> None:
    """Write the two tables of the validation split; the model's own answers are the true intents."""
    ids = tiny_tokenizer()(texts, truncation=True, padding=False)["input_ids"]
    with torch.inference_mode():
        labels = [int(model(input_ids=torch.tensor([row])).logits.argmax()) for row in ids]
    facts = {"intents": INTENTS}
    prepared = pa.schema([("text", pa.string()), ("intent", pa.string()), ("label", pa.int32())])
    columns = {"text": texts, "intent": [INTENTS[label] for label in labels], "label": labels}
    write_table(root / "data/prepared/validation.parquet", columns, with_facts(prepared, **facts))
    tokenized = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int32())])
    write_table(
        root / "data/tokenized/validation.parquet",
        {"input_ids": ids, "label": labels},
        with_facts(tokenized, max_length=MAX_LENGTH, **facts),
    )
