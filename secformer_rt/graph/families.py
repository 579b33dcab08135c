"""Families of encoders: all compute what a BERT does, and each writes it down in its own way.

A family is one table of names. To add another, describe it here; nothing else knows of families.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from secformer_rt.errors import BadCheckpointError, UnsupportedModelError
from secformer_rt.graph.architecture import Activation

_LAYER = re.compile(r"^layer\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Family:
    """How config.json and the tensors of one model type are spelt.

    ``dimensions`` maps fields of :class:`Architecture` to keys of config.json. ``tensors`` maps our linear
    layers, norms and tables to theirs, with {} for the number of a layer, and ``classifier`` those of a
    classifier's head; an encoder without a pooler has no "head.pooler".
    """

    encoder_class: str
    classifier_class: str
    prefix: str
    dimensions: Mapping[str, str]
    hidden_act: str
    tensors: Mapping[str, str]
    classifier: Mapping[str, str]
    activation: Activation = "tanh"  # of ours, between a classifier's two layers
    counts_from_padding: bool = False  # positions start above the padding token's id, as in fairseq

    @property
    def has_token_types(self) -> bool:
        """Whether there is a table of token types; if not, it counts as one type whose row is zero."""
        return "embeddings.types" in self.tensors

    def tensor(self, name: str, *, classifier: bool = False) -> str:
        """Their name of one of our weights, gains, biases or tables, without the prefix."""
        where, _, last = name.rpartition(".")
        index = _LAYER.match(where)
        known = {**self.tensors, **(self.classifier if classifier else {})}
        theirs = known[_LAYER.sub("layer.", where)].format(*index.groups() if index else ())
        return f"{theirs}.{'weight' if last == 'gain' else last}"

    def unread_positions(self, config: Mapping[str, object]) -> int:
        """Rows at the top of the position table that no token reads.

        Raises:
            BadCheckpointError: they depend on the padding token, and there is none.
        """
        if not self.counts_from_padding:
            return 0
        padding = config.get("pad_token_id", 1)
        if not isinstance(padding, int):
            raise BadCheckpointError(
                f"config.json has pad_token_id {padding!r}, and positions are counted from it: correct it."
            )
        return padding + 1


_BERT = Family(
    encoder_class="BertModel",
    classifier_class="BertForSequenceClassification",
    prefix="bert.",
    dimensions={
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "intermediate": "intermediate_size",
    },
    hidden_act="hidden_act",
    tensors={
        "embeddings.words": "embeddings.word_embeddings",
        "embeddings.types": "embeddings.token_type_embeddings",
        "embeddings.positions": "embeddings.position_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
        "layer.attention.query": "encoder.layer.{}.attention.self.query",
        "layer.attention.key": "encoder.layer.{}.attention.self.key",
        "layer.attention.value": "encoder.layer.{}.attention.self.value",
        "layer.attention.output": "encoder.layer.{}.attention.output.dense",
        "layer.attention.norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layer.intermediate": "encoder.layer.{}.intermediate.dense",
        "layer.output": "encoder.layer.{}.output.dense",
        "layer.norm": "encoder.layer.{}.output.LayerNorm",
        "head.pooler": "pooler.dense",
    },
    classifier={"head.logits": "classifier"},
)
_ROBERTA = replace(
    _BERT,
    encoder_class="RobertaModel",
    classifier_class="RobertaForSequenceClassification",
    prefix="roberta.",
    classifier={"head.pooler": "classifier.dense", "head.logits": "classifier.out_proj"},
    counts_from_padding=True,
)
_XLM_ROBERTA = replace(
    _ROBERTA, encoder_class="XLMRobertaModel", classifier_class="XLMRobertaForSequenceClassification"
)
_DISTILBERT = Family(
    encoder_class="DistilBertModel",
    classifier_class="DistilBertForSequenceClassification",
    prefix="distilbert.",
    dimensions={
        "hidden": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "intermediate": "hidden_dim",
    },
    hidden_act="activation",
    tensors={
        "embeddings.words": "embeddings.word_embeddings",
        "embeddings.positions": "embeddings.position_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
        "layer.attention.query": "transformer.layer.{}.attention.q_lin",
        "layer.attention.key": "transformer.layer.{}.attention.k_lin",
        "layer.attention.value": "transformer.layer.{}.attention.v_lin",
        "layer.attention.output": "transformer.layer.{}.attention.out_lin",
        "layer.attention.norm": "transformer.layer.{}.sa_layer_norm",
        "layer.intermediate": "transformer.layer.{}.ffn.lin1",
        "layer.output": "transformer.layer.{}.ffn.lin2",
        "layer.norm": "transformer.layer.{}.output_layer_norm",
    },
    classifier={"head.pooler": "pre_classifier", "head.logits": "classifier"},
    activation="relu",
)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _XLM_ROBERTA,
    "distilbert": _DISTILBERT,
}
"""By config.json's model_type."""

# Relatives that a user may well try, and what this runtime would have to compute for them.
_RELATIVES = {
    "albert": "its layers share one set of weights",
    "deberta": "its positions are relative",
    "deberta-v2": "its positions are relative",
    "electra": "its heads are others",
    "modernbert": "its positions are rotary",
    "mpnet": "its positions are relative",
}


def find_family(model_type: object, path: object) -> Family:
    """The family of a model type.

    Args:
        model_type: as config.json has it; a config that names none is a BERT's.
        path: the file, for the error's sentence.

    Raises:
        UnsupportedModelError: it is none of these families.
    """
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        reason = _RELATIVES.get(str(model_type))
        why = f", and {reason}" if reason else ""
        raise UnsupportedModelError(
            f"{path} has model_type {model_type!r}{why}: only {', '.join((*FAMILIES, 'gpt2'))} are supported."
        )
    return family
