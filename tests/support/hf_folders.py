"""Small Transformers folders as their users have them: config, weights, processor or tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from edgec.frontends._hf.load import offline_and_quiet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "edge", "device", "model", "small", "fast", "a", "the", "runs", "is"]
BERT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": len(WORDS), "max_position_embeddings": 24,
}  # fmt: skip
DECODER: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 32, "vocab_size": 40, "max_position_embeddings": 16,
}  # fmt: skip
BART: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 16,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "projection_dim": 8,
    "text_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": 32, "patch_size": 16,
    },
}  # fmt: skip
RESNET: dict[str, Any] = {
    "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
    "id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2},
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "image_processor_type": "ConvNextImageProcessor", "do_resize": True, "size": {"shortest_edge": 28},
    "crop_pct": 0.875, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3,
}  # fmt: skip


def write(folder: Path, cls: str, config: dict[str, Any], **files: dict[str, Any]) -> Any:
    """A seeded model of the class, saved; `files` are JSON files beside it, by stem."""
    torch.manual_seed(0)
    make = getattr(transformers, cls)
    with offline_and_quiet():
        model = make(make.config_class(**config)).eval()
        model.save_pretrained(folder)
    for stem, table in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(table))
    return model


def write_tokenizer(folder: Path, **config: Any) -> None:
    """A tokenizer of whole words with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", **config}))


def write_sentence_encoder(folder: Path, **pooling: bool) -> Any:
    """BERT, pooling, a dense layer and normalisation, as sentence-transformers lays them out. Gives the BERT."""
    from safetensors.torch import save_file

    model = write(folder, "BertModel", BERT)
    write_tokenizer(folder, model_max_length=16)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    (folder / "2_Dense").mkdir()
    wide = 16 * sum(pooling.values())
    dense = {"in_features": wide, "out_features": 8, "bias": True, "activation_function": "torch.nn.modules.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    weights = {"linear.weight": torch.randn(8, wide), "linear.bias": torch.randn(8)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")]
    entries = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{k}"} for i, (k, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    return model, weights
