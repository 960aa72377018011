// The keyboard: which key does what, and the page that says so.

import { element, part } from "./dom.js";

const KEYS = [
  ["Time", [
    ["Space", "play or pause", "play"],
    ["ArrowLeft", "one frame back", "back"],
    ["ArrowRight", "one frame on", "next"],
    ["Shift+ArrowLeft", "ten frames back", "backTen"],
    ["Shift+ArrowRight", "ten frames on", "nextTen"],
    ["Home", "first frame", "first"],
    ["End", "last frame", "last"],
    ["[", "frame with marks before", "backMark"],
    ["]", "next frame with marks", "nextMark"],
    ["D", "next doubtful stretch", "nextDoubt"],
    ["Shift+D", "doubtful stretch before", "backDoubt"],
  ]],
  ["Tools", [
    ["A", "click on the object, drag a box", "toolAdd"],
    ["S", "click on what is not the object", "toolRemove"],
    ["X", "draw a box", "toolBox"],
    ["B", "paint the mask", "toolBrush"],
    ["E", "erase the mask", "toolErase"],
    ["P", "move the picture", "toolPan"],
    [",", "smaller brush", "smaller"],
    [".", "larger brush", "larger"],
    ["+", "zoom in", "zoomIn"],
    ["-", "zoom out", "zoomOut"],
    ["0", "whole picture", "fit"],
    ["M", "show or hide all masks", "masks"],
  ]],
  ["Objects", [
    ["N", "new object", "newObject"],
    ["1", "first object, up to 9", null],
    ["H", "show or hide the object", "hide"],
    ["L", "label or name of the object", "label"],
    ["Delete", "take back the object's marks on this frame", "clear"],
    ["Shift+Delete", "delete the object", "delete"],
  ]],
  ["Work", [
    ["T", "track, or stop", "track"],
    ["R", "go on tracking", "resume"],
    ["Ctrl+Z", "undo", "undo"],
    ["Ctrl+Shift+Z", "redo", "redo"],
    ["Ctrl+S", "save or export", "save"],
    ["?", "this page", "help"],
  ]],
];
const POINTER = ["Pointer", [
  ["Click", "on the object"],
  ["Alt+Click", "not on the object; the right button too"],
  ["Drag", "a box around the object"],
  ["Click a mark", "takes it back"],
  ["Ctrl+Wheel", "zoom"],
  ["Middle button", "move the picture; the wheel too when zoomed"],
]];
const CURSOR = ["Picture without a pointer", [
  ["C", "begin or end", "cursor"],
  ["Arrows", "move; Shift: far, Ctrl: one pixel"],
  ["Enter", "on the object; begin and end a box or a stroke"],
  ["Shift+Enter", "not on the object"],
  ["Escape", "give up what has begun"],
]];
const SHOWN = { ArrowLeft: "←", ArrowRight: "→" };
const ALIASES = { Backspace: "Delete", "Ctrl+Y": "Ctrl+Shift+Z", "=": "+", _: "-" };
const NEEDS_NO_SHIFT = /^[^A-Za-z0-9]$/; // it is part of typing the character

const byKey = new Map(
  [...KEYS, CURSOR].flatMap(([, keys]) => keys).filter(([, , action]) => action)
    .map(([key, , action]) => [key, action]),
);

/** Names like "Ctrl+Shift+Z" of a key event. */
function nameOf(event) {
  const key = event.key === " " ? "Space" : event.key;
  const isCharacter = key.length === 1;
  const name = isCharacter ? key.toUpperCase() : key;
  const parts = [];
  const isCtrl = event.ctrlKey || event.metaKey;
  if (isCtrl && !isTypingCharacter(event)) parts.push("Ctrl");
  if (event.shiftKey && !(isCharacter && NEEDS_NO_SHIFT.test(key))) parts.push("Shift");
  const whole = [...parts, name].join("+");
  if (ALIASES[whole]) return ALIASES[whole];
  return [...parts, ALIASES[name] ?? name].join("+");
}

/** Some keyboards have [ and ] behind AltGr, which some systems report as Ctrl and Alt. */
function isTypingCharacter(event) {
  return event.getModifierState("AltGraph");
}

/** Calls `actions[name](event)` for keys that are not typed into something. */
export function listenToKeys(actions, isFree, signal) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || (event.altKey && !isTypingCharacter(event))) return;
    if (document.querySelector("dialog[open]")) return;
    if (!isFree()) return;
    const name = nameOf(event);
    if (isTyping(event.target) && name !== "Ctrl+S") return;
    if (isItsOwn(event.target, name)) return;
    const digit = /^[1-9]$/.exec(name);
    const action = digit ? "select" : byKey.get(name);
    if (!action) return;
    event.preventDefault();
    actions[action](digit ? Number(name) : event);
  }, { signal });
}

function isTyping(target) {
  if (!target.matches?.("input, select, textarea")) return false;
  return !["radio", "checkbox", "color", "range"].includes(target.type);
}

/** Whether the key works the control that has the focus. */
function isItsOwn(target, name) {
  if (name === "Space" || name === "Enter") return target.matches?.("button, a, input");
  return name.startsWith("Arrow") && target.matches?.("input");
}

/** Fills the dialog once. */
export function fillHelp() {
  const lists = [...KEYS, CURSOR, POINTER].map(([title, keys]) => element(
    "section", {},
    element("h3", {}, title),
    element("dl", {}, ...keys.flatMap(([key, text]) => [
      element("dt", {}, element("kbd", {}, shown(key))), element("dd", {}, text),
    ])),
  ));
  part("help-lists").replaceChildren(...lists);
}

function shown(key) {
  return key === "+" ? key : key.split("+").map((name) => SHOWN[name] ?? name).join(" ");
}
