"""The Python interface: a cluster, the models it holds, and what they answer."""

from secformer_rt.api.cluster import Cluster
from secformer_rt.api.model import Model
from secformer_rt.api.planning import Estimate, estimate
from secformer_rt.api.results import Answers, Classification, Costs

__all__ = ["Answers", "Classification", "Cluster", "Costs", "Estimate", "Model", "estimate"]
