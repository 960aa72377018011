// From the page's address to a session: which task or video, and whose work goes on.

import { asked, keepInAddress } from "./address.js";
import { ApiError } from "./api.js";
import { element, part, setText } from "./dom.js";
import { browser, recall, remember } from "./memory.js";
import { ask, say } from "./notices.js";
import { Session } from "./session.js";

const MOST_REMEMBERED = 50;

/** {session, task}: task is null for a video without one. Rejects with what the service says. */
export async function begin(api) {
  const query = asked();
  if (query.session) {
    const found = await opened(api, query.session);
    if (found) return found;
    say("The session of this address is no longer kept.");
  }
  if (query.task) return onTask(api, await readTask(api, query.task));
  if (query.file) return onFile(api, query.file);
  if (query.video) return onTask(api, await taskOfVideo(api, query));
  if (query.project) return onTask(api, await taskOfProject(api, query.project));
  return onFile(api, await askForFile());
}

/** A new session on what the page shows, from what Label Studio has now. */
export async function beginAgain(api, task) {
  if (task) return created(api, await readTask(api, task.id));
  const { file } = asked();
  if (!file) throw new Error("the address names no file: open the page with ?file=...");
  return createdOnFile(api, file);
}

/** Null when the session is gone for good. */
async function opened(api, id) {
  let session;
  try {
    session = await Session.open(api, id);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
  if (session.taskId === null) return { session, task: null };
  return withVersion(session, await readTask(api, session.taskId));
}

/** This browser's own session of that name, or another that a person wants to go on with. */
async function known(api, name, query) {
  const mine = remembered()[name]?.session;
  const found = mine && await opened(api, mine);
  if (found) return found;
  const { sessions } = await api.get(`api/sessions?${new URLSearchParams(query)}`);
  if (sessions.length === 0) return null;
  const answer = await ask(
    "There is work on this video already",
    `A session of ${timeText(sessions[0].used_at)} is kept. Two people who go on with one session `
    + "change each other's work.",
    { new: "Begin a new one", go: "Go on with it" },
  );
  return answer === "go" ? opened(api, sessions[0].id) : null;
}

async function onFile(api, file) {
  keepInAddress({ file });
  const found = await known(api, `file ${file}`, { video: file });
  if (!found) return createdOnFile(api, file);
  rememberSession(`file ${file}`, found.session.id, null);
  return found;
}

async function createdOnFile(api, file) {
  const session = await Session.create(api, { video: file });
  rememberSession(`file ${file}`, session.id, null);
  return { session, task: null };
}

// --- tasks ---------------------------------------------------------------------

function readTask(api, id) {
  return api.get(`api/panel/tasks/${encodeURIComponent(id)}`);
}

async function onTask(api, task) {
  keepInAddress({ task: task.id });
  return await known(api, `task ${task.id}`, { task_id: task.id }) ?? created(api, task);
}

async function created(api, task) {
  const body = { task_id: task.id, project_id: task.project_id };
  return withVersion(await Session.create(api, body), task);
}

/** The task's version is that of when the session began, also after a reload. */
function withVersion(session, task) {
  const before = remembered()[`task ${task.id}`];
  const version = before?.session === session.id ? before.version : task.version;
  rememberSession(`task ${task.id}`, session.id, version);
  return { session, task: { ...task, version } };
}

function remembered() {
  return recall(browser, "sessions") ?? {};
}

/** `name`: of the task or file. `version`: of the task that the session knows, or null. */
export function rememberSession(name, session, version) {
  const { [name]: _, ...others } = remembered();
  const newest = Object.entries(others).sort(([, a], [, b]) => b.at - a.at);
  const kept = Object.fromEntries(newest.slice(0, MOST_REMEMBERED - 1));
  remember(browser, "sessions", { ...kept, [name]: { session, version, at: Date.now() } });
}

async function taskOfVideo(api, { video: readings, project }) {
  for (const video of readings) {
    const query = new URLSearchParams({ video, ...(project ? { project } : {}) });
    const { tasks } = await api.get(`api/panel/tasks?${query}`);
    if (tasks.length === 0) continue;
    const chosen = tasks.length === 1 ? tasks[0]
      : await choose(`${tasks.length} tasks have this video. Which one?`, tasks);
    return readTask(api, chosen.id);
  }
  const detail = `No task that this link may open has the video ${readings[0]}.`;
  throw new ApiError(404, "no such task", detail);
}

async function taskOfProject(api, project) {
  for (let page = 1; ; ) {
    const query = new URLSearchParams({ project, page });
    const { tasks, total } = await api.get(`api/panel/tasks?${query}`);
    const pages = Math.max(1, Math.ceil(total / 50));
    const title = tasks[0]?.project_title ?? `project ${project}`;
    const text = total ? `${title}: ${total} tasks.` : `There are no tasks in ${title}.`;
    const chosen = await choose(text, tasks, { page, pages });
    if (typeof chosen !== "number") return readTask(api, chosen.id);
    page = chosen;
  }
}

// --- what a person is asked ------------------------------------------------------

/** Resolves to the chosen task, or to the number of another page. */
function choose(text, tasks, { page = 1, pages = 1 } = {}) {
  showStart(text);
  part("start-pages").hidden = pages < 2;
  setText(part("start-page"), `Page ${page} of ${pages}`);
  part("start-back").disabled = page <= 1;
  part("start-next").disabled = page >= pages;
  return new Promise((resolve) => {
    part("start-back").onclick = () => resolve(page - 1);
    part("start-next").onclick = () => resolve(page + 1);
    part("start-choices").replaceChildren(...tasks.map((task) => {
      const button = element(
        "button", { type: "button" },
        element("b", {}, `Task ${task.id}`), ` ${task.shown} `,
        element("span", { className: "quiet" }, countsText(task)),
      );
      button.addEventListener("click", () => resolve(task));
      return element("li", {}, button);
    }));
  }).finally(() => showStart("Opening …"));
}

function askForFile() {
  showStart("Open a video, or use the link of a Label Studio task.");
  return fileOfForm();
}

function fileOfForm() {
  part("start-form").hidden = false;
  return new Promise((resolve) => {
    part("start-form").onsubmit = (event) => {
      event.preventDefault();
      showStart("Opening …");
      resolve(part("start-file").value.trim());
    };
  });
}

/** What went wrong instead of a session; `retry()` begins again with the address as it is then. */
export async function showFailure(text, retry) {
  showStart(text);
  part("start-text").classList.add("bad");
  part("start-again").hidden = false;
  part("start-again").onclick = retry;
  const { file, task, video, project } = asked();
  if (task || video || project) return;
  part("start-file").value = file ?? "";
  keepInAddress({ file: await fileOfForm() });
  retry();
}

/** The page before a session is there, with this to read. */
export function showStart(text) {
  part("workspace").hidden = true;
  part("start").hidden = false;
  part("start-text").classList.remove("bad");
  part("start-again").hidden = true;
  part("start-form").hidden = true;
  part("start-pages").hidden = true;
  part("start-choices").replaceChildren();
  setText(part("start-text"), text);
}

export function showWorkspace() {
  part("start").hidden = true;
  part("workspace").hidden = false;
}

function countsText({ annotations, predictions }) {
  return `${annotations} annotations, ${predictions} predictions`;
}

function timeText(at) {
  const time = new Date(typeof at === "number" ? 1000 * at : at);
  return Number.isNaN(time.getTime()) ? "before" : time.toLocaleString();
}
