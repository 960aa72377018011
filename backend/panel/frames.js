// The video's frames as bitmaps: fetched ahead of what is shown, kept within a budget.

const BUDGET_BYTES = 320 * 2 ** 20;
const AT_ONCE = 3; // a browser has six connections to a host; clicks need some
const AHEAD_PLAYING = 48;
const AHEAD_STILL = 6;
const BEHIND = 3;

export class Frames {
  /**
   * `load(index, width, signal)` gives an ImageBitmap.
   * `onFrame(index)`: one has come. `onError(error)`: one cannot be had.
   */
  constructor(count, size, load, { onFrame, onError }) {
    this._count = count;
    this._size = size;
    this._load = load;
    this._onFrame = onFrame;
    this._onError = onError;
    this._bitmaps = new Map(); // index -> {bitmap, width}
    this._loading = new Map(); // index -> AbortController
    this._failed = new Set();
    this._wanted = [];
    this._width = size.width;
  }

  /** The best picture of a frame that is here; undefined without any. */
  get(index) {
    return this._bitmaps.get(index)?.bitmap;
  }

  /** Whether waiting for the frame makes sense. */
  isComing(index) {
    return !this._failed.has(index);
  }

  /** How wide pictures have to be; those that are here are replaced when they are asked for. */
  setWidth(width) {
    if (width === this._width) return;
    this._width = width;
    this._abort(() => true);
  }

  /** Look at a frame: it is fetched first, then those that come next. */
  want(index, { isPlaying = false } = {}) {
    if (!isPlaying && index !== this._wanted[0]) this._failed.delete(index); // asked for again
    const room = Math.max(8, Math.floor(BUDGET_BYTES / this._bytesEach()) - BEHIND - 2);
    const ahead = Math.min(isPlaying ? AHEAD_PLAYING : AHEAD_STILL, room);
    const wanted = [index];
    for (let step = 1; step <= ahead; step += 1) wanted.push(index + step);
    for (let step = 1; step <= BEHIND; step += 1) wanted.push(index - step);
    this._wanted = wanted.filter((i) => i >= 0 && i < this._count);
    const near = new Set(this._wanted);
    this._abort((i) => !near.has(i));
    this._fetchNext();
  }

  close() {
    this._wanted = [];
    this._abort(() => true);
    this._bitmaps.forEach(({ bitmap }) => bitmap.close());
    this._bitmaps.clear();
  }

  _bytesEach() {
    const height = Math.ceil((this._width * this._size.height) / this._size.width);
    return 4 * this._width * height;
  }

  _abort(isUnwanted) {
    for (const [index, controller] of this._loading) {
      if (!isUnwanted(index)) continue;
      controller.abort();
      this._loading.delete(index);
    }
  }

  _isMissing(index) {
    const there = this._bitmaps.get(index);
    return !this._loading.has(index) && !this._failed.has(index) && there?.width !== this._width;
  }

  _fetchNext() {
    while (this._loading.size < AT_ONCE) {
      const index = this._wanted.find((i) => this._isMissing(i));
      if (index === undefined) return;
      this._fetch(index);
    }
  }

  async _fetch(index) {
    const controller = new AbortController();
    this._loading.set(index, controller);
    const width = this._width;
    try {
      const bitmap = await this._load(index, width, controller.signal);
      if (controller.signal.aborted) {
        bitmap.close();
        return;
      }
      this._keep(index, bitmap, width);
      this._onFrame(index);
    } catch (error) {
      if (controller.signal.aborted) return;
      this._failed.add(index);
      this._onError(error);
    } finally {
      if (this._loading.get(index) === controller) this._loading.delete(index);
      this._fetchNext();
    }
  }

  _keep(index, bitmap, width) {
    this._bitmaps.get(index)?.bitmap.close();
    this._bitmaps.set(index, { bitmap, width });
    const centre = this._wanted[0] ?? index;
    const near = new Set(this._wanted);
    const limit = Math.floor(BUDGET_BYTES / this._bytesEach());
    const far = [...this._bitmaps.keys()]
      .filter((i) => !near.has(i))
      .sort((a, b) => Math.abs(b - centre) - Math.abs(a - centre));
    while (this._bitmaps.size > limit && far.length) {
      const gone = far.shift();
      this._bitmaps.get(gone).bitmap.close();
      this._bitmaps.delete(gone);
    }
  }
}
