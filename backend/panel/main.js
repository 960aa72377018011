// The page: opens what its address asks for, and keeps it open.

import { asked, keepInAddress, takeKey } from "./address.js";
import { Api } from "./api.js";
import { part, setText } from "./dom.js";
import { banner, sayError } from "./notices.js";
import { fillHelp } from "./shortcuts.js";
import { begin, beginAgain, showFailure, showStart, showWorkspace } from "./start.js";
import { Workspace } from "./workspace.js";

const ROOT = new URL("../", import.meta.url);
const api = new Api(ROOT, takeKey(), showConnection);
let workspace = null;

function showConnection({ isUp, reason }) {
  banner("connection", isUp ? null : `${reason} Trying again …`);
  if (!part("start").hidden && !isUp) setText(part("start-text"), `${reason} Trying again …`);
}

async function open(find) {
  showStart("Opening …");
  try {
    const { session, task } = await find();
    keepInAddress({ session: session.id });
    workspace?.close();
    showWorkspace();
    workspace = new Workspace(api, session, task, nameOf(task), {
      onReload: () => reopen(task).catch((error) => sayError("begin again", error)),
    });
  } catch (error) {
    showFailure(`${error.message} (${error.title ?? error.name})`, () => open(() => begin(api)));
    if (!error.title) throw error; // a mistake in this page: the console has where
  }
}

/** The old session stays on the screen until the new one is there. */
async function reopen(task) {
  const { session, task: newer } = await beginAgain(api, task);
  workspace.close();
  await open(async () => ({ session, task: newer }));
}

function nameOf(task) {
  if (task) return `${task.shown} · task ${task.id}`;
  return (asked().file ?? "").split(/[?#]/)[0].split(/[/\\]/).pop() || "Video";
}

fillHelp();
open(() => begin(api));
