"""Encoders and decoders behind one set of functions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secformer_rt.errors import BadConfigError, UnsupportedModelError
from secformer_rt.graph.architecture import (
    SYNTHETIC_NAMES,
    Architecture,
    synthetic_architecture,
    synthetic_parameters,
)
from secformer_rt.graph.batch import Batch
from secformer_rt.graph.bert import Embedding, build_bert, client_inputs
from secformer_rt.graph.decoder import (
    DECODER_NAMES,
    Decoder,
    synthetic_decoder,
    synthetic_decoder_parameters,
)
from secformer_rt.graph.gpt2 import build_decoder, decoder_inputs
from secformer_rt.graph.ir import Graph

Transformer = Architecture | Decoder


def build_graph(arch: Transformer, batch: int, tokens: int, *, masked: bool, embedding: Embedding) -> Graph:
    """See :func:`build_bert` and :func:`build_decoder`."""
    if isinstance(arch, Decoder):
        return build_decoder(arch, batch, tokens, masked=masked, embedding=embedding)
    return build_bert(arch, batch, tokens, masked=masked, embedding=embedding)


def batch_inputs(
    arch: Transformer, embedding: Embedding, batch: Batch, tables: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The plaintext inputs of a batch: see :func:`client_inputs` and :func:`decoder_inputs`."""
    ids, lengths, masked = batch.token_ids, batch.lengths, batch.padded
    if isinstance(arch, Decoder):
        return decoder_inputs(arch, embedding, ids, lengths, masked, tables)
    return client_inputs(arch, embedding, ids, batch.type_ids, lengths, masked, tables)


def synthetic_model(name: str) -> Transformer:
    """The dimensions of a published model.

    Raises:
        BadConfigError: there is no such name.
    """
    if name in DECODER_NAMES:
        return synthetic_decoder(name)
    if name not in SYNTHETIC_NAMES:
        known = ", ".join((*SYNTHETIC_NAMES, *DECODER_NAMES))
        raise BadConfigError(f"There is no architecture {name!r}: choose one of {known}.")
    return synthetic_architecture(name)


def random_parameters(arch: Transformer) -> dict[str, Tensor]:
    """Random float32 parameters, for runs where only shapes and costs matter."""
    if isinstance(arch, Decoder):
        return synthetic_decoder_parameters(arch)
    return synthetic_parameters(arch)


def predicts_tokens(arch: object) -> bool:
    """Whether a model's answers are logits of the token that may follow."""
    return isinstance(arch, Decoder) and arch.head == "next"


def as_encoder(arch: Transformer, name: str, what: str) -> Architecture:
    """An encoder's dimensions, for what is made for encoders only.

    Args:
        arch: any model's.
        name: the model's, for the error's sentence.
        what: what is asked of it, as in "distill".

    Raises:
        UnsupportedModelError: it is a decoder.
    """
    if isinstance(arch, Decoder):
        raise UnsupportedModelError(
            f"{name} is a decoder, and {what} serves encoders only: use run, provision, infer or plan."
        )
    return arch
