"""The model: its folder, tokenizer, encoder and losses."""
