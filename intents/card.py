"""A model card in the format of the Hugging Face Hub, made from a run's own files."""

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from intents.templating import template_environment

# Encoders that come with the installation, by their name on the Hub.
_ON_THE_HUB = {"bundled/all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}


def render_card(
    title: str, license_id: str, languages: Sequence[str], encoder: dict[str, Any], dataset: str, facts: dict[str, Any]
) -> str:
    """Return the card: front matter that the Hub reads, then the page.

    `encoder` is the manifest of models/encoder, `dataset` the name of the data; `facts` are the other variables of the
    template card.md.j2.
    """
    source = encoder["source"]
    on_hub = _ON_THE_HUB.get(source, source if encoder["revision"] else None)
    test = facts["test"]
    data = ModelCardData(
        language=list(languages),
        license=license_id,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["intent-classification"],
        base_model=on_hub,
        metrics=["accuracy", "f1"],
        model_name=title,
        eval_results=[
            _result(dataset, "accuracy", "Accuracy", test["accuracy"]),
            _result(dataset, "f1", "Macro-F1", test["macro_f1"]),
        ],
    )
    environment = template_environment("intents", autoescape=False)
    environment.filters["percent"] = lambda share: f"{100 * share:.4g} %"
    # In a Markdown table, of names that may look like Markdown or HTML.
    environment.filters["cell"] = lambda text: re.sub(r"([\\`*<\[|])", r"\\\1", " ".join(str(text).split()))
    environment.filters["pyrepr"] = partial(json.dumps, ensure_ascii=False)  # a Python string literal too
    page = environment.get_template("card.md.j2").render(
        title=title,
        languages=", ".join(languages),
        base_name=on_hub or f"the local encoder {source}",
        **facts,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{page}"


def _result(dataset: str, metric: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-classification",
        task_name="Intent classification",
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_split="test",
        metric_type=metric,
        metric_name=name,
        metric_value=value,
    )
