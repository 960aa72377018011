// Clicks, boxes and strokes on the shown frame become what is said of the selected object.

import { say } from "./notices.js";
import { withBox, withoutPoint, withPoint } from "./prompts.js";
import { encode } from "./rle.js";
import { Stroke } from "./stroke.js";
import { markAt } from "./view.js";

const SECOND_CLICK_MS = 500;

export class Marking {
  /**
   * `place`: {frame, object, view} as they are when they are asked for; object is the selected
   * one, or undefined. `makeObject()` makes and selects one and gives its id. `onStroke()`: the
   * stroke's mask has changed.
   */
  constructor(session, place, { makeObject, onStroke }) {
    this._session = session;
    this._place = place;
    this._makeObject = makeObject;
    this._onStroke = onStroke;
    this._stroke = null;
  }

  /** The intervals of the mask that is being painted; null when there is none. */
  get strokeIntervals() {
    return this._stroke?.intervals ?? null;
  }

  point(point, positive) {
    const { frame, object, view } = this._place;
    const known = object?.prompts[frame];
    const number = markAt(view, known?.points ?? [], point);
    if (number >= 0) {
      const isSecondClick = performance.now() - this._markedAt < SECOND_CLICK_MS;
      if (!isSecondClick) this._session.setPrompts(object.id, frame, withoutPoint(known, number));
      return;
    }
    const isSeen = object && this._session.masks.of(object.id, frame)?.counts;
    if (!positive && !known && !isSeen) {
      say("Click on the object first, then on what is not part of it.");
      return;
    }
    tellAboutMask(known);
    this._markedAt = performance.now();
    const id = object?.id ?? this._makeObject();
    this._session.setPrompts(id, frame, withPoint(known, { ...point, positive }));
  }

  box(box) {
    const { frame, object } = this._place;
    const known = object?.prompts[frame];
    tellAboutMask(known);
    this._session.setPrompts(object?.id ?? this._makeObject(), frame, withBox(known, box));
  }

  /** Whether there is something to paint on. `value`: 1 paints, 0 erases. */
  beginStroke(value) {
    const { frame, object } = this._place;
    if (value === 0 && !object) {
      say("Choose the object to erase first.");
      return false;
    }
    this._stroked = object?.id ?? this._makeObject();
    const counts = this._session.masks.of(this._stroked, frame)?.counts;
    const intervals = counts ? this._session.masks.intervals(counts) : [];
    this._stroke = new Stroke(this._session.video, intervals, value);
    return true;
  }

  strokeTo(from, to, radius) {
    this._stroke.line(from, to, radius);
    this._onStroke();
  }

  endStroke(isKept) {
    const { intervals } = this._stroke;
    const { frame } = this._place;
    this._stroke = null;
    this._onStroke();
    if (!isKept) return;
    const { width, height } = this._session.video;
    const mask = { size: [height, width], counts: encode(intervals, width * height) };
    const score = this._session.masks.of(this._stroked, frame)?.score ?? 0;
    this._session.masks.put(this._stroked, frame, mask, score); // until it is answered
    this._session.setPrompts(this._stroked, frame, { mask });
  }

  /** Takes back all that is said of the object on the frame. */
  clear() {
    const { frame, object } = this._place;
    if (object.prompts[frame]) this._session.setPrompts(object.id, frame, null);
    else say("The object has no marks on this frame.");
  }
}

function tellAboutMask(prompts) {
  if (!prompts?.mask) return;
  say("Clicks and boxes take the place of the mask painted here. Undo brings it back.");
}
