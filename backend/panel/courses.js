// Each object's course over time, worked out a while after masks have come.

import { throttled } from "./dom.js";
import { doubtfulStretches } from "./doubt.js";
import { courseOf } from "./masks.js";

const PAUSE_MS = 400;

export class Courses {
  /** `onChange()`: courses are new. */
  constructor(session, onChange) {
    this._session = session;
    this._onChange = onChange;
    this._known = new Map(); // object id -> {course, stretches}
    this._memory = new Map(); // object id -> what courseOf keeps
    this._later = throttled(() => this._update(), PAUSE_MS);
  }

  /** {course, stretches} of an object; course is null where nothing is known. */
  of(objectId) {
    return this._known.get(objectId) ?? { course: null, stretches: [] };
  }

  /** Masks have changed. */
  note() {
    this._later();
  }

  close() {
    this._later.cancel();
  }

  _update() {
    this._known.clear();
    for (const { id } of this._session.objects) {
      if (!this._memory.has(id)) this._memory.set(id, new Map());
      const course = courseOf(this._session.masks, id, this._memory.get(id));
      this._known.set(id, { course, stretches: course ? doubtfulStretches(course) : [] });
    }
    this._onChange();
  }
}
