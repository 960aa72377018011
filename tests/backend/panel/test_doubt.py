"""The page marks the same stretches as the previews."""

from __future__ import annotations

import numpy as np

from backend.preview.doubt import TrackCurve, doubtful_stretches
from tests.backend.panel.node import needs_node, run

pytestmark = needs_node


def curves():
    random = np.random.default_rng(8)
    for count in [1, 2, 3, *random.integers(4, 120, 60)]:
        areas = (2000 * np.exp(np.cumsum(random.normal(0, 0.12, count)))).astype(np.int64)
        areas[random.random(count) < 0.06] = 0
        areas[random.random(count) < 0.05] *= 3
        scores = random.normal(4, 2, count)
        scores[random.random(count) < 0.1] = np.nan
        overlaps = np.clip(random.normal(0.85, 0.15, count), 0, 1)
        unseen = areas == 0
        overlaps[unseen | np.roll(unseen, 1)] = np.nan
        overlaps[0] = np.nan
        first = int(random.integers(0, 50))
        yield TrackCurve(np.arange(first, first + count), areas, scores, overlaps)


def test_the_rules_are_those_of_the_previews(tmp_path):
    every = list(curves())

    def numbers(values):
        return [None if np.isnan(value) else float(value) for value in values]

    given = [
        {
            "first": int(curve.frame_indices[0]), "areas": curve.areas.tolist(),
            "scores": numbers(curve.scores), "overlaps": numbers(curve.overlaps),
        }
        for curve in every
    ]
    script = """
        const { doubtfulStretches } = await load("doubt.js");
        const whole = (values) => values.map((value) => value ?? NaN);
        return given.map((curve) => doubtfulStretches({
            ...curve, scores: whole(curve.scores), overlaps: whole(curve.overlaps),
        }));
    """
    found = run(script, given, tmp_path)
    for curve, stretches in zip(every, found):
        expected = [(s.start, s.stop, set(map(str, s.reasons))) for s in doubtful_stretches(curve)]
        assert [(s["start"], s["stop"], set(s["reasons"])) for s in stretches] == expected
    assert sum(map(len, found)) > 100
