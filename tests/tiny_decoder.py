"""A random Qwen3 decoder of a few kilobytes as a plain transformers folder, with the words of the tiny BERT."""

from __future__ import annotations

from pathlib import Path


def make_tiny_decoder(path: str | Path, words: Path, layers: int = 2, sliding_window: int | None = None) -> Path:
    """Write the folder and return it.

    Args:
        path: where to write.
        words: folder of `tests.tiny_model.make_tiny_model`, whose tokenizer is taken.
        layers: blocks.
        sliding_window: tokens that the second block sees; None: all.
    """
    import torch
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    window = {} if sliding_window is None else {"use_sliding_window": True, "sliding_window": sliding_window}
    config = Qwen3Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.5,
        max_position_embeddings=256,
        max_window_layers=1,
        **window,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3Model(config).save_pretrained(path)
    source = AutoTokenizer.from_pretrained(words).backend_tokenizer
    source.post_processor = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=source, eos_token="[SEP]", pad_token="[PAD]")
    tokenizer.save_pretrained(path)
    return Path(path)
