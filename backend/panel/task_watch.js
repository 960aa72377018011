// Looks again and again whether the task has changed in Label Studio, or others work on it.

import { banner, sayError } from "./notices.js";

const EVERY_MS = 60000;

export class TaskWatch {
  /** `task`: as the service gives it, or null. `onReload()`: begin again from the task. */
  constructor(api, session, task, onReload) {
    this._api = api;
    this._session = session;
    this._task = task;
    this._onReload = onReload;
    this._timer = setInterval(() => this._look(), EVERY_MS);
    this._ending = new AbortController();
    window.addEventListener("focus", () => this._look(), { signal: this._ending.signal });
  }

  close() {
    clearInterval(this._timer);
    this._ending.abort();
    this._tell(false);
    banner("others", null);
  }

  /** Says how many others there are, as the session's state has it. */
  tellOthers(count) {
    const who = count === 1 ? "Somebody else has" : `${count} others have`;
    banner("others", count
      ? `${who} this task open here. What each saves stands beside what others save.`
      : null);
  }

  /** What the task has is now known. */
  forget() {
    this._tell(false);
  }

  async _look() {
    if (document.hidden || this._session.pendingCount > 0) return;
    await this._session.refresh();
    if (!this._task) return;
    try {
      const { version } = await this._api.get(`api/panel/tasks/${this._task.id}`);
      this._tell(version !== this._task.version && version !== this._keptOver, version);
    } catch (error) {
      sayError("look whether the task has changed", error);
    }
  }

  _tell(isChanged, version) {
    const text = isChanged ? "The task has changed in Label Studio since you opened it." : null;
    banner("changed", text, {
      "Read it again": this._onReload,
      "Keep mine": () => {
        this._keptOver = version;
        banner("changed", null);
      },
    });
  }
}
