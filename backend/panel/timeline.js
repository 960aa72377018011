// All frames in a row: which are tracked, marked and doubtful, and which one is shown.

import { toHex } from "./colours.js";
import { cleared, part } from "./dom.js";

const TRACK_TOP = 20;
const TRACK_HEIGHT = 9;
const MARK_SIZE = 4.5;
const LEAP = 10;

export class Timeline {
  /** `onSeek(frame)`; `count`: of frames. */
  constructor({ count }, onSeek) {
    this._count = count;
    this._onSeek = onSeek;
    this._root = part("timeline");
    this._root.setAttribute("aria-valuemax", count);
    this._ending = new AbortController();
    const { signal } = this._ending;
    this._root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this._root.setPointerCapture(event.pointerId);
      this._isDragging = true;
      this._seekTo(event);
    }, { signal });
    this._root.addEventListener("pointermove", (event) => {
      if (this._isDragging) this._seekTo(event);
      this._root.title = `Frame ${this._frameAt(event) + 1}`;
    }, { signal });
    for (const type of ["pointerup", "pointercancel"]) {
      this._root.addEventListener(type, () => { this._isDragging = false; }, { signal });
    }
    this._root.addEventListener("keydown", (event) => this._key(event), { signal });
  }

  close() {
    this._ending.abort();
  }

  /** The shown frame, and when it comes. */
  move(frame, seconds) {
    const share = (frame + 0.5) / this._count;
    part("playhead").style.left = `${100 * share}%`;
    this._frame = frame;
    this._root.setAttribute("aria-valuenow", frame + 1);
    this._root.setAttribute(
      "aria-valuetext", `frame ${frame + 1} of ${this._count}, ${seconds.toFixed(2)} seconds`,
    );
  }

  /**
   * `tracked`: frames whose masks are known. `objects`: [{colour, promptedFrames, stretches}],
   * the selected one last.
   */
  draw({ tracked, objects }) {
    const { context, width } = cleared(part("timeline-canvas"));
    const each = width / this._count;
    const x = (frame) => frame * each;
    context.fillStyle = "#2a3140";
    context.fillRect(0, TRACK_TOP, width, TRACK_HEIGHT);
    context.fillStyle = "#5b7ea8";
    for (const frame of tracked) {
      context.fillRect(x(frame), TRACK_TOP, Math.max(1, Math.ceil(each)), TRACK_HEIGHT);
    }
    context.fillStyle = "#f2b84b";
    for (const { start, stop } of objects.flatMap(({ stretches }) => stretches)) {
      context.fillRect(x(start), TRACK_TOP + TRACK_HEIGHT, Math.max(2, x(stop) - x(start)), 4);
    }
    for (const { colour, promptedFrames } of objects) {
      for (const frame of promptedFrames) this._drawMark(context, x(frame + 0.5), toHex(colour));
    }
    this._drawTicks(context, x);
  }

  _drawMark(context, x, colour) {
    const y = TRACK_TOP - MARK_SIZE - 2;
    context.beginPath();
    context.moveTo(x, y - MARK_SIZE);
    context.lineTo(x + MARK_SIZE, y);
    context.lineTo(x, y + MARK_SIZE);
    context.lineTo(x - MARK_SIZE, y);
    context.closePath();
    context.fillStyle = colour;
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = 1;
    context.stroke();
  }

  _drawTicks(context, x) {
    const least = 56; // pixels, for a number
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000];
    const step = steps.find((size) => x(size) >= least) ?? steps.at(-1);
    context.fillStyle = "#a9b3c2";
    context.font = "10px system-ui, sans-serif";
    for (let frame = 0; frame < this._count; frame += step) {
      const number = frame === 0 ? 1 : frame;
      const left = x(number - 0.5);
      context.fillRect(left, TRACK_TOP + TRACK_HEIGHT + 4, 1, 3);
      context.fillText(number, Math.max(0, left + 3), TRACK_TOP + TRACK_HEIGHT + 13);
    }
  }

  _frameAt(event) {
    const box = this._root.getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left) / box.width) * this._count);
    return Math.max(0, Math.min(this._count - 1, place));
  }

  _seekTo(event) {
    this._onSeek(this._frameAt(event));
  }

  _key(event) {
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: LEAP, PageDown: -LEAP }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this._onSeek(Math.max(0, Math.min(this._count - 1, this._frame + by)));
  }
}
