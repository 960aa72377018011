// The canvas: a frame, the masks and marks over it, zoomed and moved.

const MOST_ZOOM = 32;
const PIXELS_FROM = 6; // so large on the screen, a pixel of the video has edges
const MARK_RADIUS = 6;
const POSITIVE = "#2fd07a";
const NEGATIVE = "#ff5d52";

export class View {
  /** `size`: {width, height} of the video. `onDraw(view)` sets `scene` before each drawing. */
  constructor(canvas, size, onDraw) {
    this.canvas = canvas;
    this.size = size;
    this.zoom = 1;
    this.scene = {};
    this._onDraw = onDraw;
    this._context = canvas.getContext("2d", { alpha: false });
    this._centre = { x: size.width / 2, y: size.height / 2 };
    this._observer = new ResizeObserver(() => this._resize());
    this._observer.observe(canvas);
    this._resize();
  }

  close() {
    this._observer.disconnect();
  }

  /** Draws once before the next picture of the screen. */
  invalidate() {
    if (this._isDue) return;
    this._isDue = true;
    requestAnimationFrame(() => {
      this._isDue = false;
      this._onDraw(this);
      this.draw();
    });
  }

  /** Screen pixels (of CSS) a pixel of the video. */
  get scale() {
    const { width, height } = this._box;
    return this.zoom * Math.min(width / this.size.width, height / this.size.height);
  }

  /** How many pixels wide the whole video is drawn on this screen. */
  get drawnWidth() {
    return Math.ceil(this.size.width * this.scale * devicePixelRatio);
  }

  toVideo({ x, y }) {
    const { left, top } = this._corner;
    return { x: (x - left) / this.scale, y: (y - top) / this.scale };
  }

  toScreen({ x, y }) {
    const { left, top } = this._corner;
    return { x: left + x * this.scale, y: top + y * this.scale };
  }

  /** Where a pointer is, in pixels of the video; may lie outside. */
  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return this.toVideo({ x: event.clientX - box.left, y: event.clientY - box.top });
  }

  fit() {
    this.zoom = 1;
    this._settle();
  }

  /** `fixed`: the point of the video that stays where it is on the screen. */
  zoomBy(factor, fixed = this._centre) {
    const zoom = Math.max(1, Math.min(MOST_ZOOM, this.zoom * factor));
    const ratio = this.zoom / zoom;
    this.zoom = zoom;
    this._centre = {
      x: fixed.x + (this._centre.x - fixed.x) * ratio,
      y: fixed.y + (this._centre.y - fixed.y) * ratio,
    };
    this._settle();
  }

  /** `dx`, `dy`: pixels of the screen. */
  panBy(dx, dy) {
    this._centre = { x: this._centre.x - dx / this.scale, y: this._centre.y - dy / this.scale };
    this._settle();
  }

  /** Moves the view until it shows the point. */
  reveal(point) {
    const { x, y } = this.toScreen(point);
    const margin = 24;
    const over = (value, end) => Math.min(0, value - margin) + Math.max(0, value - end + margin);
    const dx = over(x, this._box.width);
    const dy = over(y, this._box.height);
    if (this.zoom > 1 && (dx || dy)) this.panBy(-dx, -dy);
  }

  _resize() {
    const { clientWidth, clientHeight } = this.canvas;
    this._box = { width: Math.max(1, clientWidth), height: Math.max(1, clientHeight) };
    this.canvas.width = Math.round(this._box.width * devicePixelRatio);
    this.canvas.height = Math.round(this._box.height * devicePixelRatio);
    this._settle();
  }

  _settle() {
    const bounded = (value, shown, whole) => (
      shown >= whole ? whole / 2 : Math.max(shown / 2, Math.min(whole - shown / 2, value))
    );
    this._centre = {
      x: bounded(this._centre.x, this._box.width / this.scale, this.size.width),
      y: bounded(this._centre.y, this._box.height / this.scale, this.size.height),
    };
    this.canvas.dispatchEvent(new CustomEvent("view"));
    this.invalidate();
  }

  get _corner() {
    return {
      left: this._box.width / 2 - this._centre.x * this.scale,
      top: this._box.height / 2 - this._centre.y * this.scale,
    };
  }

  // --- drawing -----------------------------------------------------------------

  /** The scene: {bitmap, overlay, prompts, draft, brush, cursor}, each of them optional. */
  draw() {
    const context = this._context;
    const { bitmap, overlay, prompts, draft, brush, cursor } = this.scene;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.fillStyle = "#0b0d11";
    context.fillRect(0, 0, this._box.width, this._box.height);
    const { left, top } = this._corner;
    context.save();
    context.translate(left, top);
    context.scale(this.scale, this.scale);
    context.imageSmoothingEnabled = this.scale < PIXELS_FROM;
    if (bitmap) context.drawImage(bitmap, 0, 0, this.size.width, this.size.height);
    overlay?.draw(context);
    context.restore();
    if (prompts?.box) this._drawBox(prompts.box, []);
    if (draft) this._drawBox(draft, [5, 4]);
    for (const point of prompts?.points ?? []) this._drawPoint(point);
    if (brush) this._drawBrush(brush);
    if (cursor) this._drawCursor(cursor);
  }

  _drawBox([xMin, yMin, xMax, yMax], dash) {
    const context = this._context;
    const from = this.toScreen({ x: xMin, y: yMin });
    const to = this.toScreen({ x: xMax, y: yMax });
    context.save();
    for (const [colour, width] of [["#000c", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(width === 2 ? dash : []);
      context.strokeRect(from.x, from.y, to.x - from.x, to.y - from.y);
    }
    context.restore();
  }

  _drawPoint(point) {
    const context = this._context;
    const { x, y } = this.toScreen(point);
    context.save();
    context.beginPath();
    context.arc(x, y, MARK_RADIUS, 0, 2 * Math.PI);
    context.fillStyle = point.positive ? POSITIVE : NEGATIVE;
    context.fill();
    context.lineWidth = 3.5;
    context.strokeStyle = "#000a";
    context.stroke();
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    context.stroke();
    context.strokeStyle = "#000";
    context.beginPath(); // colour alone must not tell
    context.moveTo(x - 3, y);
    context.lineTo(x + 3, y);
    if (point.positive) {
      context.moveTo(x, y - 3);
      context.lineTo(x, y + 3);
    }
    context.stroke();
    context.restore();
  }

  _drawBrush({ x, y, radius }) {
    const context = this._context;
    const centre = this.toScreen({ x, y });
    for (const [colour, width] of [["#000a", 3], ["#fff", 1.5]]) {
      context.beginPath();
      context.arc(centre.x, centre.y, Math.max(1, radius * this.scale), 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  _drawCursor(point) {
    const context = this._context;
    const { x, y } = this.toScreen(point);
    for (const [colour, width] of [["#000", 5], ["#ffe14d", 2]]) {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 5 * dx, y + 5 * dy);
        context.lineTo(x + 16 * dx, y + 16 * dy);
      }
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }
}

/** The number of the mark at a point of the screen; -1 without one. */
export function markAt(view, points, point) {
  const at = view.toScreen(point);
  return points.findLastIndex((mark) => {
    const { x, y } = view.toScreen(mark);
    return Math.hypot(x - at.x, y - at.y) <= MARK_RADIUS + 1;
  });
}
