// Where a track is doubtful: the rules of backend/preview/doubt.py, here so that marks appear
// while masks arrive. A test compares the two.

const LOW_SCORE = 1.0;
const AREA_FACTOR = 1.5;
const OVERLAP_DROP = 0.25;
const LEAST_OVERLAP = 0.05;
const WINDOW = 12;
const JOIN_GAP = 3;

/**
 * The half-open ranges of frames to look at again: [{start, stop, reasons}].
 *
 * `curve` has one value for each frame from `first` on: `areas` in pixels (0: not visible),
 * `scores` (logits, NaN: none) and `overlaps` (IoU with the frame before, NaN: none).
 */
export function doubtfulStretches({ first, areas, scores, overlaps }) {
  const growth = areas.map((area, i) => (
    i > 0 && area > 0 && areas[i - 1] > 0 ? Math.abs(Math.log(area / areas[i - 1])) : NaN
  ));
  const usualGrowth = usual(growth, 0);
  const usualOverlap = usual(overlaps, 1);
  const stretches = [];
  for (let i = 0; i < areas.length; i += 1) {
    const reasons = [];
    if (scores[i] < LOW_SCORE) reasons.push("low score");
    if (growth[i] - usualGrowth[i] > Math.log(AREA_FACTOR)) reasons.push("area jump");
    if (usualOverlap[i] - overlaps[i] > OVERLAP_DROP || overlaps[i] < LEAST_OVERLAP) {
      reasons.push("overlap jump");
    }
    if (areas[i] === 0) reasons.push("absent");
    if (reasons.length) add(stretches, first + i, reasons);
  }
  return stretches.map(({ start, stop, reasons }) => ({ start, stop, reasons: [...reasons] }));
}

function add(stretches, frame, reasons) {
  const last = stretches.at(-1);
  if (last && frame - last.stop <= JOIN_GAP) {
    last.stop = frame + 1;
    for (const reason of reasons) last.reasons.add(reason);
  } else {
    stretches.push({ start: frame, stop: frame + 1, reasons: new Set(reasons) });
  }
}

/** The median of each value's neighbours, itself and NaN left out; `alone` without any. */
function usual(values, alone) {
  return Array.from(values, (_, i) => {
    const near = [];
    const end = Math.min(values.length, i + WINDOW + 1);
    for (let j = Math.max(0, i - WINDOW); j < end; j += 1) {
      if (j !== i && !Number.isNaN(values[j])) near.push(values[j]);
    }
    if (near.length === 0) return alone;
    near.sort((a, b) => a - b);
    const middle = near.length >> 1;
    return near.length % 2 ? near[middle] : (near[middle - 1] + near[middle]) / 2;
  });
}
