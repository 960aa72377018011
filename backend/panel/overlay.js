// Masks of a frame as one picture over it.
//
// Its pixels lie as the masks do, column after column, so that a run is one fill of
// neighbouring pixels; the canvas is drawn with x and y exchanged.

import { fill } from "./rle.js";

const FILL_ALPHA = 105;
const SELECTED_ALPHA = 150;
const EDGE_ALPHA = 255;

export class MaskOverlay {
  /** `width` and `height`: of the video, in pixels. */
  constructor(width, height) {
    this._height = height;
    this._canvas = new OffscreenCanvas(height, width);
    this._context = this._canvas.getContext("2d");
    this._image = new ImageData(height, width);
    this._pixels = new Uint32Array(this._image.data.buffer);
    this._painted = [0, 0];
  }

  /**
   * Replaces the picture.
   *
   * `layers`, the lowest first: [{intervals, colour: [r, g, b], isSelected}].
   * `edge`: how thick outlines are, in pixels of the video; 0 for none.
   */
  paint(layers, edge) {
    const before = this._painted;
    this._pixels.fill(0, ...before);
    let start = this._pixels.length;
    let stop = 0;
    for (const { intervals, colour, isSelected } of layers) {
      if (intervals.length === 0) continue;
      fill(this._pixels, intervals, packed(colour, isSelected ? SELECTED_ALPHA : FILL_ALPHA));
      if (edge > 0) {
        const thickness = isSelected ? 2 * edge : edge;
        outline(this._pixels, intervals, this._height, thickness, packed(colour, EDGE_ALPHA));
      }
      start = Math.min(start, intervals[0]);
      stop = Math.max(stop, intervals.at(-1));
    }
    this._painted = stop > start ? [start, stop] : [0, 0];
    this._put([before, this._painted].filter(([from, to]) => to > from));
  }

  /** What lies in one of the ranges of pixels, to the canvas. */
  _put(ranges) {
    if (ranges.length === 0) return;
    const start = Math.min(...ranges.map(([from]) => from));
    const stop = Math.max(...ranges.map(([, to]) => to));
    const top = Math.floor(start / this._height);
    const rows = Math.ceil(stop / this._height) - top;
    this._context.putImageData(this._image, 0, 0, 0, top, this._height, rows);
  }

  /** Draws it on a context whose unit is a pixel of the video. */
  draw(context) {
    context.save();
    context.transform(0, 1, 1, 0, 0, 0);
    context.drawImage(this._canvas, 0, 0);
    context.restore();
  }
}

/** A pixel of an ImageData as a little-endian number. */
function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Paints the border pixels of a mask, on the inside. */
export function outline(pixels, intervals, height, thickness, value) {
  for (let i = 0; i < intervals.length; i += 2) {
    const start = intervals[i];
    const stop = intervals[i + 1];
    pixels.fill(value, start, Math.min(stop, start + thickness));
    pixels.fill(value, Math.max(start, stop - thickness), stop);
  }
  fillUncovered(pixels, intervals, thickness * height, value);
  fillUncovered(pixels, intervals, -thickness * height, value);
}

/** The pixels of the mask that the mask itself, moved by `shift`, does not cover. */
function fillUncovered(pixels, intervals, shift, value) {
  let cover = 0;
  for (let i = 0; i < intervals.length; i += 2) {
    let place = intervals[i];
    const stop = intervals[i + 1];
    while (cover < intervals.length && intervals[cover + 1] + shift <= place) cover += 2;
    for (let j = cover; place < stop; j += 2) {
      const from = j < intervals.length ? Math.max(place, intervals[j] + shift) : stop;
      if (from > place) pixels.fill(value, place, Math.min(from, stop));
      if (j >= intervals.length) break;
      place = Math.max(place, intervals[j + 1] + shift);
    }
  }
}
