// From where to where tracking goes, in the page's controls and as the service is asked.

import { part, setText } from "./dom.js";

export class TrackingControls {
  constructor(session, onChange) {
    this._session = session;
    this._ending = new AbortController();
    part("to").max = session.video.frame_count;
    for (const id of ["direction", "from", "to"]) {
      part(id).addEventListener("input", onChange, { signal: this._ending.signal });
    }
  }

  close() {
    this._ending.abort();
  }

  get direction() {
    return part("direction").querySelector(":checked").value;
  }

  /** What to ask for, with the frame shown; null while the form does not hold. */
  request(frame) {
    if (!part("to").checkValidity()) return null;
    const start = this._start(frame);
    const end = part("to").value;
    const body = { direction: this.direction };
    if (start !== null) body.start_frame = start;
    if (end !== "" && this.direction !== "both") body.to_frame = Number(end) - 1;
    return body;
  }

  /** The frame at which it begins; null: at the first or the last mark. */
  _start(frame) {
    const { value } = part("from");
    const prompted = this._session.promptedFrames();
    if (prompted.length === 0 || value === "marks") return null;
    const first = prompted[0];
    const last = prompted.at(-1);
    if (value === "here") {
      if (this.direction === "forward") return Math.max(first, frame);
      return this.direction === "backward" ? Math.min(last, frame) : frame;
    }
    return this._corrected(first, last);
  }

  /** Where marks have changed since tracking began last; null when nothing was tracked yet. */
  _corrected(first, last) {
    const touched = [...this._session.touchedFrames];
    const prompted = new Set(this._session.promptedFrames());
    const isTracked = this._session.masks.knownFrames.some((index) => !prompted.has(index));
    if (!touched.length || !isTracked) return null;
    const least = Math.min(...touched);
    const most = Math.max(...touched);
    if (this.direction === "forward") return Math.max(first, least);
    return this.direction === "backward" ? Math.min(last, most) : least;
  }

  render(frame) {
    const { propagation, isTracking, canResume } = this._session;
    const { direction } = this;
    const prompted = this._session.promptedFrames();
    const isBack = direction === "backward";
    part("to").disabled = direction === "both";
    part("to").placeholder = { forward: "end", backward: "start", both: "both ends" }[direction];
    const [auto, marks] = part("from").options;
    const corrected = prompted.length ? this._corrected(prompted[0], prompted.at(-1)) : null;
    const mark = isBack ? "last mark" : "first mark";
    const start = corrected ?? (isBack ? prompted.at(-1) : prompted[0]);
    setText(auto, start === undefined ? "auto" : `auto (${start + 1})`);
    setText(marks, mark);
    const button = part("track");
    const request = this.request(frame);
    setText(button, isTracking ? "Stop" : "Track");
    button.disabled = !isTracking && (prompted.length === 0 || request === null);
    const count = this._session.video.frame_count;
    button.title = isTracking ? "Stop (T)" : describe(request, prompted, count);
    part("resume").hidden = !canResume;
    renderProgress(propagation);
  }
}

function describe(request, prompted, count) {
  if (prompted.length === 0) return "Mark an object first";
  if (request === null) return `The last frame must be from 1 to ${count}`;
  const isBack = request.direction === "backward";
  const start = request.start_frame ?? (isBack ? prompted.at(-1) : prompted[0]);
  if (request.direction === "both") return `From frame ${start + 1} to both ends (T)`;
  const end = request.to_frame ?? (isBack ? 0 : count - 1);
  return `From frame ${start + 1} to frame ${end + 1} (T)`;
}

function renderProgress(propagation) {
  const bar = part("progress");
  const total = propagation?.total_frames ?? 0;
  bar.max = Math.max(1, total);
  bar.value = propagation?.done_frames ?? 0;
  const states = {
    running: "tracking", done: "done", stopped: "stopped", interrupted: "interrupted",
    failed: "failed",
  };
  const state = states[propagation?.state] ?? propagation?.state;
  setText(part("progress-text"), propagation
    ? `${state}, ${propagation.done_frames} of ${total} frames` : "not tracked yet");
}
