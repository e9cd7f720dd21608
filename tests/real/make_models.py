"""Build the two tiny classifiers that the tests serve with real servers: `make_models.py DIRECTORY`.

Random weights, wide enough (std 0.2) that different texts get different labels, and a byte-level BPE
tokenizer that knows every byte: what a test can show with them is the wire, never the quality of a label.
"""

# ruff: noqa: S106 - "tokens" are a tokenizer's here, not passwords
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

LINES = [
    "the service was great but slow and I would not buy this again because of quality and price",
    "good bad nice awful love hate delivery product works broken excellent terrible average",
    "café naïve Zürich señor l'été привет отлично плохо 你好 非常好 とても良い 좋아요 مرحبا שלום 😀",
]
LABELS = {
    "tiny-bert": ["negative", "neutral", "positive"],
    "tiny-qwen": ["très bon", "schön", "普通", "плохо", "awful"],
}
MAX_LENGTH = 512


def make_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of some 400 tokens.

    As in the real families, BERT's adds [CLS] and [SEP] and Qwen's adds nothing: there, the empty text has no token.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LINES * 10, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in special}
    if name == "tiny-bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=MAX_LENGTH,
    )


def save(directory: Path, name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the model `name` with its tokenizer below `directory`."""
    torch.manual_seed(5)  # with many other seeds tiny-bert calls nearly everything by one label
    labels = LABELS[name]
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if name == "tiny-bert":
        # SGLang asks for the kind of position, which transformers 5 no longer writes by itself.
        model = BertForSequenceClassification(BertConfig(**shape, position_embedding_type="absolute"))
    else:
        model = Qwen2ForSequenceClassification(Qwen2Config(**shape, num_key_value_heads=2))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory / name)
    tokenizer.save_pretrained(directory / name)
    # Transformers 4, which Infinity uses, knows the class by this name alone; 5 knows both.
    config = directory / name / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for each in LABELS:
        save(target, each, make_tokenizer(each))
