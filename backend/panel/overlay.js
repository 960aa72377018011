// Masks of a frame as one picture over it.
//
// They are painted as they lie, column after column, so that a run is one fill of neighbouring
// numbers; those become colours, row after row, as a canvas has them: drawing a canvas with x
// and y exchanged takes a browser without a GPU ten times as long.

import { fill } from "./rle.js";

const FILL_ALPHA = 105;
const SELECTED_ALPHA = 150;
const EDGE_ALPHA = 255;
const BLOCK = 32; // columns that are turned together, so that reads and writes stay near

export class MaskOverlay {
  /** `width` and `height`: of the video, in pixels. */
  constructor(width, height) {
    this._size = { width, height };
    this._canvas = new OffscreenCanvas(width, height);
    this._context = this._canvas.getContext("2d");
    this._image = new ImageData(width, height);
    this._pixels = new Uint32Array(this._image.data.buffer);
    this._numbers = new Uint16Array(width * height);
    this._painted = [0, 0];
  }

  /**
   * Replaces the picture.
   *
   * `layers`, the lowest first: [{intervals, colour: [r, g, b], isSelected}].
   * `edge`: how thick outlines are, in pixels of the video; 0 for none.
   */
  paint(layers, edge) {
    const { width, height } = this._size;
    const palette = [0];
    const seen = layers.filter(({ intervals }) => intervals.length > 0);
    const before = this._painted;
    this._numbers.fill(0, before[0] * height, before[1] * height);
    for (const { intervals, colour, isSelected } of seen) {
      palette.push(packed(colour, isSelected ? SELECTED_ALPHA : FILL_ALPHA));
      fill(this._numbers, intervals, palette.length - 1);
      if (edge === 0) continue;
      palette.push(packed(colour, EDGE_ALPHA));
      const thickness = isSelected ? 2 * edge : edge;
      outline(this._numbers, intervals, height, thickness, palette.length - 1);
    }
    const first = Math.min(width, ...seen.map(({ intervals }) => intervals[0] / height));
    const last = Math.max(0, ...seen.map(({ intervals }) => intervals.at(-1) / height));
    this._painted = seen.length ? [Math.floor(first), Math.ceil(last)] : [0, 0];
    this._put(palette, [before, this._painted].filter(([from, to]) => to > from));
  }

  /** What lies in one of the ranges of columns, to the canvas. */
  _put(palette, ranges) {
    if (ranges.length === 0) return;
    const { height } = this._size;
    const from = Math.min(...ranges.map(([first]) => first));
    const to = Math.max(...ranges.map(([, last]) => last));
    colourColumns(this._pixels, this._numbers, this._size, Uint32Array.from(palette), from, to);
    this._context.putImageData(this._image, 0, 0, from, 0, to - from, height);
  }

  /** Draws it on a context whose unit is a pixel of the video. */
  draw(context) {
    context.drawImage(this._canvas, 0, 0);
  }
}

/**
 * The columns [from, to) of `pixels`, row after row, from the `numbers` of colours in `palette`,
 * column after column.
 */
export function colourColumns(pixels, numbers, { width, height }, palette, from, to) {
  for (let left = from; left < to; left += BLOCK) {
    const right = Math.min(to, left + BLOCK);
    for (let y = 0; y < height; y += 1) {
      const row = y * width;
      for (let x = left, place = left * height + y; x < right; x += 1, place += height) {
        pixels[row + x] = palette[numbers[place]];
      }
    }
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
