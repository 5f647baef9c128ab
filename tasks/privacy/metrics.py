"""Metrics of the audit, and the sentence in which it says what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dbtbench.metric import Metric, number

from .planting import KINDS, LESION_KINDS, LESION_KINDS_NEEDED, MOVED

FIRST, SECOND = 0.01, 0.05
"""Shares of real test volumes above the two thresholds; the first one decides."""
NEEDED_MOVED, NEEDED_CHANGED = 0.95, 0.80
"""Shares of planted copies that must be found before anything is said."""
LEVEL = 0.05
DERIVED = "derived from training volumes by construction"
VOLUMES, LESIONS = "of volumes", "of lesions"


def needed_recall(kind: str) -> float:
    """Give the share of planted copies of a kind that must be found; 0 for one that is only measured."""
    if kind in LESION_KINDS and kind not in LESION_KINDS_NEEDED:
        return 0.0
    return NEEDED_MOVED if kind in MOVED else NEEDED_CHANGED


def judge(scores: Mapping[str, float], derived: bool | None) -> str:
    """Say what the scores of an arm mean.

    Args:
        scores: by metric; NaN where one is not defined.
        derived: whether its synthetic volumes are changed training volumes; None for not known, or real ones.
    """
    scores = {metric.name: math.nan for metric in METRICS} | dict(scores)
    said = [DERIVED] if derived else []
    said.append(_judge_copies("copies", scores))
    if math.isfinite(scores["lesion_threshold"]):
        said.append(_judge_copies("lesion_copies", scores))
    if math.isfinite(scores["membership_auc"]):
        said.append(_judge_membership(scores))
    return "; ".join(said)


def _judge_copies(name: str, scores: Mapping[str, float]) -> str:
    """Say whether more is flagged than of as many real ones would be, and which planted copies were found.

    Args:
        name: `copies` for volumes, `lesion_copies` for lesions.
        scores: by metric.
    """
    prefix = name.removesuffix("copies")
    what, kinds = ("lesions", LESION_KINDS) if prefix else ("copies", tuple(KINDS))
    recall = {kind: scores[f"{prefix}recall_{kind}"] for kind in kinds}
    found = f"planted {what} found: " + ", ".join(f"{_words(k)} {_percent(v)}" for k, v in recall.items())
    if not all(value >= needed_recall(kind) for kind, value in recall.items()):
        return f"{what}: cannot tell ({found})"
    if not math.isfinite(scores[name]):
        return f"{what}: {'none' if prefix else 'no volumes'} to audit ({found})"
    share, low, high = (100 * scores[key] for key in (name, f"{name}_low", f"{name}_high"))
    p = scores[f"{name}_p"]
    if p <= LEVEL:
        verdict = f"more than of real ones (p {'< 0.001' if p < 0.001 else f'{p:.2g}'})"
    else:
        verdict = "no more than of real ones, which proves no privacy"
    return f"{what}: {share:.1f} % flagged [{low:.1f}, {high:.1f}], {verdict} ({found})"


def _judge_membership(scores: Mapping[str, float]) -> str:
    auc, low, high = (scores[f"membership_auc{end}"] for end in ("", "_low", "_high"))
    said = f"membership: AUC {number(auc)} [{number(low)}, {number(high)}]"
    return f"{said}, training patients can be recognised" if low > 0.5 else said


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def _share(name: str, title: str, unit: str, headline: bool = False) -> tuple[Metric, ...]:
    """Declare a share with its interval and the p-value of more than among real ones."""
    return (
        Metric(
            name,
            title,
            "lower",
            unit,
            headline=headline,
            judge=judge if name == "copies" else None,
            criterion="compliance",
        ),
        Metric(f"{name}_low", f"{title}, lower end", "lower", unit),
        Metric(f"{name}_high", f"{title}, upper end", "lower", unit),
        Metric(f"{name}_p", f"{title}, p of as many real ones", "higher"),
    )


METRICS = (
    *_share("copies", "flagged as copies", VOLUMES, headline=True),
    Metric("copies_at_5", "flagged at the threshold of 5 %", "lower", VOLUMES),
    Metric("similarity", "similarity to the nearest training volume", "target"),
    Metric("threshold", "threshold of similarity", "target"),
    Metric("nn_ratio", "nearest-neighbour distance ratio", "target", headline=True, criterion="compliance"),
    Metric("authenticity", "authenticity", "target", VOLUMES, headline=True, criterion="compliance"),
    *(Metric(f"recall_{kind}", f"planted: {_words(kind)}", "higher", "found") for kind in KINDS),
    *_share("lesion_copies", "lesions flagged as copies", LESIONS, headline=True),
    Metric("lesion_similarity", "similarity to the nearest training lesion", "target"),
    Metric("lesion_threshold", "threshold of similarity of lesions", "target"),
    Metric("lesion_nn_ratio", "nearest-neighbour distance ratio of lesions", "target"),
    Metric("lesion_authenticity", "authenticity of lesions", "target", LESIONS),
    *(
        Metric(f"lesion_recall_{kind}", f"planted lesions: {_words(kind)}", "higher", "found")
        for kind in LESION_KINDS
    ),
    Metric(
        "membership_auc",
        "membership inference AUC",
        "lower",
        headline=True,
        criterion="compliance",
        version=2,
    ),
    Metric("membership_auc_low", "membership inference AUC, lower end", "lower", version=2),
    Metric("membership_auc_high", "membership inference AUC, upper end", "lower", version=2),
    Metric("membership_tpr", "members found at 1 % false positives", "lower", "of volumes", version=2),
    Metric("membership_tpr_low", "members found, lower end", "lower", "of volumes", version=2),
    Metric("membership_tpr_high", "members found, upper end", "lower", "of volumes", version=2),
)
"""`copies` is the primary metric."""
