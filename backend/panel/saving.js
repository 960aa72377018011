// The dialog that brings the result to Label Studio, or to a file.

import { ApiError, sessionPath } from "./api.js";
import { element, part, setText } from "./dom.js";
import { ask } from "./notices.js";

const AS = {
  annotation: ["Annotation", "finished work, as Submit makes it"],
  draft: ["Draft", "unfinished; Label Studio shows it to the service's user alone"],
  prediction: ["Prediction", "a suggestion for whoever opens the task"],
};
const FORMATS = {
  tracks: ["Tracks", "one JSON file, which the convert command reads"],
  coco: ["COCO", "frames with RLE masks"],
  youtube_vis: ["YouTube-VIS", "video instances with RLE masks"],
  sav: ["SA-V", "masklets"],
  davis: ["DAVIS", "indexed PNG masks"],
};

export class Saving {
  /**
   * `task`: as /api/panel/tasks/ID gives it, or null. `onReload()`: begin again from what the
   * task has now. `onSaved(answer)`.
   */
  constructor(api, session, task, { onReload, onSaved }) {
    this._api = api;
    this._session = session;
    this._task = task;
    this._onReload = onReload;
    this._onSaved = onSaved;
    const button = part("save");
    setText(button, task ? "Save" : "Export");
    button.title = `${task ? "Save to Label Studio" : "Export to a file"} (Ctrl+S)`;
    part("saving-close").onclick = () => part("saving").close();
    part("saving-do").onclick = () => this._do();
  }

  open() {
    const { _task: task } = this;
    setText(part("saving-title"), task ? `Save to task ${task.id}` : "Export");
    const count = this._session.objects.length;
    const parts = [`${count} ${count === 1 ? "object" : "objects"}`];
    if (task?.saves) parts.push(`as ${task.saves}`);
    const sentences = [`${parts.join(" ")}.`];
    if (this._session.isTracking) sentences.push("Tracking goes on: what is there now is taken.");
    setText(part("saving-text"), sentences.join(" "));
    setText(part("saving-do"), task ? "Save" : "Export");
    const choices = task ? task.can_save.map((key) => [key, AS[key] ?? [key, ""]])
      : Object.entries(FORMATS);
    const chosen = part("saving-choices").querySelector(":checked")?.value;
    part("saving-choices").replaceChildren(...choices.map(([key, [name, text]], number) => {
      const radio = element("input", { type: "radio", name: "as", value: key });
      radio.checked = chosen ? chosen === key : number === 0;
      return element(
        "label", { className: "choice" }, radio, element("b", {}, name),
        element("span", { className: "quiet" }, text),
      );
    }));
    part("saving-result").replaceChildren();
    part("saving").showModal();
  }

  async _do() {
    const chosen = part("saving-choices").querySelector(":checked").value;
    const button = part("saving-do");
    button.disabled = true;
    part("saving-result").replaceChildren(this._task ? "Saving …" : "Making the file …");
    try {
      if (this._task) await this._save(chosen, { overwrite: false });
      else await this._export(chosen);
    } catch (error) {
      this._show(element("p", { className: "bad" }, `Not done: ${error.message}`));
    } finally {
      button.disabled = false;
    }
  }

  async _save(as, { overwrite }) {
    const body = { as, version: this._task.version, overwrite };
    try {
      this._showSaved(await this._api.post(sessionPath(this._session.id, "save"), body));
    } catch (error) {
      if (!(error instanceof ApiError && error.title === "task changed")) throw error;
      await this._askAboutChange(as);
    }
  }

  async _askAboutChange(as) {
    const text = "Somebody has saved or changed work on it since this session began. What you save "
      + "now does not have that in it.";
    const answer = await ask("The task has changed in Label Studio", text, {
      cancel: "Do not save",
      overwrite: "Save all the same",
      reload: "Leave this and read the task again",
    });
    if (answer === "overwrite") {
      await this._save(as, { overwrite: true });
    } else if (answer === "reload") {
      part("saving").close();
      this._onReload();
    } else {
      this._show(element("p", {}, "Not saved. Your work is kept here."));
    }
  }

  _showSaved(answer) {
    this._task.version = answer.version;
    this._onSaved(answer);
    const said = element("p", { className: "good" }, `Saved as ${answer.as} ${answer.id}. `);
    if (/^https?:\/\//.test(answer.url ?? "")) {
      said.append(element(
        "a", { href: answer.url, target: "_blank", rel: "noopener noreferrer" },
        "Open it in Label Studio",
      ));
    }
    this._show(said, ...leftOut(answer.left_out ?? []));
  }

  async _export(format) {
    const path = `${sessionPath(this._session.id, "export")}?format=${format}`;
    const { blob, name } = await this._api.file(path);
    const url = URL.createObjectURL(blob);
    const file = name ?? `${format}.json`;
    element("a", { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    this._show(element("p", { className: "good" }, `${file}, ${sizeText(blob.size)}.`));
  }

  _show(...nodes) {
    part("saving-result").replaceChildren(...nodes);
  }
}

function leftOut(items) {
  if (items.length === 0) return [];
  return [
    element("p", {}, "Left out:"),
    element("ul", {}, ...items.map(({ object, reason }) => (
      element("li", {}, object ? `${object}: ${reason}` : reason)
    ))),
  ];
}

function sizeText(bytes) {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
