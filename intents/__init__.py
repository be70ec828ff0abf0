"""Library of the pipeline: knows no stage, no DVC, no path of the repository.

`import intents` costs nothing, and makes `transformers.pipeline(model="models/classifier")` work: the classifier's
architecture is registered at the moment transformers' own registry of architectures is loaded, so that a program which
never loads it (preparing data, serving the ONNX model) never pays for torch.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_REGISTRY = "transformers.models.auto.modeling_auto"

# onnxruntime 1.32 tells Microsoft of each session that is opened, unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class _RegisterClassifier(MetaPathFinder):
    """Imports intents.classifier, which registers itself, right after transformers' registry was imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            importlib.import_module("intents.classifier")

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if _REGISTRY in sys.modules:
    importlib.import_module("intents.classifier")
else:
    sys.meta_path.insert(0, _RegisterClassifier())
