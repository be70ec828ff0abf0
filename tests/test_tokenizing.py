import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from intents import tokenizing
from intents.preparing import SCHEMA
from intents.tables import intents_of, with_facts, write_table
from intents.tokenizing import load_tokenizer, max_length_of, tokenize_table

TEXTS = ["open the window", "close it please now", "Äpfel 今日 🚗", "on " * 60]


@pytest.fixture
def prepared(tmp_path):
    """Return a function that writes texts as one split of the prepared data."""

    def write(texts):
        columns = {name: [""] * len(texts) for name in ("intent", "kind")}
        columns |= {
            "text": texts,
            "label": [i % 2 for i in range(len(texts))],
            "row": list(range(len(texts))),
        }
        write_table(tmp_path / "prepared.parquet", columns, with_facts(SCHEMA, intents=["a", "b"]))
        return tmp_path / "prepared.parquet"

    return write


def test_token_ids_are_those_of_the_tokenizer_cut_and_unpadded(tmp_path, tiny_encoder, prepared):
    counts = tokenize_table(prepared(TEXTS), tmp_path / "out.parquet", load_tokenizer(tiny_encoder, 16))
    plain = AutoTokenizer.from_pretrained(tiny_encoder)
    expected = [plain(text)["input_ids"] for text in TEXTS]
    expected[3] = [*expected[3][:15], plain.sep_token_id]
    unknown = sum(ids.count(plain.unk_token_id) for ids in expected)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["input_ids"].to_pylist() == expected
    assert table["label"].to_pylist() == [0, 1, 0, 1]
    assert counts == {"rows": 4, "tokens": sum(map(len, expected)), "truncated": 1, "unknown": unknown}


def test_what_augments_follows_under_the_labels_of_the_originals(tmp_path, tiny_encoder, prepared, monkeypatch):
    monkeypatch.setattr(tokenizing, "_BATCH_SIZE", 2)
    source, tokenizer = prepared(TEXTS), load_tokenizer(tiny_encoder, 16)
    tokenize_table(source, tmp_path / "plain.parquet", tokenizer)
    counts = tokenize_table(source, tmp_path / "out.parquet", tokenizer, lambda texts: [(1, f"{texts[1]} window")])
    plain, table = (pq.read_table(tmp_path / name) for name in ("plain.parquet", "out.parquet"))
    assert table.slice(0, 4).equals(plain)
    made = [tokenizer(text, truncation=True)["input_ids"] for text in (f"{TEXTS[1]} window", f"{TEXTS[3]} window")]
    assert table.slice(4)["input_ids"].to_pylist() == made
    assert table.slice(4)["label"].to_pylist() == [1, 1]
    assert counts["rows"] == 6


def test_the_table_carries_intents_and_max_length(tmp_path, tiny_encoder, prepared):
    tokenize_table(prepared(TEXTS), tmp_path / "out.parquet", load_tokenizer(tiny_encoder, 16))
    assert intents_of(tmp_path / "out.parquet") == ["a", "b"]
    assert max_length_of(tmp_path / "out.parquet") == 16


def test_a_text_of_exactly_max_length_counts_as_whole(tmp_path, tiny_encoder, prepared):
    source = prepared(["open the window now", "open the window now please"])  # 6 and 7 tokens
    assert tokenize_table(source, tmp_path / "out.parquet", load_tokenizer(tiny_encoder, 6))["truncated"] == 1


def test_padding_and_truncation_stored_with_the_tokenizer_do_not_count(tmp_path, tiny_encoder, prepared):
    # tokenizer.json of all-MiniLM-L6-v2 pads to 128 tokens and cuts there.
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.backend_tokenizer.enable_padding(length=32)
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder/config.json").write_bytes((tiny_encoder / "config.json").read_bytes())
    tokenize_table(prepared(TEXTS), tmp_path / "out.parquet", load_tokenizer(tmp_path / "encoder", 16))
    lengths = [len(ids) for ids in pq.read_table(tmp_path / "out.parquet")["input_ids"].to_pylist()]
    assert lengths == [5, 6, 6, 16]


def test_tables_larger_than_a_batch_come_out_whole_and_the_same_twice(tmp_path, tiny_encoder, prepared, monkeypatch):
    monkeypatch.setattr(tokenizing, "_BATCH_SIZE", 7)
    texts = [f"open {'the ' * (i % 5)}window" for i in range(50)]
    source, tokenizer = prepared(texts), load_tokenizer(tiny_encoder, 16)
    for name in ("one.parquet", "two.parquet"):
        assert tokenize_table(source, tmp_path / name, tokenizer)["rows"] == 50
    table = pq.read_table(tmp_path / "one.parquet")
    assert [len(ids) for ids in table["input_ids"].to_pylist()] == [4 + i % 5 for i in range(50)]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_rejects_more_tokens_than_the_encoder_holds(tiny_encoder):
    assert load_tokenizer(tiny_encoder, 40).model_max_length == 40
    with pytest.raises(ValueError, match="tokenize.max_length must be at most 40 for this encoder, got 41"):
        load_tokenizer(tiny_encoder, 41)


def test_an_encoder_of_any_length_takes_any(tmp_path, tiny_encoder):
    shutil.copytree(tiny_encoder, tmp_path / "xlnet")
    AutoConfig.for_model("xlnet").save_pretrained(tmp_path / "xlnet")  # its max_position_embeddings is -1
    assert load_tokenizer(tmp_path / "xlnet", 600).model_max_length == 600


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", *tokenizing._ROBERTA_KIN])
def test_roberta_and_its_kin_hold_two_tokens_fewer_than_they_have_positions(tmp_path, family):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "attention_window": 4}
    kin = {"intermediate_size": 8, "pad_token_id": 1, "languages": ["en"], "default_language": "en"}
    positions = {"max_position_embeddings": 40, "position_embedding_type": "absolute"}
    model = AutoModel.from_config(AutoConfig.for_model(family, **sizes, **kin, **positions)).eval()
    with torch.no_grad():
        model(torch.full((1, 38), 5))
        if family != "longformer":  # pads to its window
            with pytest.raises((IndexError, RuntimeError)):
                model(torch.full((1, 39), 5))
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenize.max_length must be at most 38 for this encoder, got 39"):
        load_tokenizer(tmp_path, 39)


def test_a_foreign_table_is_refused_and_nothing_written(tmp_path, tiny_encoder):
    pq.write_table(pa.table({"text": ["x"], "label": [0]}), tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match="foreign.parquet carries no 'intents'"):
        tokenize_table(tmp_path / "foreign.parquet", tmp_path / "out.parquet", load_tokenizer(tiny_encoder, 16))
    assert not (tmp_path / "out.parquet").exists()


def test_a_model_without_a_token_to_pad_with_is_refused(tmp_path, tiny_encoder):
    shutil.copytree(tiny_encoder, tmp_path / "decoder")
    settings = tmp_path / "decoder/tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": None}))
    with pytest.raises(ValueError, match="encoder.name: bert models have no token to pad with"):
        load_tokenizer(tmp_path / "decoder", 16)


def test_a_folder_without_an_encoder_is_no_name_of_one_elsewhere(tmp_path):
    with pytest.raises(ValueError, match=r"encoder holds no encoder \(no config.json\): run `dvc repro encoder`"):
        load_tokenizer(tmp_path / "encoder", 16)
