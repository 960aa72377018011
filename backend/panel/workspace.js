// One session on the screen: the parts of the page, and what each action does to them.

import { coloursOf } from "./colours.js";
import { Courses } from "./courses.js";
import { part, setIcon, setName, setText, throttled } from "./dom.js";
import { Frames } from "./frames.js";
import { Marking } from "./marking.js";
import { recall, remember, tab } from "./memory.js";
import { banner, say, sayError } from "./notices.js";
import { ObjectList } from "./objects.js";
import { MaskOverlay } from "./overlay.js";
import { Player } from "./player.js";
import { Saving } from "./saving.js";
import { listenToKeys } from "./shortcuts.js";
import { rememberSession } from "./start.js";
import { TaskWatch } from "./task_watch.js";
import { Timeline } from "./timeline.js";
import { TOOLS, Tools } from "./tools.js";
import { TrackingControls } from "./tracking.js";
import { View } from "./view.js";

const WIDTHS = [480, 960, 1280, 1920, 2560];
const SETTLE_MS = 250;
const EDGE_PIXELS = 1.5;
const ZOOM_STEP = 1.5;
const BRUSH_STEP = 0.04; // of all sizes

export class Workspace {
  /** `task`: as the service gives it, or null. `onReload()`: begin again from the task. */
  constructor(api, session, task, name, { onReload }) {
    this._api = api;
    this._session = session;
    this._task = task;
    this._ending = new AbortController();
    const { signal } = this._ending;
    const { video } = session;
    this._prefs = recall(tab, `view ${session.id}`) ?? {};
    this._prefs = { colours: {}, hidden: [], selected: null, frame: 0, ...this._prefs };
    this._areMasksShown = true;
    this._isFollowing = session.isTracking;
    this._player = new Player(video, {
      isReady: (index) => Boolean(this._frames.get(index)) || !this._frames.isComing(index),
      onChange: () => this._onFrame(),
    });
    this._player.frame = Math.min(this._prefs.frame, video.frame_count - 1);
    this._shown = this._player.frame;
    this._frames = new Frames(video.frame_count, video, (...wanted) => this._load(...wanted), {
      onFrame: (index) => { if (index === this._player.frame) this._view.invalidate(); },
      onError: (error) => sayError("show a frame", error),
    });
    this._overlay = new MaskOverlay(video.width, video.height);
    this._view = new View(part("canvas"), video, () => this._compose());
    this._marking = new Marking(session, this._placeToMark(), {
      makeObject: () => this._makeObject(),
      onStroke: () => this._repaint(),
    });
    this._tools = new Tools(this._view, this._canvasActions());
    this._timeline = new Timeline(this._player, (frame) => this._seek(frame));
    this._controls = new TrackingControls(session, () => this._renderState());
    this._list = new ObjectList(task ? task.labels.map(({ value }) => value) : null, {
      select: (id) => this._select(id),
      label: (id, text) => session.setLabels(id, text ? [text] : []),
      colour: (id, hex) => this._prefer({ colours: { ...this._prefs.colours, [id]: hex } }),
      hide: (id) => this._toggleHidden(id),
      remove: (id) => this._remove(id),
    });
    this._courses = new Courses(session, () => this._renderCourses());
    this._saving = new Saving(api, session, task, {
      onReload,
      onSaved: (answer) => this._onSaved(answer),
    });
    this._watch = new TaskWatch(api, session, task, onReload);
    this._settled = throttled(() => this._onSettled(), SETTLE_MS);
    this._listen(signal, onReload);
    this._labelColours = new Map((task?.labels ?? []).map(({ value, color }) => [value, color]));
    this._fillHeader(name);
    this._fillLabels();
    this._chooseTool("add");
    this._renderState();
    this._onFrame();
    if (session.memoriesLost) {
      say("The model no longer remembers what it tracked: tracking goes on from the masks alone.");
    }
    session.follow();
  }

  close() {
    this._ending.abort();
    for (const item of [
      this._session, this._frames, this._view, this._tools, this._timeline, this._controls,
      this._courses, this._watch,
    ]) item.close();
    this._settled.cancel();
    this._player.isPlaying = false;
    for (const name of ["interrupted", "lost"]) banner(name, null);
  }

  _listen(signal, onReload) {
    const { _session: session } = this;
    session.addEventListener("change", () => this._renderState(), { signal });
    session.addEventListener("masks", ({ detail }) => this._onMasks(detail), { signal });
    session.addEventListener("problem", ({ detail: { what, error } }) => {
      sayError(what, error);
    }, { signal });
    session.addEventListener("lost", ({ detail: { message } }) => {
      banner("lost", `This session cannot go on: ${message}`, { "Begin a new one": onReload });
    }, { signal });
    const actions = this._actions();
    listenToKeys(actions, () => !part("workspace").hidden, signal);
    part("canvas").addEventListener("keydown", (event) => {
      if (!this._tools.key(event)) return;
      event.preventDefault();
      event.stopPropagation();
      this._renderTools();
    }, { signal });
    part("canvas").addEventListener("view", () => this._settled(), { signal });
    part("workspace").addEventListener("click", (event) => {
      const button = event.target.closest("button[data-action], button[data-tool]");
      if (button?.dataset.tool) this._chooseTool(button.dataset.tool);
      else if (button) actions[button.dataset.action](event);
    }, { signal });
    giveBackFocus(signal);
    part("speed").addEventListener("change", () => {
      this._player.speed = Number(part("speed").value);
    }, { signal });
    part("radius").addEventListener("input", () => {
      this._tools.size = Number(part("radius").value) / 100;
    }, { signal });
    part("frame").addEventListener("change", () => {
      if (part("frame").checkValidity()) this._seek(Number(part("frame").value) - 1);
      else part("frame").value = this._player.frame + 1;
    }, { signal });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) session.pause();
      else session.unpause();
    }, { signal });
    window.addEventListener("resize", () => {
      this._list.redraw();
      this._renderState();
    }, { signal });
  }

  // --- what can be done ---------------------------------------------------------

  /** By the names that keys and buttons use. */
  _actions() {
    const { _session: session, _player: player, _view: view } = this;
    const step = (count) => () => {
      this._userMoved();
      player.step(count);
    };
    const zoom = (factor) => () => view.zoomBy(factor, this._tools.hover ?? undefined);
    const tools = Object.fromEntries(TOOLS.map((tool) => [
      `tool${tool[0].toUpperCase()}${tool.slice(1)}`, () => this._chooseTool(tool),
    ]));
    return {
      ...tools,
      play: () => {
        this._userMoved();
        player.toggle();
      },
      back: step(-1), next: step(1), backTen: step(-10), nextTen: step(10),
      first: () => this._seek(0), last: () => this._seek(player.count - 1),
      backMark: () => this._seekAmong(session.promptedFrames(), -1, "marks"),
      nextMark: () => this._seekAmong(session.promptedFrames(), 1, "marks"),
      backDoubt: () => this._seekAmong(this._doubtStarts(), -1, "doubts"),
      nextDoubt: () => this._seekAmong(this._doubtStarts(), 1, "doubts"),
      smaller: () => this._resizeBrush(-BRUSH_STEP), larger: () => this._resizeBrush(BRUSH_STEP),
      zoomIn: zoom(ZOOM_STEP), zoomOut: zoom(1 / ZOOM_STEP), fit: () => view.fit(),
      masks: () => {
        this._areMasksShown = !this._areMasksShown;
        this._repaint();
      },
      cursor: () => {
        part("canvas").focus({ preventScroll: true });
        this._tools.toggleCursor();
        this._renderTools();
      },
      newObject: () => this._select(null),
      select: (number) => {
        const item = session.objects[number - 1];
        if (item) this._select(item.id);
      },
      hide: () => this._withSelected((id) => this._toggleHidden(id)),
      label: () => this._withSelected((id) => this._list.focusName(id)),
      clear: () => this._withSelected(() => this._marking.clear()),
      delete: () => this._withSelected((id) => this._remove(id)),
      track: () => this._track(),
      resume: () => { if (session.canResume) this._startTracking(session.resume()); },
      undo: () => this._undo(),
      redo: () => { if (session.canRedo) this._showChange(session.redo()); },
      save: () => this._saving.open(),
      help: () => part("help").showModal(),
    };
  }

  _canvasActions() {
    const marking = this._marking;
    const still = (act) => (...values) => {
      this._userMoved();
      this._player.pause();
      return act(...values);
    };
    return {
      point: still((point, positive) => marking.point(point, positive)),
      box: still((box) => marking.box(box)),
      beginStroke: still((value) => marking.beginStroke(value)),
      strokeTo: (from, to, radius) => marking.strokeTo(from, to, radius),
      endStroke: (isKept) => marking.endStroke(isKept),
    };
  }

  _withSelected(act) {
    if (this._selected) act(this._selected.id);
    else say("Choose an object first.");
  }

  _resizeBrush(by) {
    this._tools.size += by;
    this._renderTools();
  }

  _chooseTool(tool) {
    this._tools.choose(tool);
    this._renderTools();
  }

  // --- objects ------------------------------------------------------------------

  get _selected() {
    return this._session.object(this._prefs.selected);
  }

  /** What marks are made on, at any time. */
  _placeToMark() {
    const workspace = this;
    return {
      get frame() { return workspace._shown; },
      get object() { return workspace._selected; },
      get view() { return workspace._view; },
    };
  }

  /** A new one, selected; its id. */
  _makeObject() {
    const id = newId(this._session);
    const label = this._task ? part("new-label").value : "";
    this._session.setLabels(id, label ? [label] : []);
    this._select(id);
    return id;
  }

  _remove(id) {
    const place = this._session.objects.findIndex((item) => item.id === id);
    this._session.removeObject(id);
    const next = this._session.objects[Math.min(place, this._session.objects.length - 1)];
    if (this._prefs.selected === id) this._select(next?.id ?? null);
    say("The object is deleted. Undo brings it back.");
  }

  _undo() {
    const { canUndo, pendingCount } = this._session; // what is under way can be undone then
    if (canUndo || pendingCount > 0) this._showChange(this._session.undo());
  }

  async _showChange(changed) {
    this._userMoved();
    const index = await changed;
    if (index !== undefined) this._seek(index);
  }

  // --- looking ------------------------------------------------------------------

  _select(id) {
    this._prefer({ selected: id });
    if (id !== null) this._list.scrollTo(id);
  }

  _toggleHidden(id) {
    const others = this._prefs.hidden.filter((other) => other !== id);
    const isHidden = others.length < this._prefs.hidden.length;
    this._prefer({ hidden: isHidden ? others : [...others, id] });
  }

  _prefer(changes) {
    Object.assign(this._prefs, changes);
    this._renderState();
    this._settled();
  }

  _seek(frame) {
    this._userMoved();
    this._player.pause();
    this._player.seek(frame);
  }

  _seekAmong(frames, direction, what) {
    const now = this._player.frame;
    const found = direction > 0 ? frames.find((i) => i > now) : frames.findLast((i) => i < now);
    if (found !== undefined) this._seek(found);
    else say(`There are no more ${what} ${direction > 0 ? "after" : "before"} this frame.`);
  }

  _doubtStarts() {
    const starts = this._session.objects.flatMap(({ id }) => (
      this._courses.of(id).stretches.map(({ start }) => start)
    ));
    return [...new Set(starts)].sort((a, b) => a - b);
  }

  /** A person looks somewhere: the picture no longer follows the tracking. */
  _userMoved() {
    this._isFollowing = false;
  }

  _onFrame() {
    const { frame, seconds, isPlaying } = this._player;
    this._frames.want(frame, { isPlaying });
    this._timeline.move(frame, seconds);
    this._list.movePlayhead((frame + 0.5) / this._player.count);
    if (document.activeElement !== part("frame")) part("frame").value = frame + 1;
    setText(part("clock"), clockText(seconds));
    const [icon, label] = isPlaying ? ["pause", "Pause (Space)"] : ["play", "Play (Space)"];
    setIcon(part("play"), icon, label);
    this._repaint();
    if (!isPlaying) this._renderState();
    this._settled();
  }

  /** The person has come to rest: look for what takes longer. */
  _onSettled() {
    remember(tab, `view ${this._session.id}`, { ...this._prefs, frame: this._player.frame });
    this._setWidth();
    if (this._player.isPlaying) return;
    this._session.lookAt(this._player.frame);
    if (this._session.isTracking || this._prewarmed === this._player.frame) return;
    this._prewarmed = this._player.frame;
    this._session.prewarm([this._player.frame]).catch(() => {}); // only to be quicker
  }

  _setWidth() {
    const { width } = this._session.video;
    const drawn = this._view.drawnWidth;
    this._frames.setWidth(Math.min(width, WIDTHS.find((size) => size >= drawn) ?? width));
    this._frames.want(this._player.frame, { isPlaying: this._player.isPlaying });
  }

  async _load(index, width, signal) {
    const path = this._session.framePath(index, width);
    return createImageBitmap(await this._api.blob(path, { signal }));
  }

  // --- tracking -----------------------------------------------------------------

  _track() {
    if (this._session.isTracking) {
      this._session.stop();
      return;
    }
    const request = this._controls.request(this._player.frame);
    if (part("track").disabled || request === null) say(part("track").title);
    else this._startTracking(this._session.propagate(request));
  }

  _startTracking(started) {
    this._player.pause();
    this._isFollowing = true;
    return started;
  }

  _onMasks(index) {
    this._courses.note();
    const isFollowing = this._isFollowing && part("follow").checked;
    if (isFollowing && !this._tools.isBusy) this._player.seek(index);
    if (index === this._shown) {
      this._repaint();
      if (!this._player.isPlaying) this._renderState();
    }
  }

  // --- drawing ------------------------------------------------------------------

  _repaint() {
    this._isPaintDue = true;
    this._view.invalidate();
  }

  /** What the canvas shows next: the frame asked for, or the last one until that is there. */
  _compose() {
    const { frame } = this._player;
    if (this._frames.get(frame) && this._shown !== frame) {
      this._shown = frame;
      this._isPaintDue = true;
    }
    if (this._isPaintDue) {
      this._isPaintDue = false;
      this._overlay.paint(this._layers(), Math.max(1, Math.round(EDGE_PIXELS / this._view.scale)));
    }
    part("canvas").dataset.frame = this._shown;
    this._view.scene = {
      bitmap: this._frames.get(this._shown),
      overlay: this._areMasksShown ? this._overlay : null,
      prompts: this._selected?.prompts[this._shown],
      draft: this._tools.draft,
      brush: this._tools.brush,
      cursor: this._tools.cursor,
    };
  }

  _layers() {
    const layers = [];
    for (const { id } of this._session.objects) {
      if (this._prefs.hidden.includes(id)) continue;
      const isSelected = id === this._prefs.selected;
      const intervals = this._intervals(id, isSelected);
      if (intervals) layers.push({ intervals, colour: this._colours.get(id), isSelected });
    }
    return layers.sort((a, b) => a.isSelected - b.isSelected);
  }

  _intervals(id, isSelected) {
    const painted = isSelected ? this._marking.strokeIntervals : null;
    if (painted) return painted;
    const counts = this._session.masks.of(id, this._shown)?.counts;
    try {
      return counts ? this._session.masks.intervals(counts) : null;
    } catch (error) {
      say(`The mask of frame ${this._shown + 1} cannot be drawn: ${error.message}`, "error");
      return null;
    }
  }

  _objectRows() {
    return this._session.objects.map((item) => {
      const known = this._session.masks.of(item.id, this._player.frame);
      return {
        id: item.id,
        label: item.labels.join(", "),
        colour: this._colours.get(item.id),
        isHidden: this._prefs.hidden.includes(item.id),
        score: known?.score,
        hasMask: Boolean(known?.counts),
        promptedFrames: this._session.promptedFrames(item.id),
        ...this._courses.of(item.id),
      };
    });
  }

  /** All that depends on the session's state; the canvas too. */
  _renderState() {
    const { _session: session } = this;
    this._colours = coloursOf(session.objects, this._labelColours, this._prefs.colours);
    this._list.render(this._objectRows(), this._prefs.selected, this._player.count);
    this._list.movePlayhead((this._player.frame + 0.5) / this._player.count);
    this._controls.render(this._player.frame);
    part("undo").disabled = !session.canUndo;
    part("redo").disabled = !session.canRedo;
    part("new").setAttribute("aria-pressed", String(!this._selected));
    setText(part("state"), this._stateText());
    this._renderHint();
    this._renderTimeline();
    this._tellPropagation();
    this._watch.tellOthers(session.othersOnTask);
    this._repaint();
    if (!this._player.isPlaying) this._settled();
  }

  _renderTimeline() {
    const order = (a, b) => (a.id === this._prefs.selected) - (b.id === this._prefs.selected);
    this._timeline.draw({
      tracked: this._session.masks.knownFrames,
      objects: this._objectRows().sort(order),
    });
  }

  _renderCourses() {
    this._renderState();
    part("doubt").disabled = this._doubtStarts().length === 0;
  }

  _renderTools() {
    for (const button of part("tools").querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === this._tools.tool));
    }
    part("brush").hidden = !this._tools.isPainting;
    part("radius").value = Math.round(100 * this._tools.size);
    part("cursor").setAttribute("aria-pressed", String(this._tools.cursor !== null));
    this._renderHint();
  }

  _renderHint() {
    const text = this._hintText();
    part("hint").hidden = text === null;
    setText(part("hint"), text ?? "");
  }

  _hintText() {
    const { tool, cursor } = this._tools;
    if (cursor) return "Arrows move, Enter marks, Shift+Enter marks what is around, C ends.";
    if (tool === "pan") return "Drag to move the picture. A: click on objects again.";
    const isNew = !this._selected && this._session.objects.length > 0;
    if (isNew && tool !== "erase") return "Mark the next object.";
    return null;
  }

  _stateText() {
    if (this._session.pendingCount > 0) return "Working …";
    const { saved } = this._session;
    if (!saved) return "";
    const isNewer = this._session.hasChangedSince(saved);
    return isNewer ? `Changes since ${saved.as} ${saved.id}` : `Saved as ${saved.as} ${saved.id}`;
  }

  _tellPropagation() {
    const { propagation } = this._session;
    const said = `${propagation?.state} ${propagation?.error ?? ""}`;
    if (said === this._saidPropagation) return;
    this._saidPropagation = said;
    const isInterrupted = propagation?.state === "interrupted";
    banner("interrupted", isInterrupted ? "Tracking was interrupted." : null, {
      "Go on": () => this._startTracking(this._session.resume()),
    });
    if (propagation?.state === "failed") say(`Tracking failed: ${propagation.error}`, "error");
  }

  // --- the task and the service ---------------------------------------------------

  _fillHeader(name) {
    const { width, height, frame_count: count, fps } = this._session.video;
    setText(part("title"), name);
    part("title").title = name;
    setText(part("facts"), `${width} × ${height}, ${Number(fps.toFixed(2))} fps`);
    setText(part("frame-count"), `/ ${count}`);
    part("frame").max = count;
    document.title = `${name} – SAM 2`;
    for (const button of part("workspace").querySelectorAll("button[data-icon]")) {
      const label = button.getAttribute("aria-label") ?? button.textContent;
      setIcon(button, button.dataset.icon, label);
    }
  }

  _fillLabels() {
    const select = part("new-label");
    const labels = this._task?.labels ?? [];
    select.hidden = labels.length === 0;
    select.replaceChildren(...labels.map(({ value }) => new Option(value, value)));
    setName(part("new"), "New object (N)");
  }

  _onSaved(answer) {
    rememberSession(`task ${this._task.id}`, this._session.id, answer.version);
    this._watch.forget();
    this._session.refresh();
  }
}

/** After a control was used with the pointer, keys are for the picture again. */
function giveBackFocus(signal) {
  const workspace = part("workspace");
  let isPointer = false;
  const giveBack = ({ target }) => {
    const isControl = target.closest("button, select, [type=range], [type=radio], [type=checkbox]");
    if (!isPointer || !isControl || document.querySelector("dialog[open]")) return;
    part("canvas").focus({ preventScroll: true });
  };
  workspace.addEventListener("pointerdown", () => { isPointer = true; }, { signal });
  workspace.addEventListener("keydown", () => { isPointer = false; }, { signal });
  workspace.addEventListener("click", (event) => {
    if (event.target.closest("button")) giveBack(event);
  }, { signal });
  workspace.addEventListener("change", giveBack, { signal });
}

/** Label Studio's regions need ids that no other region has; alone, numbers read better. */
function newId(session) {
  if (session.taskId !== null) {
    const bytes = crypto.getRandomValues(new Uint8Array(5));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  const numbers = session.objects.map(({ id }) => Number(id)).filter(Number.isInteger);
  return String(Math.max(0, ...numbers) + 1);
}

function clockText(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
}
