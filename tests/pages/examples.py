"""What commands print as JSON, small, to make pages of."""

from __future__ import annotations

from typing import Any

from secformer_rt.emulation.hosts import LINKS
from secformer_rt.pages.inference_page import inference_page
from secformer_rt.pages.network_page import network_page
from secformer_rt.pages.ops_page import ops_page
from secformer_rt.pages.parts import Page
from secformer_rt.pages.plan_page import plan_page
from secformer_rt.pages.run_page import run_page
from secformer_rt.scheduler.predict import Machine, Work

WORK = Work(
    rounds=100,
    correlations=9,
    opened_bytes=2_000_000,
    dealt_bytes=5_000_000,
    link_bytes=3_000_000,
    online_macs=1,
    offline_macs=1,
    dealer_macs=1,
)
PAYLOAD = dict(zip(LINKS, (33_150_118, 28_449_136, 28_676_322, 6_144, 4_889_984), strict=True))
COSTS = (
    ("embeddings", "embedding", 2, 9_767_680, 0.11),
    ("layer.0", "gelu", 8, 1_397_760, 0.3),
    ("layer.0", "layernorm", 28, 755_126, 0.5),
    ("layer.1", "layernorm", 30, 1_000_000, 0.09),
)


def run_summary(**changes: Any) -> dict[str, Any]:
    costs = [dict(zip(("layer", "op", "rounds", "bytes", "seconds"), cost, strict=True)) for cost in COSTS]
    return {
        "model": "all-MiniLM-L6-v2",
        "preset": "exact",
        "embedding": "private",
        "insecure": False,
        "tokens": [12, 8],
        "fidelity": {
            "cosine_min": 0.9999997,
            "max_abs_error_vs_oracle": 1.5e-4,
            "max_abs_error_vs_model": 1.4e-4,
        },
        "rounds": 449,
        "planned_rounds": 449,
        "bytes": {
            **{link: {"payload": size, "wire": size + 9} for link, size in PAYLOAD.items()},
            "planned_payload": dict(PAYLOAD),
        },
        "provision_bytes": {
            "server0_server1": {"payload": 357_488_640, "wire": 357_497_188},
            "client_server1": {"payload": 180_523_008, "wire": 180_536_385},
        },
        "dealer_words": 7_140_682,
        "seconds": {"provision": 3.0, "offline": 1.12, "online": 0.98, "total": 26.0},
        "parties": [
            {"role": "dealer", "pid": 1, "peak_rss_bytes": 728_272_896},
            {"role": "server0", "pid": 2, "peak_rss_bytes": 962_695_168},
        ],
        "operations": costs,
        **changes,
    }


def plan_summary(preset: str = "exact", rounds: int = 427, exchanged: int = 751_000_000) -> dict[str, Any]:
    seconds = {"lan": {"offline": 17.2, "online": 10.3, "total": 27.5}}
    return {
        "model": "bert-base",
        "preset": preset,
        "embedding": "private",
        "tokens": [128],
        "rounds": rounds,
        "bytes": {link: {"payload": exchanged if link == "server0_server1" else 5_000_000} for link in LINKS},
        "dealer_words": 1_250_000,
        "peak_rss_bytes": 4_460_000_000,
        "seconds": {**seconds, "wan": {"offline": 46.0, "online": 30.7, "total": 76.7}},
        "operations": [
            {"layer": "layer.0", "op": op, "rounds": 9, "bytes": exchanged // 2, "dealer_bytes": 5_000_000}
            for op in ("gelu", "softmax")
        ],
    }


def profile(
    rtt_ms: float | None, mbit: float | None, online: float, predicted: float | None
) -> dict[str, Any]:
    warm = {"offline": [1.0, 3.0, 2.0], "online": [online, online - 1, online + 1], "total": [6.0, 5.5, 12.0]}
    prediction = None if predicted is None else {"offline": 1.9, "online": predicted}
    return {
        "nominal": {"rtt_ms": rtt_ms, "mbit": mbit},
        "links": {link: {"rtt_ms": rtt_ms, "mbit": mbit} for link in LINKS},
        "rounds": 226,
        "provision": 3.0,
        "cold": {"offline": 2.5, "online": online + 2, "total": 13.0},
        "warm": {
            **warm,
            "median": {"offline": 2.0, "online": online, "total": 6.0},
            "spread": {phase: [min(runs), max(runs)] for phase, runs in warm.items()},
        },
        "predicted": {"nominal": prediction, "measured": prediction},
        "ratio": {
            "offline": predicted and 2.0 / 1.9,
            "online": predicted and online / predicted,
        },
    }


def network_summary(**profiles: dict[str, Any]) -> dict[str, Any]:
    machine = {"cores": 2, "cpu": "a processor", "congestion_control": "bbr"}
    return {"machine": machine, "profiles": profiles}


def ops_summary() -> dict[str, Any]:
    return {
        "machine": {"cores": 2, "cpu": "a processor"},
        "results": [
            {
                "op": op,
                "preset": preset,
                "rows": rows,
                "columns": 8,
                "rounds": 4,
                "planned_rounds": 4,
                "bytes": dict.fromkeys(LINKS, 1500),
                "dealer_words": 375,
                "seconds": {"offline": [0.5], "online": [0.25, 0.01 * rows, 0.75]},
                "error_vs_exact": 0.0 if op == "relu" else 1e-3 / rows,
                "error_vs_oracle": 0.0,
            }
            for op in ("gelu", "relu")
            for preset in ("exact", "puma")
            for rows in (4, 60)
        ],
    }


def inference_summary(**changes: Any) -> dict[str, Any]:
    kinds = ("matmul", "elementwise", "prg", "packing", "send", "receive", "rest")
    macs = {"32 bits": 10_000_000_000, "64 bits": 3_000_000_000}
    return {
        "model": "bert-base",
        "preset": "swift",
        "insecure": False,
        "tokens": 128,
        "batch": 1,
        "rounds": 100,
        "planned_rounds": 100,
        "bytes": {
            **{link: {"payload": size, "wire": size + 9} for link, size in PAYLOAD.items()},
            "planned_payload": dict(PAYLOAD),
        },
        "dealer_bytes": 57_125_458,
        "prepared": 0,
        "provision_seconds": 9.0,
        "seconds": {
            "offline": [4.0, 5.0, 3.0],
            "online": [2.0, 2.5, 2.25],
            "total": [7.0, 8.0, 6.0],
            "plaintext": [0.125, 0.1, 0.15],
        },
        "cosine_min": 0.9999991,
        "ratio_to_plaintext": 18.0,
        "total_ratio_to_plaintext": 56.0,
        "profile": {
            "offline": dict.fromkeys(kinds, 0.5),
            "online": {**dict.fromkeys(kinds, 0.25), "matmul": 0.5},
        },
        "roofline": {
            "macs": dict.fromkeys(("online", "offline", "dealer"), macs),
            "gmac_per_s": {"32 bits": 20.0, "64 bits": 10.0},
            "product_seconds": dict.fromkeys(("online", "offline", "dealer"), 0.8),
            "rtt_ms": 0.5,
            "mbit": 8000.0,
            "seconds": {
                "products": 0.8,
                "elementwise": 0.3,
                "bytes": 0.02,
                "rounds": 0.025,
                "total": 1.145,
            },
        },
        "ratio_to_roofline": 1.97,
        "ratio_to_roofline_least": 1.75,
        "ratio_to_roofline_without_elementwise": 2.66,
        "throughput": {"in_flight": 4, "seconds": 20.0, "at_once_per_s": 0.2, "one_at_a_time_per_s": 0.14},
        "growth": [
            {
                "tokens": tokens,
                "batch": batch,
                "rounds": 100,
                "server_bytes": 1_000_000 * tokens,
                "dealer_bytes": 2_000_000 * tokens,
                "seconds": {"offline": 0.02 * tokens, "online": 0.01 * tokens, "total": 0.04 * tokens},
                "predicted": {"offline": 0.02 * tokens, "online": 0.02 * tokens},
            }
            for tokens, batch in ((16, 1), (128, 1), (16, 4))
        ],
        "machine": {"cores": 2, "cpu": "a processor"},
        **changes,
    }


def emulated() -> Page:
    found = network_summary(loopback=profile(0.05, None, 1.5, 1.5), wan=profile(40.0, 200.0, 5.8, 5.6))
    return network_page(found, model="all-MiniLM-L6-v2", preset="exact", asked="1 text")


def compared() -> Page:
    plans = [plan_summary(), plan_summary("mpcformer", 441, 582_000_000)]
    return plan_page(plans, [WORK, WORK], Machine())


PAGES = {
    "run": lambda: run_page(run_summary()),
    "plan": lambda: plan_page([plan_summary()], [WORK], Machine()),
    "plans": compared,
    "network": emulated,
    "ops": lambda: ops_page(ops_summary()),
    "inference": lambda: inference_page(inference_summary()),
}
