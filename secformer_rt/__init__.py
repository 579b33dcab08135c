"""secformer_rt: ask somebody else's BERT about private text, with neither side showing the other anything."""

__version__ = "0.1.0"
