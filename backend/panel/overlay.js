// Masks of a frame as one picture over it.
//
// Runs go down columns and a canvas has rows, so every pixel of a run is a step of the canvas's
// width. That is still the quickest: drawing a canvas with x and y exchanged takes a browser
// without a GPU ten times as long.

const FILL_ALPHA = 105;
const SELECTED_ALPHA = 150;
const EDGE_ALPHA = 255;

export class MaskOverlay {
  /** `width` and `height`: of the video, in pixels. */
  constructor(width, height) {
    this._size = { width, height };
    this._canvas = new OffscreenCanvas(width, height);
    this._context = this._canvas.getContext("2d");
    this._image = new ImageData(width, height);
    this._pixels = new Uint32Array(this._image.data.buffer);
    this._painted = [0, 0]; // a half-open range of columns
  }

  /**
   * Replaces the picture.
   *
   * `layers`, the lowest first: [{intervals, colour: [r, g, b], isSelected}].
   * `edge`: how thick outlines are, in pixels of the video; 0 for none.
   */
  paint(layers, edge) {
    const { _pixels: pixels, _size: size, _painted: before } = this;
    const seen = layers.filter(({ intervals }) => intervals.length > 0);
    this._clear(before);
    for (const { intervals, colour, isSelected } of seen) {
      const alpha = isSelected ? SELECTED_ALPHA : FILL_ALPHA;
      paintMask(pixels, size, intervals, packed(colour, alpha));
      const thickness = isSelected ? 2 * edge : edge;
      if (edge > 0) outline(pixels, size, intervals, thickness, packed(colour, EDGE_ALPHA));
    }
    this._painted = columnsOf(seen, size);
    this._put([before, this._painted].filter(([from, to]) => to > from));
  }

  _clear([from, to]) {
    const { width, height } = this._size;
    if (to === from) return;
    for (let row = 0; row < height; row += 1) {
      this._pixels.fill(0, row * width + from, row * width + to);
    }
  }

  /** What lies in one of the ranges of columns, to the canvas. */
  _put(ranges) {
    if (ranges.length === 0) return;
    const from = Math.min(...ranges.map(([first]) => first));
    const to = Math.max(...ranges.map(([, last]) => last));
    this._context.putImageData(this._image, 0, 0, from, 0, to - from, this._size.height);
  }

  /** Draws it on a context whose unit is a pixel of the video. */
  draw(context) {
    context.drawImage(this._canvas, 0, 0);
  }
}

function columnsOf(layers, { height }) {
  if (layers.length === 0) return [0, 0];
  const first = Math.min(...layers.map(({ intervals }) => intervals[0]));
  const last = Math.max(...layers.map(({ intervals }) => intervals.at(-1)));
  return [Math.floor(first / height), Math.ceil(last / height)];
}

/** A pixel of an ImageData as a little-endian number. */
function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Sets a mask's pixels in `pixels`, row after row, of a picture of that size. */
export function paintMask(pixels, size, intervals, value) {
  for (let i = 0; i < intervals.length; i += 2) {
    paintRun(pixels, size, intervals[i], intervals[i + 1], value);
  }
}

/** Sets the border pixels of a mask, on the inside. */
export function outline(pixels, size, intervals, thickness, value) {
  for (let i = 0; i < intervals.length; i += 2) {
    const start = intervals[i];
    const stop = intervals[i + 1];
    paintRun(pixels, size, start, Math.min(stop, start + thickness), value);
    paintRun(pixels, size, Math.max(start, stop - thickness), stop, value);
  }
  paintUncovered(pixels, size, intervals, thickness * size.height, value);
  paintUncovered(pixels, size, intervals, -thickness * size.height, value);
}

/** The pixels of the mask that the mask itself, moved by `shift`, does not cover. */
function paintUncovered(pixels, size, intervals, shift, value) {
  let cover = 0;
  for (let i = 0; i < intervals.length; i += 2) {
    let place = intervals[i];
    const stop = intervals[i + 1];
    while (cover < intervals.length && intervals[cover + 1] + shift <= place) cover += 2;
    for (let j = cover; place < stop; j += 2) {
      const from = j < intervals.length ? Math.max(place, intervals[j] + shift) : stop;
      if (from > place) paintRun(pixels, size, place, Math.min(from, stop), value);
      if (j >= intervals.length) break;
      place = Math.max(place, intervals[j + 1] + shift);
    }
  }
}

function paintRun(pixels, { width, height }, start, stop, value) {
  let column = Math.floor(start / height);
  let row = start - column * height;
  let place = row * width + column;
  for (let left = stop - start; left > 0; left -= 1) {
    pixels[place] = value;
    place += width;
    row += 1;
    if (row === height) {
      row = 0;
      column += 1;
      place = column;
    }
  }
}
