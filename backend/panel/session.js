// A session of the service as this page knows it: its state, its changes one after the other,
// and the stream of what others and tracking change. docs/sessions-api.md has the requests.

import { Unreachable, sessionPath, sleep } from "./api.js";
import { Masks } from "./masks.js";

const REFRESH_MS = 100;
const SHORTEST_STREAM_MS = 300;
const LONGEST_PAUSE_MS = 8000;

/**
 * Events: "change" (objects, prompts, tracking, what can be undone), "masks" (detail: the
 * frame), "problem" (detail: {what, error}), "lost" (detail: the error; it is of no use any more).
 */
export class Session extends EventTarget {
  static async create(api, body) {
    return new Session(api, await api.post("api/sessions", body));
  }

  static async open(api, id) {
    return new Session(api, await api.get(sessionPath(id)));
  }

  constructor(api, state) {
    super();
    this._api = api;
    this.id = state.id;
    this.taskId = state.task_id;
    this.projectId = state.project_id;
    this.video = state.video;
    this.memoriesLost = state.memories_lost;
    this.masks = new Masks(state.video.width * state.video.height);
    this.touchedFrames = new Set(); // marked anew since tracking began last
    this.pendingCount = 0;
    this._queue = Promise.resolve();
    this._pending = new Map(); // object and frame -> how many requests are to say its mask
    this._settled = new Map(); // object and frame -> the prompts whose mask is known
    this._serial = 0;
    this._seenRevision = 0;
    this._isPaused = false;
    this._apply(state);
  }

  get isTracking() {
    return this.propagation?.state === "running";
  }

  get canResume() {
    return ["stopped", "interrupted", "failed"].includes(this.propagation?.state);
  }

  /** `saved`: as the state has it. */
  hasChangedSince({ revision, serial }) {
    return this.pendingCount > 0 || this.revision > revision || this._newestSerial > serial;
  }

  object(id) {
    return this.objects.find((item) => item.id === id);
  }

  /** Frames that have prompts, of one object or of all, ascending. */
  promptedFrames(objectId) {
    const found = new Set();
    for (const item of this.objects) {
      if (objectId !== undefined && item.id !== objectId) continue;
      for (const index of Object.keys(item.prompts)) found.add(Number(index));
    }
    return [...found].sort((a, b) => a - b);
  }

  framePath(index, width) {
    return `${sessionPath(this.id, "frames", `${index}.jpg`)}?width=${width}`;
  }

  // --- changes, which are shown at once and made one after the other ----------

  /** Makes an object, or gives it other labels. */
  setLabels(objectId, labels) {
    const item = this.object(objectId);
    if (item) item.labels = labels;
    else this.objects.push({ id: objectId, labels, prompts: {} });
    return this._change("label the object", async () => {
      this._apply(await this._api.put(sessionPath(this.id, "objects", objectId), { labels }));
    });
  }

  removeObject(objectId) {
    this.objects = this.objects.filter((item) => item.id !== objectId);
    return this._change("delete the object", async () => {
      this._apply(await this._api.delete(sessionPath(this.id, "objects", objectId)));
    });
  }

  /** What is now said of an object on a frame; null takes it back. The object is there. */
  setPrompts(objectId, index, prompts) {
    const item = this.object(objectId);
    if (prompts) item.prompts[index] = prompts;
    else delete item.prompts[index];
    this.touchedFrames.add(index);
    const path = sessionPath(this.id, "objects", objectId, "prompts", index);
    if (!prompts) {
      return this._change("take the marks back", async () => {
        this._apply(await this._api.delete(path));
      });
    }
    return this._askForMask("mark the object", objectId, index, () => this._api.put(path, prompts));
  }

  /** Resolves to the frame on which something has changed; undefined when that is none. */
  undo() {
    return this._step("undo");
  }

  redo() {
    return this._step("redo");
  }

  _step(name) {
    return this._change(name, async () => {
      const before = this.objects;
      this._apply(await this._api.post(sessionPath(this.id, name)));
      const changed = changedFrames(before, this.objects);
      changed.forEach((index) => this.touchedFrames.add(index));
      const returned = this.objects.filter(({ id }) => !before.some((item) => item.id === id));
      if (returned.length) this._readAgain(returned);
      if (changed.length) this.lookAt(changed[0]);
      return changed[0];
    });
  }

  /** What came while objects were away came without them. */
  _readAgain(objects) {
    for (const { id, prompts } of objects) {
      for (const index of Object.keys(prompts)) this._settled.delete(keyOf(id, index));
    }
    this._startOver();
  }

  /** Asks for the masks of a frame's prompts that are not known, such as after an undo. */
  lookAt(index) {
    for (const item of this.objects) {
      const prompts = item.prompts[index];
      const key = keyOf(item.id, index);
      if (!prompts || this._pending.has(key)) continue;
      if (this._settled.get(key) === JSON.stringify(prompts)) continue;
      const path = sessionPath(this.id, "objects", item.id, "masks", index);
      this._askForMask("show the mask", item.id, index, () => this._api.get(path));
    }
  }

  prewarm(frames) {
    return this._api.post(sessionPath(this.id, "prewarm"), { frames });
  }

  // --- tracking -----------------------------------------------------------------

  propagate(body) {
    return this._change("track", async () => {
      this.propagation = await this._api.post(sessionPath(this.id, "propagate"), body);
      this.touchedFrames.clear();
    });
  }

  resume() {
    return this._change("go on tracking", async () => {
      this.propagation = await this._api.post(sessionPath(this.id, "resume"));
    });
  }

  stop() {
    return this._change("stop", () => this._api.post(sessionPath(this.id, "stop")));
  }

  // --- how changes are made -------------------------------------------------------

  _change(what, make) {
    this.pendingCount += 1;
    const done = this._queue.then(make).catch((error) => this._fail(what, error)).finally(() => {
      this.pendingCount -= 1;
      if (this.pendingCount === 0 && this._seenRevision > this.revision) this._refreshSoon();
      this._emit("change");
    });
    this._queue = done;
    this._emit("change");
    return done;
  }

  /** `ask` answers with the mask of the prompts that there are now. */
  _askForMask(what, objectId, index, ask) {
    const key = keyOf(objectId, index);
    const settled = JSON.stringify(this.object(objectId).prompts[index]);
    this._pending.set(key, (this._pending.get(key) ?? 0) + 1);
    return this._change(what, async () => {
      try {
        const answer = await ask();
        this._noteRevision(answer.revision);
        if (this._pending.get(key) > 1) return; // a newer one is asked for
        this.masks.put(objectId, index, answer.mask, answer.score);
        this._emit("masks", index);
      } finally {
        this._settled.set(key, settled); // also without one: it would be asked again for ever
        const left = this._pending.get(key) - 1;
        if (left) this._pending.set(key, left);
        else this._pending.delete(key);
      }
    });
  }

  async _fail(what, error) {
    this._emit("problem", { what, error });
    try {
      this._apply(await this._api.get(sessionPath(this.id)), { isNewest: true });
      this._startOver();
    } catch (other) {
      this._emit("problem", { what: "read the session again", error: other });
    }
  }

  _apply(state, { isNewest = this.pendingCount <= 1 } = {}) {
    this._noteRevision(state.revision);
    this.propagation = state.propagation;
    this.canUndo = state.can_undo;
    this.canRedo = state.can_redo;
    this.othersOnTask = state.others_on_task ?? 0;
    this.saved = state.saved ?? null;
    this._newestSerial = state.serial;
    // While more changes wait, what is shown is ahead of what the service knows.
    if (!this.objects || isNewest) {
      this.objects = state.objects.map(({ id, labels, prompts }) => ({ id, labels, prompts }));
    }
    this._emit("change");
  }

  _noteRevision(revision) {
    if (revision === undefined) return;
    this.revision = Math.max(this.revision ?? 0, revision);
  }

  _refreshSoon() {
    clearTimeout(this._refreshTimer);
    this._refreshTimer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  /** Reads the state again, unless changes are under way. */
  async refresh() {
    if (this.pendingCount > 0) return;
    try {
      const state = await this._api.get(sessionPath(this.id));
      if (this.pendingCount === 0) this._apply(state);
    } catch (error) {
      this._emit("problem", { what: "read the session again", error });
    }
  }

  // --- what changes by itself -----------------------------------------------------

  /** Follows the session's events until it is closed; never rejects. */
  async follow() {
    let pause = SHORTEST_STREAM_MS;
    while (!this._isClosed) {
      await this._resumed;
      this._stream = new AbortController();
      try {
        const path = `${sessionPath(this.id, "events")}?since=${this._serial}`;
        for await (const event of this._api.lines(path, { signal: this._stream.signal })) {
          this._api.noteUp();
          pause = SHORTEST_STREAM_MS;
          if (event) this._take(event);
        }
        await sleep(SHORTEST_STREAM_MS);
      } catch (error) {
        if (error.name === "AbortError") continue;
        const isPassing = error instanceof Unreachable || error.isPassing || error.status === 500;
        if (!isPassing) {
          this._emit("lost", error);
          return;
        }
        this._api.noteDown(error.message);
        await sleep(pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
        await this._catchUp();
      }
    }
  }

  async _catchUp() {
    try {
      const state = await this._api.get(sessionPath(this.id));
      if (state.serial < this._serial) {
        this.masks.clear();
        this._serial = 0;
      }
      this._apply(state);
    } catch (error) {
      this._emit("problem", { what: "read the session again", error });
    }
  }

  /** Reads all masks again. */
  _startOver() {
    this._serial = 0;
    this._stream?.abort();
  }

  /** No stream while nobody looks: each takes one of the service's threads. */
  pause() {
    if (this._isPaused) return;
    this._isPaused = true;
    this._resumed = new Promise((resolve) => { this._resume = resolve; });
    this._stream?.abort();
  }

  unpause() {
    if (!this._isPaused) return;
    this._isPaused = false;
    this._resume();
    this.refresh();
  }

  close() {
    this._isClosed = true;
    clearTimeout(this._refreshTimer);
    this._stream?.abort();
  }

  _take(event) {
    if (event.type === "state") {
      this.propagation = event.propagation;
      this.canUndo = event.can_undo;
      this.canRedo = event.can_redo;
      this._seenRevision = event.revision;
      if (event.revision > this.revision && this.pendingCount === 0) this._refreshSoon();
      this._emit("change");
    } else if (event.type === "frame") {
      const index = event.frame_index;
      this._serial = event.serial;
      this._newestSerial = Math.max(this._newestSerial, event.serial);
      this.masks.putFrame(index, event.objects, (id) => this._pending.has(keyOf(id, index)));
      this._emit("masks", index);
    }
  }

  _emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function keyOf(objectId, index) {
  return `${index}/${objectId}`;
}

/** The frames whose prompts differ, ascending. */
function changedFrames(before, after) {
  const found = new Set();
  const ids = new Set([...before, ...after].map(({ id }) => id));
  for (const id of ids) {
    const [old, now] = [before, after].map((list) => list.find((item) => item.id === id));
    const frames = new Set([old, now].flatMap((item) => Object.keys(item?.prompts ?? {})));
    for (const index of frames) {
      if (JSON.stringify(old?.prompts[index]) !== JSON.stringify(now?.prompts[index])) {
        found.add(Number(index));
      }
    }
  }
  return [...found].sort((a, b) => a - b);
}
