// Messages over the picture, so that nothing moves when they come. What went wrong stays until
// it is taken away by hand.

import { element, part, setIcon, setText } from "./dom.js";

const SHOWN_MS = 6000;

/** `kind`: info, good or error. The same text again only counts. */
export function say(text, kind = "info") {
  const list = part("notices");
  const same = [...list.children].find((item) => item.dataset.text === text);
  if (same) {
    same.dataset.count = Number(same.dataset.count ?? 1) + 1;
    setText(same.querySelector(".count"), ` (${same.dataset.count} times)`);
    return;
  }
  const close = element("button", { type: "button", className: "icon" });
  setIcon(close, "close", "Take the message away");
  const notice = element(
    "div", { className: `notice ${kind}` },
    element("p", {}, text, element("span", { className: "count" })), close,
  );
  notice.dataset.text = text;
  notice.setAttribute("role", kind === "error" ? "alert" : "status");
  close.addEventListener("click", () => {
    notice.remove();
    part("canvas").focus({ preventScroll: true });
  });
  list.prepend(notice);
  if (kind !== "error") setTimeout(() => notice.remove(), SHOWN_MS);
}

/** What went wrong while doing `what`, in words. */
export function sayError(what, error) {
  say(`Could not ${what}: ${error.message}`, "error");
}

/** A state that lasts, above the picture; `null` ends it. `answers`: {text: function}. */
export function banner(name, text, answers = {}) {
  const list = part("banners");
  const before = list.querySelector(`[data-name="${name}"]`);
  if (before?.dataset.text === text) return;
  before?.remove();
  if (text === null) return;
  const shown = element("div", { className: "banner" }, element("p", {}, text));
  shown.dataset.name = name;
  shown.dataset.text = text;
  shown.setAttribute("role", "status");
  for (const [answer, act] of Object.entries(answers)) {
    const button = element("button", { type: "button" }, answer);
    button.addEventListener("click", act);
    shown.append(button);
  }
  list.append(shown);
}

/** Resolves to the key of the answer that a person gives; null for none. `answers`: {key: text}. */
export function ask(title, text, answers) {
  const dialog = part("question");
  setText(part("question-title"), title);
  setText(part("question-text"), text);
  const buttons = Object.entries(answers).map(([key, answer], number) => {
    const button = element("button", { type: "button" }, answer);
    if (number === 0) button.className = "primary";
    button.addEventListener("click", () => dialog.close(key));
    return button;
  });
  part("question-answers").replaceChildren(...buttons);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
  });
}
