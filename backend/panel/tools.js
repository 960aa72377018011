// What pointer and keyboard do on the canvas. A tool gets begin, move and end, from either.

const DRAG_PIXELS = 5;
const CURSOR_STEP = 8;
const CURSOR_LEAP = 48;

export const TOOLS = ["add", "remove", "box", "brush", "erase", "pan"];

export class Tools {
  /**
   * `actions`: {point(point, positive), box([x_min, y_min, x_max, y_max]), beginStroke(value),
   * strokeTo(from, to, radius), endStroke(isKept)}. Points are pixels of the video.
   */
  constructor(view, actions) {
    this._view = view;
    this._actions = actions;
    this.tool = "add";
    this.radius = Math.max(3, Math.round(view.size.height / 40));
    this.hover = null;
    this.cursor = null; // the keyboard's place, while it is in use
    this.draft = null; // the box that is being drawn
    this._gesture = null;
    const { canvas } = view;
    this._listen(canvas, "pointerdown", (event) => this._down(event));
    this._listen(canvas, "pointermove", (event) => this._move(event));
    this._listen(canvas, "pointerup", (event) => this._up(event));
    this._listen(canvas, "pointercancel", () => this.cancel());
    this._listen(canvas, "pointerleave", () => this._leave());
    this._listen(canvas, "contextmenu", (event) => event.preventDefault());
    this._listen(canvas, "wheel", (event) => this._wheel(event), { passive: false });
  }

  _listen(target, type, listener, options) {
    this._ending ??= new AbortController();
    target.addEventListener(type, listener, { ...options, signal: this._ending.signal });
  }

  close() {
    this._ending.abort();
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this._view.canvas.dataset.tool = tool;
    this._view.invalidate();
  }

  get isPainting() {
    return this.tool === "brush" || this.tool === "erase";
  }

  get isBusy() {
    return this._gesture !== null;
  }

  /** Where the brush's outline is drawn; null when there is none. */
  get brush() {
    const place = this.cursor ?? this.hover;
    return this.isPainting && place ? { ...place, radius: this.radius } : null;
  }

  /** The brush's size from 0 to 1, each step as many times larger as the one before. */
  get size() {
    return Math.log(this.radius) / Math.log(this._mostRadius);
  }

  set size(share) {
    this.radius = this._mostRadius ** Math.max(0, Math.min(1, share));
    this._view.invalidate();
  }

  get _mostRadius() {
    return Math.max(4, Math.max(this._view.size.width, this._view.size.height) / 4);
  }

  cancel() {
    if (this._gesture?.isStroke) this._actions.endStroke(false);
    this._gesture = null;
    this.draft = null;
    this._view.invalidate();
  }

  // --- gestures -----------------------------------------------------------------

  _begin(point, { isNegative = false, canDrag = true, isPan = false } = {}) {
    this._gesture = { start: point, last: point, isNegative, canDrag, isPan };
    if (isPan || !this.isPainting) return;
    this._gesture.isStroke = true;
    const value = (this.tool === "brush") !== isNegative ? 1 : 0;
    if (!this._actions.beginStroke(value)) {
      this._gesture = null;
      return;
    }
    this._actions.strokeTo(point, point, this.radius);
  }

  _continue(point) {
    const gesture = this._gesture;
    if (gesture.isStroke) {
      this._actions.strokeTo(gesture.last, point, this.radius);
      gesture.last = point;
    } else if (gesture.canDrag) {
      const from = this._view.toScreen(gesture.start);
      const to = this._view.toScreen(point);
      gesture.isDrag ||= Math.hypot(to.x - from.x, to.y - from.y) > DRAG_PIXELS;
      this.draft = gesture.isDrag ? this._boxTo(point) : null;
    }
    this._view.invalidate();
  }

  _end(point) {
    const gesture = this._gesture;
    this._gesture = null;
    const draft = this.draft;
    this.draft = null;
    this._view.invalidate();
    if (gesture.isStroke) this._actions.endStroke(true);
    else if (draft) this._actions.box(draft);
    else if (this.tool !== "box" && this._isInside(point)) {
      this._actions.point(point, (this.tool === "add") !== gesture.isNegative);
    }
  }

  _boxTo(point) {
    const { start } = this._gesture;
    const { width, height } = this._view.size;
    const within = (value, end) => Math.max(0, Math.min(end, value));
    const xs = [start.x, point.x].map((x) => within(x, width)).sort((a, b) => a - b);
    const ys = [start.y, point.y].map((y) => within(y, height)).sort((a, b) => a - b);
    return xs[1] > xs[0] && ys[1] > ys[0] ? [xs[0], ys[0], xs[1], ys[1]] : null;
  }

  _isInside({ x, y }) {
    const { width, height } = this._view.size;
    return x >= 0 && y >= 0 && x <= width && y <= height;
  }

  // --- the pointer ----------------------------------------------------------------

  _down(event) {
    if (this._gesture) return;
    this.cursor = null;
    const isRight = event.button === 2;
    const isPan = event.button === 1 || (this.tool === "pan" && event.button === 0);
    if (!isPan && (event.button > 2 || this.tool === "pan")) return;
    if (event.button === 1) event.preventDefault();
    this._view.canvas.setPointerCapture(event.pointerId);
    const isNegative = isRight || event.altKey;
    const canDrag = !isNegative && (this.tool === "add" || this.tool === "box");
    this._begin(this._view.pointOf(event), { isNegative, canDrag, isPan });
    this._at = { x: event.clientX, y: event.clientY };
  }

  _move(event) {
    this.hover = this._view.pointOf(event);
    if (this._gesture?.isPan) {
      this._view.panBy(event.clientX - this._at.x, event.clientY - this._at.y);
      this._at = { x: event.clientX, y: event.clientY };
    } else if (this._gesture) {
      for (const one of event.getCoalescedEvents?.() ?? []) this._continue(this._view.pointOf(one));
      this._continue(this.hover);
    } else if (this.isPainting) {
      this._view.invalidate();
    }
  }

  _up(event) {
    if (!this._gesture) return;
    if (this._gesture.isPan) this._gesture = null;
    else this._end(this._view.pointOf(event));
  }

  _leave() {
    this.hover = null;
    if (this.isPainting) this._view.invalidate();
  }

  _wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this._view.zoomBy(2 ** (-event.deltaY / 240), this._view.pointOf(event));
    } else if (this._view.zoom > 1) {
      event.preventDefault(); // else the page around may scroll
      this._view.panBy(-event.deltaX, -event.deltaY);
    }
  }

  // --- the keyboard -----------------------------------------------------------------

  /** Begins to use the canvas without a pointer, or ends it. */
  toggleCursor() {
    this.cancel();
    const { width, height } = this._view.size;
    this.cursor = this.cursor ? null : { x: width / 2, y: height / 2 };
    this._view.invalidate();
  }

  /** Whether the key was for the keyboard's cursor. */
  key(event) {
    if (!this.cursor) return false;
    const direction = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    if (direction) this._moveCursor(direction, event);
    else if (event.key === "Enter") this._enter(event);
    else if (event.key === "Escape") {
      if (this._gesture) this.cancel();
      else this.toggleCursor();
    } else return false;
    return true;
  }

  _moveCursor([dx, dy], event) {
    let step = event.shiftKey ? CURSOR_LEAP : CURSOR_STEP;
    if (event.ctrlKey || event.metaKey) step = 1;
    const { width, height } = this._view.size;
    const amount = step / this._view.scale;
    this.cursor = {
      x: Math.max(0, Math.min(width, this.cursor.x + dx * amount)),
      y: Math.max(0, Math.min(height, this.cursor.y + dy * amount)),
    };
    this._view.reveal(this.cursor);
    if (this._gesture) this._continue(this.cursor);
    this._view.invalidate();
  }

  _enter(event) {
    const isNegative = event.altKey || event.shiftKey;
    if (this._gesture) {
      this._end(this.cursor);
    } else if (this.tool !== "pan") {
      this._begin(this.cursor, { isNegative, canDrag: this.tool === "box" });
      const isAtOnce = this.tool === "add" || this.tool === "remove";
      if (isAtOnce) this._end(this.cursor);
    }
  }
}
