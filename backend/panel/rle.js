// COCO's compressed run lengths: background and foreground in turn, columns first.
//
// A mask is used as its intervals: [start, stop, start, stop, ...] of foreground, half-open,
// ascending and apart, counted in pixels column after column (x * height + y).

const MAX_PIXELS = 2 ** 29; // what 32-bit arithmetic holds, signs included

/**
 * The intervals of `counts` as a Uint32Array.
 * Throws RangeError for text that is not a mask of `length` pixels.
 */
export function decode(counts, length) {
  if (!(length >= 0 && length <= MAX_PIXELS)) throw new RangeError(`${length} pixels: too many`);
  const found = new Uint32Array(counts.length + 2);
  let size = 0;
  let place = 0;
  let at = 0;
  let number = 0;
  let before = 0; // the run of the same kind before, two back
  let last = 0;
  while (at < counts.length) {
    let run = 0;
    let shift = 0;
    let group;
    do {
      group = counts.charCodeAt(at++) - 48;
      const isGroup = group >= 0 && group < 64 && shift <= 25;
      if (!isGroup) throw new RangeError("counts: not run lengths");
      run |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16 && shift < 32) run |= -1 << shift;
    if (number > 2) run += before;
    before = last;
    last = run;
    const stop = place + run;
    if (run < 0 || stop > length) throw new RangeError(`counts: more than ${length} pixels`);
    if (number & 1 && run > 0) {
      if (size > 0 && found[size - 1] === place) {
        found[size - 1] = stop; // nothing lies between
      } else {
        found[size++] = place;
        found[size++] = stop;
      }
    }
    place = stop;
    number += 1;
  }
  if (place !== length) throw new RangeError(`counts: ${place} pixels, must be ${length}`);
  return found.slice(0, size);
}

/** The counts of intervals in a mask of `length` pixels. */
export function encode(intervals, length) {
  const runs = [];
  let place = 0;
  for (const edge of intervals) {
    runs.push(edge - place);
    place = edge;
  }
  if (place < length || runs.length === 0) runs.push(length - place);
  let text = "";
  runs.forEach((run, number) => {
    text += groups(number > 2 ? run - runs[number - 2] : run);
  });
  return text;
}

function groups(value) {
  let text = "";
  for (;;) {
    const group = value & 31;
    value >>= 5;
    const isLast = group & 16 ? value === -1 : value === 0;
    text += String.fromCharCode(48 + (isLast ? group : group | 32));
    if (isLast) return text;
  }
}

/** The intervals of ones among `pixels`, a Uint8Array of 0 and 1, columns first. */
export function intervalsOf(pixels) {
  const found = [];
  let start = pixels.indexOf(1);
  while (start >= 0) {
    let stop = pixels.indexOf(0, start);
    if (stop < 0) stop = pixels.length;
    found.push(start, stop);
    start = stop < pixels.length ? pixels.indexOf(1, stop) : -1;
  }
  return Uint32Array.from(found);
}

/** How many pixels. */
export function area(intervals) {
  let sum = 0;
  for (let i = 0; i < intervals.length; i += 2) sum += intervals[i + 1] - intervals[i];
  return sum;
}

/** How many pixels two masks of one size share. */
export function sharedArea(a, b) {
  let sum = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const start = Math.max(a[i], b[j]);
    const stop = Math.min(a[i + 1], b[j + 1]);
    if (stop > start) sum += stop - start;
    if (a[i + 1] < b[j + 1]) i += 2;
    else j += 2;
  }
  return sum;
}

/** Sets the pixels of a typed array, columns first. */
export function fill(pixels, intervals, value) {
  for (let i = 0; i < intervals.length; i += 2) pixels.fill(value, intervals[i], intervals[i + 1]);
}
