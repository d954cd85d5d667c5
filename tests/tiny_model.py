"""A random BERT of a few kilobytes as a complete sentence-transformers folder, made in about a second."""

from __future__ import annotations

import json
import string
from pathlib import Path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the a of and to in is it that for on with as are be this was at by an from or which not have has can will sort "
    "list array matrix value number index key name file path read write open close load save return call function "
    "class method model train data text word query answer question document search find match score rank sum mean "
    "product vector length size shape type string integer float boolean true false none error raise test check "
    "result input output compute apply copy merge split join bag member weight layer token batch step loss cat dog "
    "bird fish house tree river mountain city country music song film book paper science law health food water fire "
    "air earth red green blue black white big small old new good bad fast slow man woman child people world day night "
    "year time life work home school bank card money account transfer pay buy sell price market weather rain sun "
    "snow wind play game win run walk eat drink sleep write talk speak hear see look"
)


def vocabulary() -> list[str]:
    """Special tokens, all printable ASCII characters (alone and as continuations), and about 170 common words."""
    letters = list(string.ascii_lowercase + string.digits)
    pieces = [*letters, *string.punctuation, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys([*SPECIAL, *pieces, *WORDS.split()]))


def make_tiny_model(
    path: str | Path, hidden: int = 32, layers: int = 2, seed: int = 0, max_length: int = 128, normalize: bool = True
) -> Path:
    """Write the folder and return it; the same arguments write the same bytes.

    The folder loads in ``SentenceTransformer(path)`` and in ``AutoModel`` / ``AutoTokenizer.from_pretrained(path)``.

    Args:
        path: where to write; made if missing.
        hidden: width; a multiple of 4 (four heads).
        layers: Transformer layers.
        seed: seed of the weights.
        max_length: longest text; tokens.
        normalize: end with a Normalize module.
    """
    import torch
    from transformers import BertConfig, BertModel

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=max_length,
        initializer_range=0.5,  # the usual 0.02 gives almost the same embedding to every text
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    _write_tokenizer(folder, max_length)
    _write_modules(folder, hidden, max_length, normalize)
    return folder


def _write_tokenizer(folder: Path, max_length: int) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    _write(folder / "special_tokens_map.json", names)
    settings = {"do_lower_case": True, "model_max_length": max_length, "tokenizer_class": "BertTokenizer"}
    _write(folder / "tokenizer_config.json", names | settings)


def _write_modules(folder: Path, hidden: int, max_length: int, normalize: bool) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 3 if normalize else 2]
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (place, kind) in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None})
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    for place, _ in kinds[1:]:
        (folder / place).mkdir(exist_ok=True)
    _write(folder / "1_Pooling" / "config.json", pooling)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
