// What is known of each frame's objects: masks as text, their intervals when they are needed.

import { area, decode, sharedArea } from "./rle.js";

const INTERVAL_BUDGET_BYTES = 64 * 2 ** 20;

export class Masks {
  /** `pixels`: how many a mask has. */
  constructor(pixels) {
    this._pixels = pixels;
    this._frames = new Map(); // frame -> Map of object id -> {counts or null, score}
    this._intervals = new Map(); // counts -> Uint32Array, the least recently used first
    this._bytes = 0;
  }

  clear() {
    this._frames.clear();
  }

  /** Map of object id -> {counts, score}; undefined when nothing is known. */
  frame(index) {
    return this._frames.get(index);
  }

  of(objectId, index) {
    return this._frames.get(index)?.get(objectId);
  }

  /** In place of all that was known of the frame. `objects` as the API gives them. */
  putFrame(index, objects, isKept = () => false) {
    const before = this._frames.get(index);
    const found = new Map();
    for (const [id, { mask, score }] of Object.entries(objects)) {
      if (!isKept(id)) found.set(id, known(mask, score));
    }
    before?.forEach((value, id) => {
      if (isKept(id)) found.set(id, value);
    });
    this._frames.set(index, found);
  }

  put(objectId, index, mask, score) {
    if (!this._frames.has(index)) this._frames.set(index, new Map());
    this._frames.get(index).set(objectId, known(mask, score));
  }

  remove(objectId, index) {
    this._frames.get(index)?.delete(objectId);
  }

  /** The intervals of a mask's counts, kept for the next time. Throws RangeError. */
  intervals(counts) {
    let found = this._intervals.get(counts);
    if (found) {
      this._intervals.delete(counts);
    } else {
      found = decode(counts, this._pixels);
      this._bytes += found.byteLength + counts.length;
    }
    this._intervals.set(counts, found);
    for (const [oldest, value] of this._intervals) {
      if (this._bytes <= INTERVAL_BUDGET_BYTES) break;
      this._intervals.delete(oldest);
      this._bytes -= value.byteLength + oldest.length;
    }
    return found;
  }

  /** The frames on which an object is known, ascending. */
  framesOf(objectId) {
    const found = [];
    for (const [index, objects] of this._frames) if (objects.has(objectId)) found.push(index);
    return found.sort((a, b) => a - b);
  }

  get knownFrames() {
    return [...this._frames].filter(([, objects]) => objects.size > 0).map(([index]) => index);
  }
}

function known(mask, score) {
  return { counts: mask?.counts ?? null, score };
}

/**
 * An object's course, one value a frame from its first known frame to its last; null without
 * any. Areas and overlaps are kept in `memory` (a Map of the caller's) from call to call.
 */
export function courseOf(masks, objectId, memory) {
  const frames = masks.framesOf(objectId);
  if (frames.length === 0) return null;
  const first = frames[0];
  const count = frames.at(-1) - first + 1;
  const areas = new Array(count).fill(0);
  const scores = new Array(count).fill(NaN);
  const overlaps = new Array(count).fill(NaN);
  let before = null;
  for (let i = 0; i < count; i += 1) {
    const entry = masks.of(objectId, first + i);
    scores[i] = entry?.score ?? NaN;
    const counts = entry?.counts ?? null;
    const measured = counts === null ? null : measure(masks, counts, before, first + i, memory);
    areas[i] = measured?.area ?? 0;
    if (measured !== null && before !== null) overlaps[i] = measured.overlap;
    before = areas[i] > 0 ? counts : null;
  }
  return { first, areas, scores, overlaps };
}

function measure(masks, counts, before, index, memory) {
  const old = memory.get(index);
  if (old && old.counts === counts && old.before === before) return old;
  const intervals = masks.intervals(counts);
  const size = area(intervals);
  let overlap = NaN;
  if (before !== null) {
    const others = masks.intervals(before);
    const shared = sharedArea(intervals, others);
    overlap = shared / (size + area(others) - shared);
  }
  const found = { counts, before, area: size, overlap };
  memory.set(index, found);
  return found;
}
