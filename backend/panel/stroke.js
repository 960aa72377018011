// A mask that is being painted or erased.

import { fill, intervalsOf } from "./rle.js";

export class Stroke {
  /** `intervals`: the mask to begin with. `value`: 1 paints, 0 erases. */
  constructor({ width, height }, intervals, value) {
    this._width = width;
    this._height = height;
    this._value = value;
    this._pixels = new Uint8Array(width * height); // columns first, as masks are
    fill(this._pixels, intervals, 1);
  }

  /** A round brush from one point of the video to another, both included. */
  line(from, to, radius) {
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const steps = Math.max(1, Math.ceil(length / Math.max(1, radius / 3)));
    for (let step = 0; step <= steps; step += 1) {
      const share = step / steps;
      this._dab(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius);
    }
  }

  get intervals() {
    return intervalsOf(this._pixels);
  }

  _dab(x, y, radius) {
    const first = Math.max(0, Math.ceil(x - radius - 0.5));
    const last = Math.min(this._width - 1, Math.floor(x + radius - 0.5));
    for (let column = first; column <= last; column += 1) {
      const across = column + 0.5 - x;
      const half = Math.sqrt(Math.max(0, radius * radius - across * across));
      const top = Math.max(0, Math.round(y - half));
      const bottom = Math.min(this._height, Math.round(y + half));
      if (bottom > top) {
        const start = column * this._height;
        this._pixels.fill(this._value, start + top, start + bottom);
      }
    }
  }
}
