"""Materialises the pretrained encoder.

Reads nothing but its settings (and the bundled package, a folder or the Hub), writes models/encoder.

    python -m stages.encoder
"""

from pathlib import Path

from intents.cli import run
from intents.encoders import materialise_encoder
from intents.params import Params, load_params

ENCODER_DIR = Path("models/encoder")


class EncoderParams(Params):
    """Section `encoder` of params.yaml."""

    name: str
    revision: str | None


def main() -> None:
    """Run the stage."""
    params = load_params("encoder", EncoderParams)
    manifest = materialise_encoder(params.name, params.revision, ENCODER_DIR)
    print(f"encoder {params.name}: {len(manifest['files'])} files in {ENCODER_DIR}")


if __name__ == "__main__":
    run(main)
